"""Metrics of a segment, from a reader's side.

All samples of a scrape come from one look: one snapshot, the counter that was read within it, and CLOCK_REALTIME right
before and after. So the metrics never show a time that ``Clock.now`` refuses at that moment.

Ages and offsets are exported instead of times of day, because a time of day would be compared with the very clock that
is in doubt.
"""

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from fractions import Fraction
from typing import Final, final

from prometheus_client.registry import Collector

from vmclock_async._exporting.families import Families, Family, Metric
from vmclock_async._reading.segment_feed import Fence, PathLike
from vmclock_async.abi import ClockStatus
from vmclock_async.clock import Clock
from vmclock_async.errors import ClockDisruptedError, CounterNotSupportedError, VMClockError
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import UNITS_PER_SECOND, elapsed

__all__ = ("ClockCollector",)

UP: Final = Metric("vmclock_up", "Whether the segment could be read; if not, there is no bounded time.")
BOUNDED: Final = Metric("vmclock_bounded", "Whether there is a bounded time now.")
UNBOUNDED: Final = Metric(
    "vmclock_unbounded_info", "Why there is no bounded time: the class of the error that now() raises.", ("error",)
)
ERROR: Final = Metric(
    "vmclock_error_seconds", "Longest distance of true time from the middle of the interval; absent if unbounded."
)
AGE: Final = Metric(
    "vmclock_reference_age_seconds",
    "Age of the reference time; absent where the counter does not continue the one in the segment.",
)
STATUS: Final = Metric("vmclock_clock_status", "1 for the present clock_status, 0 for the others.", ("status",))
MARKER: Final = Metric(
    "vmclock_disruption_marker", "Lowest 53 bits of the disruption marker, which changes at each disruption."
)
GENERATION: Final = Metric(
    "vmclock_generation",
    "Lowest 53 bits of the generation counter, which changes at each restore; absent if none.",
)
RESTORES_SEEN: Final = Metric("vmclock_restores_seen", "Whether restores of the machine from a snapshot are seen.")
FENCED: Final = Metric("vmclock_fenced", "Whether a device ends readings at once when it reports a disruption.")
COMMITS: Final = Metric("vmclock_commits_total", "Commits to the segment, modulo 2^31.")
INSIDE: Final = Metric(
    "vmclock_system_clock_inside", "Whether CLOCK_REALTIME is in the interval; absent if unbounded."
)
OFFSET: Final = Metric(
    "vmclock_system_clock_offset_seconds",
    "Distance of CLOCK_REALTIME from the interval, 0 inside, positive if it is ahead; absent if unbounded.",
)

_METRICS: Final = (
    UP,
    BOUNDED,
    UNBOUNDED,
    ERROR,
    AGE,
    STATUS,
    MARKER,
    GENERATION,
    RESTORES_SEEN,
    FENCED,
    COMMITS,
    INSIDE,
    OFFSET,
)
_OTHER: Final = "OTHER"
_STATUSES: Final = (*ClockStatus.__members__, _OTHER)
_EXACT: Final = 2**53
"""A sample is a double, which holds integers below this one exactly. A change of the lower bits must be seen."""
_TRIES: Final = 10
_LONGEST_WINDOW_NS: Final = 10**6
"""Time between the two readings of CLOCK_REALTIME, nanoseconds, that needs no other try."""
_NO_AGE: Final = (ClockDisruptedError, CounterNotSupportedError)


@final
class ClockCollector(Collector):
    """Metrics of a segment, for a registry of prometheus-client.

    A scrape never fails because of the segment: if nothing can be read there, ``vmclock_up`` and ``vmclock_bounded``
    are 0. It blocks for a few milliseconds. Any thread may scrape.

    Args:
        clock: an open clock, which must stay open; or the path of the segment, which is opened for each scrape, so
            that it need not be there yet; None: the default paths, see ``Clock``.
        fence: see ``Clock``; for a path.
    """

    def __init__(self, clock: Clock | PathLike | None = None, *, fence: Fence = "auto") -> None:
        self._clock: Final = clock
        self._fence: Final[Fence] = fence

    def describe(self) -> Iterator[Family]:
        """All families that a scrape may have, without samples."""
        return (metric.family() for metric in _METRICS)

    def collect(self) -> Iterator[Family]:
        """The families of one scrape."""
        families = Families(_METRICS)
        error: Exception | None
        try:
            with self._opened() as clock:
                look = _Look(clock)
        except (VMClockError, OSError) as exc:
            error = exc
            families.add(UP, 0)
        else:
            error = look.error
            look.add_to(families)
        families.add(BOUNDED, error is None)
        if error is not None:
            families.add(UNBOUNDED, 1, type(error).__name__)
        return iter(families)

    def _opened(self) -> AbstractContextManager[Clock]:
        if isinstance(self._clock, Clock):
            return nullcontext(self._clock)
        return Clock(self._clock, fence=self._fence)


@final
class _Look:
    """One look at a segment and at CLOCK_REALTIME. Raises as ``Clock.snapshot`` does."""

    def __init__(self, clock: Clock) -> None:
        readings = clock._readings
        for _ in range(_TRIES):
            self._first_ns = time.time_ns()
            self._snapshot, self._counter = readings.sample()
            self._last_ns = time.time_ns()
            if self._last_ns - self._first_ns <= _LONGEST_WINDOW_NS:
                break
        self._interval: TimeInterval | None = None
        self.error: VMClockError | None = None
        """Why there is no interval."""
        try:
            self._interval = readings.interval(self._snapshot, self._counter, None)
        except VMClockError as exc:
            self.error = exc
        self._is_fenced = clock.fenced
        self._sees_restores = readings.sees_restores(self._snapshot)

    def add_to(self, families: Families) -> None:
        """Add a sample of all that was seen."""
        snapshot, body = self._snapshot, self._snapshot.body
        families.add(UP, 1)
        families.add_one_of(STATUS, _STATUSES, _status_name(snapshot))
        families.add(MARKER, body.disruption_marker % _EXACT)
        if body.vm_generation_counter is not None:
            families.add(GENERATION, body.vm_generation_counter % _EXACT)
        families.add(RESTORES_SEEN, self._sees_restores)
        families.add(FENCED, self._is_fenced)
        families.add(COMMITS, snapshot.seq_count // 2)
        if body.counter_period_frac_sec and not isinstance(self.error, _NO_AGE):
            age = elapsed(body, body.counter_value, self._counter)
            families.add(AGE, float(Fraction(age, UNITS_PER_SECOND)))
        if self._interval is not None:
            families.add(ERROR, _rounded_up_s(self._interval.error_ns))
            offset_ns = _offset_ns(self._interval, self._first_ns, self._last_ns)
            families.add(INSIDE, offset_ns == 0)
            families.add(OFFSET, offset_ns / 10**9)


def _status_name(snapshot: Snapshot) -> str:
    status = snapshot.body.clock_status
    return status.name if isinstance(status, ClockStatus) else _OTHER


def _rounded_up_s(ns: int) -> float:
    """*ns* in seconds, as the smallest double that is not less: a bound is rounded outward."""
    seconds = ns / 10**9
    return seconds if Fraction(seconds) * 10**9 >= ns else math.nextafter(seconds, math.inf)


def _offset_ns(interval: TimeInterval, first_ns: int, last_ns: int) -> int:
    """Least distance from *interval* of a clock that was read as *first_ns* before it and as *last_ns* after it."""
    if first_ns > interval.latest_ns:
        return first_ns - interval.latest_ns
    return min(0, last_ns - interval.earliest_ns)
