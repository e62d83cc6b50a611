"""Descriptions of metrics, and the families of samples that one scrape makes of them.

Names follow Prometheus' conventions: base units as the last word, ``_total`` for counters, ``_info`` where the labels
are the value. Each label takes its values from a set that is known at the start.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric as Family

__all__ = ("Families", "Family", "Metric")


@final
@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name, what it says, and the names of its labels."""

    name: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["counter", "gauge"]:
        """A counter only grows, until its process begins again."""
        return "counter" if self.name.endswith("_total") else "gauge"

    def family(self) -> GaugeMetricFamily | CounterMetricFamily:
        """A family of it without a sample."""
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        return make(self.name, self.help, labels=self.labels)


@final
class Families:
    """The families of one scrape."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._families: Final = {metric.name: metric.family() for metric in metrics}

    def add(self, metric: Metric, value: float, *labels: str) -> None:
        """Add a sample of *metric*, with the values of its *labels*."""
        self._families[metric.name].add_metric(labels, value)

    def add_one_of(self, metric: Metric, values: Iterable[str], value: str, *labels: str) -> None:
        """Add a sample for each of *values*, the last label: 1 for *value*, and 0 for the others."""
        for each in values:
            self.add(metric, each == value, *labels, each)

    def __iter__(self) -> Iterator[Family]:
        """The families that have samples."""
        return (family for family in self._families.values() if family.samples)
