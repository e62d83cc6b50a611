"""Metrics of a publisher: what its sources do, and how its segment looks to a reader."""

from collections.abc import Iterator
from itertools import chain
from typing import Final, final, get_args

from prometheus_client.registry import Collector

from vmclock_async._exporting.families import Families, Family, Metric
from vmclock_async._exporting.segment_metrics import ClockCollector
from vmclock_async._reading.segment_feed import Fence
from vmclock_async.publisher import Publisher, SourceState

__all__ = ("PublisherCollector",)

_COMMITS: Final = Metric("vmclock_publisher_commits_total", "Commits of this publisher.")
_GROUP: Final = Metric(
    "vmclock_source_published",
    "Whether the published disruptions, time or calendar come from this source.",
    ("source", "group"),
)
_STATE: Final = Metric(
    "vmclock_source_state", "1 for the present state of the source, 0 for the others.", ("source", "state")
)
_RESTARTS: Final = Metric(
    "vmclock_source_restarts_total", "Times the source was run again after it was unavailable.", ("source",)
)
_UPDATES: Final = Metric("vmclock_source_updates_total", "Updates taken from the source.", ("source",))
_DROPPED: Final = Metric(
    "vmclock_source_dropped_updates_total",
    "Updates among them that were dropped, because a disruption had ended their epoch.",
    ("source",),
)
_UPDATE_AGE: Final = Metric(
    "vmclock_source_update_age_seconds", "Time since the last update; absent before the first.", ("source",)
)
_ERROR_AGE: Final = Metric(
    "vmclock_source_error_age_seconds", "Time since the source last failed; absent if it has not.", ("source",)
)
_COMPLAINTS: Final = Metric(
    "vmclock_source_complaints_total", "Faults in updates of the source, by kind.", ("source", "kind")
)
_GAP: Final = Metric(
    "vmclock_source_gap_seconds",
    "Time between the intervals of two sources, positive if that of other is later; 0 if they agree.",
    ("source", "other"),
)
_GAP_ERROR: Final = Metric(
    "vmclock_source_gap_error_seconds",
    "Half the width of the interval of source, when it was compared with that of other.",
    ("source", "other"),
)
_DISAGREEMENTS: Final = Metric(
    "vmclock_source_disagreements_total",
    "Times that the two sources began to contradict each other.",
    ("source", "other"),
)
_METRICS: Final = (
    _COMMITS,
    _GROUP,
    _STATE,
    _RESTARTS,
    _UPDATES,
    _DROPPED,
    _UPDATE_AGE,
    _ERROR_AGE,
    _COMPLAINTS,
    _GAP,
    _GAP_ERROR,
    _DISAGREEMENTS,
)


@final
class PublisherCollector(Collector):
    """Metrics of *publisher* and of its segment, for a registry of prometheus-client.

    It has those of ``ClockCollector`` too, so a registry takes one of the two.

    Args:
        publisher: the publisher, whether it runs yet or not. Its sources' names become values of a label.
        fence: see ``Clock``.
    """

    def __init__(self, publisher: Publisher, *, fence: Fence = "auto") -> None:
        self._publisher: Final = publisher
        self._segment: Final = ClockCollector(publisher.path, fence=fence)

    def describe(self) -> Iterator[Family]:
        """All families that a scrape may have, without samples."""
        return chain(self._segment.describe(), (metric.family() for metric in _METRICS))

    def collect(self) -> Iterator[Family]:
        """The families of one scrape."""
        families = Families(_METRICS)
        statistics = self._publisher.statistics()
        families.add(_COMMITS, statistics.commits)
        for name, source in statistics.sources.items():
            for group, origin in statistics.groups.items():
                families.add(_GROUP, origin == name, name, group)
            families.add_one_of(_STATE, get_args(SourceState), source.state, name)
            families.add(_RESTARTS, source.restarts, name)
            families.add(_UPDATES, source.updates, name)
            families.add(_DROPPED, source.dropped, name)
            for metric, age_s in ((_UPDATE_AGE, source.update_age_s), (_ERROR_AGE, source.error_age_s)):
                if age_s is not None:
                    families.add(metric, age_s, name)
            for kind, number in source.complaints.items():
                families.add(_COMPLAINTS, number, name, kind.replace(" ", "_"))
        for compared in statistics.comparisons:
            one, other = compared.sources
            families.add(_DISAGREEMENTS, compared.disagreements, one, other)
            if compared.intervals is not None:
                families.add(_GAP, compared.gap_ns / 1e9, one, other)
                for interval, pair in zip(compared.intervals, ((one, other), (other, one)), strict=True):
                    families.add(_GAP_ERROR, interval.error_ns / 1e9, *pair)
        return chain(self._segment.collect(), families)
