"""Bounded time and the incarnation on spans and log records of OpenTelemetry. Needs the extra ``otel``.

The attributes are ``vmclock.earliest_ns``, ``vmclock.latest_ns``, ``vmclock.clock_status`` and ``vmclock.incarnation``:
the fields of ``vmclock_async.stamping.TimeValues``. OpenTelemetry has no attribute without a value, so one that is None
is left out: without a bounded time there is ``vmclock.clock_status``, which says why, and the two times are missing.

The times are integers of 64 bits. OTLP carries them exactly, and its JSON has them as strings. A backend that shows
them through doubles is off by up to 128 ns: take *strings* there.
"""

from collections.abc import MutableMapping
from typing import Any, Final, cast, final

try:
    from opentelemetry.context import Context
    from opentelemetry.sdk._logs import LogRecordProcessor, ReadWriteLogRecord
    from opentelemetry.sdk.trace import Span, SpanProcessor
except ImportError as exc:
    raise ModuleNotFoundError(
        "stamps of OpenTelemetry need opentelemetry-sdk from 1.39 on; install it with: "
        "pip install 'vmclock-async[otel]'",
        name=exc.name,
    ) from exc

from vmclock_async.clock import Clock
from vmclock_async.stamping._fields import TimeFields

__all__ = ("TimeLogRecordProcessor", "TimeSpanProcessor", "time_attributes")


def time_attributes(clock: Clock, *, strings: bool = False) -> dict[str, int | str]:
    """The attributes at this moment, for an event of a span, such as its end. Nothing is raised.

    Args:
        clock: see ``TimeFields``.
        strings: see ``TimeFields``.
    """
    return _attributes(TimeFields(clock, strings=strings))


def _attributes(fields: TimeFields) -> dict[str, int | str]:
    found = cast("dict[str, int | str | None]", fields.now())
    return {f"vmclock.{name}": value for name, value in found.items() if value is not None}


@final
class TimeSpanProcessor(SpanProcessor):
    """Gives each span that is recorded the attributes of the moment at which it starts.

    The SDK takes no more attributes once a span ends. Where its end matters as well, say so before, with an event:
    ``span.add_event("end", time_attributes(clock))``. If the incarnation there is another one, the machine was restored
    within the span.

    Args:
        clock: see ``TimeFields``.
        strings: see ``TimeFields``.
    """

    def __init__(self, clock: Clock, *, strings: bool = False) -> None:
        self._fields: Final = TimeFields(clock, strings=strings)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Give *span* the attributes. Nothing is raised."""
        span.set_attributes(_attributes(self._fields))


@final
class TimeLogRecordProcessor(LogRecordProcessor):
    """Gives each log record the attributes of the moment at which it is emitted.

    Add it to the ``LoggerProvider`` before the processor that exports: each sees what those before it have done.

    Args:
        clock: see ``TimeFields``.
        strings: see ``TimeFields``.
    """

    def __init__(self, clock: Clock, *, strings: bool = False) -> None:
        self._fields: Final = TimeFields(clock, strings=strings)

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        """Give *log_record* the attributes. Nothing is raised."""
        # They are the SDK's own, which its annotation does not call mutable.
        attributes = cast("MutableMapping[str, Any]", log_record.log_record.attributes)
        attributes.update(_attributes(self._fields))

    def shutdown(self) -> None:
        """Do nothing: this holds no records."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Do nothing: this holds no records."""
        return True
