"""Metrics for Prometheus: of a segment, and of a publisher. Needs the extra ``metrics`` (prometheus-client).

``ClockCollector`` and ``PublisherCollector`` are for any registry of prometheus-client; ``serve_metrics`` serves one to
scrapes from the program's own event loop. On the command line: ``vmclock-async metrics`` and
``vmclock-async publish --metrics``. The manual lists all metrics.
"""

try:
    import prometheus_client as _prometheus_client  # noqa: F401
except ModuleNotFoundError as exc:
    raise ModuleNotFoundError(
        "metrics need prometheus-client; install it with: pip install 'vmclock-async[metrics]'", name=exc.name
    ) from exc

from vmclock_async._exporting.publisher_metrics import PublisherCollector
from vmclock_async._exporting.segment_metrics import ClockCollector
from vmclock_async._exporting.server import serve_metrics

__all__ = ("ClockCollector", "PublisherCollector", "serve_metrics")

for _name in __all__:
    globals()[_name].__module__ = __name__
