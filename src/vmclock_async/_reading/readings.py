"""What a clock makes of a page and a counter: bounded time, now and at stamps. Of ``Clock`` and ``ManualClock``.

A reading is of one snapshot and of a counter value read along with it. Here is the whole of it, slowly; what is quick
is in the compiled core, which comes here for whatever is not plain. Nothing here waits; ``_reading.clockwork`` does.
"""

import math
import operator
from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Final, NamedTuple, Self

from vmclock_async._belonging import OfThisProcess
from vmclock_async.abi import ClockStatus, CounterId
from vmclock_async.errors import ClockDisruptedError, ClockStaleError, ClockUnboundedError
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import (
    UNITS_PER_SECOND,
    bounds_at,
    bounds_in_range,
    maxerror_rate,
    reckon,
    reference_month_ns,
    ticks_between,
)

__all__ = ("ATTEMPTS_S", "Readings", "require_limit")

_S: Final = 10**9
ATTEMPTS_S: Final = 0.0005
"""How long synchronous methods do."""
_SLOWEST_MONOTONIC: Final = Fraction(899, 1000)
_FASTEST_MONOTONIC: Final = Fraction(1101, 1000)
"""CLOCK_MONOTONIC by true time: the kernel lets a daemon slew it by a tenth (ADJ_TICK) and 500 ppm (ADJ_FREQUENCY),
and takes an oscillator to be off by as much (kernel/time/ntp.c)."""


class _Since(NamedTuple):
    """When a marker was seen first."""

    opened: int
    """As ``Snapshot.opened``: in another file markers begin anew."""
    marker: int
    counter: int
    monotonic_ns: int


class Readings(OfThisProcess, ABC):
    """A page and a counter, read together, and what they tell."""

    _instead = "send its path, and open a clock of it there"

    def __init__(self, *, counter_id: CounterId, max_age: float, max_drift_ppm: float | None) -> None:
        if not 0 < max_age < 2**33:
            raise ValueError(f"max_age must be from 0 to {2**33} s, not {max_age}")
        if max_drift_ppm is not None and not 0 < max_drift_ppm <= 10**6:
            raise ValueError(f"max_drift_ppm must be from 0 to 1,000,000, not {max_drift_ppm}")
        self.max_age: Final = max_age
        self._counter_id: Final = counter_id
        self._drift_ppb: Final = math.ceil(Fraction(max_drift_ppm or 0) * 1000)
        self._since: _Since | None = None

    @property
    @abstractmethod
    def path(self) -> str:
        """Of the segment."""

    @property
    @abstractmethod
    def fenced(self) -> bool:
        """Whether a disruption that the device tells of ends readings at once, whatever the publisher does."""

    @abstractmethod
    def close(self) -> None:
        """Read nothing any more; tasks that wait get a ``SegmentError``."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def _sample(self, limit_s: float) -> tuple[Snapshot, int]:
        """A snapshot and the counter read within it; waits for *limit_s* seconds at most, and with 0 not at all.

        Raises:
            SegmentError: there is none.
        """

    @abstractmethod
    def _fence_marker(self) -> int | None:
        """The marker of the device at this moment; None without one."""

    def _unfit_because(self, snapshot: Snapshot) -> str | None:
        """Why the counter cannot be relied on, though *snapshot* is in its terms; None where nothing says so."""
        return None

    @abstractmethod
    def _pair_monotonic(self) -> tuple[int, int, int]:
        """Counter, CLOCK_MONOTONIC in nanoseconds, and width of the window between them in nanoseconds."""

    @abstractmethod
    def _stamps(self) -> tuple[int, int]:
        """Counter, and CLOCK_MONOTONIC in nanoseconds, of this moment or a little later."""

    @abstractmethod
    def counter_ticks(self) -> int:
        """The raw counter at this moment: a stamp for ``at``."""

    @abstractmethod
    def now(self, *, max_error_ns: int | None = None) -> TimeInterval:
        """The interval of UTC that contains true time, at this moment."""

    def at(self, counter_ticks: int, *, max_error_ns: int | None = None) -> TimeInterval:
        """The interval of UTC that contains the true time at which the counter was *counter_ticks*.

        Convert stamps soon: the interval grows by the drift times the time from the stamp to the page's reference,
        where that is 50 ppm by 50 microseconds a second; and by a second where a month's end lies between them, at
        which there may have been a leap second that the page tells of no more.

        A stamp is a bare number: where the counter was disrupted, went back, and has come as far again, one from before
        cannot be told from one of now. So drop stamps on ``Disrupted``.

        Args:
            counter_ticks: a value of ``counter_ticks()`` (modulo 2**64), taken since this clock was opened and within
                the last ``max_age`` seconds.
            max_error_ns: as for ``now``.

        Raises:
            TypeError: an argument is no integer.
            ValueError: that lies ahead, or *max_error_ns* is out of range.
            ClockStaleError: it is longer ago.
            ClockDisruptedError: the counter was disrupted since, or may have been: the stamp is from before this
                clock first saw the present disruption marker.
            ClockError, SegmentError: as ``now``.
        """
        require_limit(max_error_ns)
        counter_ticks = operator.index(counter_ticks) % 2**64
        snapshot, counter, since = self._look_since()
        self._require_continuous(since, ticks_between(since.counter, counter_ticks) >= 0)
        ago = reckon(snapshot.body.model_copy(update={"counter_value": counter_ticks}), counter).elapsed
        if ago < 0:
            raise ValueError(f"the counter is at {counter}, and {counter_ticks} lies ahead of that")
        if ago > self.max_age * UNITS_PER_SECOND:
            raise self._too_long_ago(Fraction(ago, UNITS_PER_SECOND))
        at = self._interval(snapshot, counter_ticks, None, max_past_s=self.max_age)
        leap_ns = _S if at.earliest_ns < reference_month_ns(snapshot) else 0
        bounds = bounds_in_range(at.earliest_ns - leap_ns, at.latest_ns + leap_ns)
        return _within(TimeInterval(*bounds, at.status), max_error_ns)

    def at_monotonic(self, ns: int, *, max_error_ns: int | None = None) -> TimeInterval:
        """The interval of UTC that contains the true time at which CLOCK_MONOTONIC was *ns*.

        The kernel may slew that clock by a tenth, so the interval is wider than that of ``now`` by a tenth of the
        stamp's age on either side, and by a second more while a leap second is announced or just over, and for a stamp
        from the month before the page's reference. Stamps of the counter (``at``) have no such error.

        Args:
            ns: a value of ``time.monotonic_ns()``, taken since this clock was opened and within the last
                ``max_age`` seconds.
            max_error_ns: as for ``now``.

        Raises:
            As ``at``.
        """
        require_limit(max_error_ns)
        ns = operator.index(ns)
        snapshot, _, since = self._look_since()
        self._require_continuous(since, ns >= since.monotonic_ns)
        counter, now_ns, window_ns = self._pair_monotonic()
        elapsed_ns = now_ns - ns
        if elapsed_ns < 0:
            raise ValueError(f"CLOCK_MONOTONIC is at {now_ns} ns, and {ns} lies ahead of that")
        if elapsed_ns > self.max_age * 10**9:
            raise self._too_long_ago(Fraction(elapsed_ns, 10**9))
        now = self._interval(snapshot, counter, None)
        earliest_ns = now.earliest_ns - math.ceil(elapsed_ns / _SLOWEST_MONOTONIC) - window_ns
        latest_ns = now.latest_ns - math.floor(elapsed_ns / _FASTEST_MONOTONIC) + window_ns
        # In a leap second's neighbourhood UTC may have made one since: a second more on both sides.
        near_leap = snapshot.body.leap_indicator or earliest_ns < reference_month_ns(snapshot)
        leap_ns = _S if near_leap else 0
        bounds = bounds_in_range(earliest_ns - leap_ns, latest_ns + leap_ns)
        return _within(TimeInterval(*bounds, now.status), max_error_ns)

    @property
    def age_ns(self) -> int:
        """How old the page's reference time is, nanoseconds, rounded down; negative where it lies ahead.

        Raises:
            SegmentError: as ``now``.
        """
        snapshot, counter = self._look()
        return reckon(snapshot.body, counter).elapsed * 10**9 // UNITS_PER_SECOND

    @property
    def status(self) -> ClockStatus | int:
        """The page's clock_status.

        Raises:
            SegmentError: as ``now``.
        """
        return self._look()[0].body.clock_status

    def _now_slowly(self, max_error_ns: int | None) -> TimeInterval:
        require_limit(max_error_ns)
        snapshot, counter = self._look()
        return self._interval(snapshot, counter, max_error_ns)

    def _look(self, limit_s: float = ATTEMPTS_S) -> tuple[Snapshot, int]:
        """A sample; takes note of its marker. Where a loop runs: with a limit of 0."""
        snapshot, counter, _ = self._look_since(limit_s)
        return snapshot, counter

    def _look_since(self, limit_s: float = ATTEMPTS_S) -> tuple[Snapshot, int, _Since]:
        """The same, and since when its marker is known. Other threads may be here: hence returned, not kept alone."""
        snapshot, counter = self._sample(limit_s)
        return snapshot, counter, self._note_marker(snapshot)

    def _note_marker(self, snapshot: Snapshot) -> _Since:
        """Since when the marker of *snapshot* is known: if it is not, since now."""
        since, marker = self._since, snapshot.body.disruption_marker
        if since is None or since.marker != marker or since.opened != snapshot.opened:
            self._since = since = _Since(snapshot.opened, marker, *self._stamps())
        return since

    def _interval(
        self, snapshot: Snapshot, counter: int, max_error_ns: int | None, *, max_past_s: float = 1.0
    ) -> TimeInterval:
        """The interval of *snapshot* at *counter*, if the fence holds."""
        bounds = bounds_at(
            snapshot,
            counter,
            counter_id=self._counter_id,
            max_age_s=self.max_age,
            max_past_s=max_past_s,
            max_drift_ppb=self._drift_ppb,
        )
        self._require_fence(snapshot)
        return _within(TimeInterval(*bounds, snapshot.body.clock_status), max_error_ns)

    def _longest_tick_s(self, snapshot: Snapshot) -> Fraction:
        """How long a tick of the counter may take."""
        body = snapshot.body
        numerator = body.counter_period_frac_sec + maxerror_rate(body, self._drift_ppb)
        return Fraction(numerator, 2 ** (64 + body.counter_period_shift))

    def _require_fence(self, snapshot: Snapshot) -> None:
        marker, device = snapshot.body.disruption_marker, self._fence_marker()
        if device is not None and (marker - device) % 2**32:
            raise ClockDisruptedError(
                f"the device's disruption marker is {device}, and the segment's is {marker}: the machine was "
                "disrupted, and its publisher has not told yet; wait for a new commit"
            )

    def _fence_generation(self) -> int | None:
        """The device's generation counter at this moment; None without one."""
        return None

    def _generation(self, snapshot: Snapshot) -> int | None:
        """The machine's generation counter, as *snapshot* has it, or else the device at this moment."""
        told = snapshot.body.vm_generation_counter
        return self._fence_generation() if told is None else told

    def _require_generation(self, snapshot: Snapshot) -> None:
        """Where the device was restored, and the segment does not tell yet. To time that makes no difference."""
        generation, device = snapshot.body.vm_generation_counter, self._fence_generation()
        if None not in (generation, device) and generation != device:
            raise ClockDisruptedError(
                f"the device's generation is {device}, and the segment's is {generation}: the machine was restored, "
                "and its publisher has not told yet; wait for a new commit"
            )

    def _require_continuous(self, since: _Since, continuous: bool) -> None:
        if not continuous:
            raise ClockDisruptedError(
                f"the stamp is from before this clock first saw the disruption marker {since.marker}: the counter "
                "may have been disrupted since"
            )

    def _too_long_ago(self, seconds: Fraction) -> ClockStaleError:
        return ClockStaleError(f"the stamp is {float(seconds):.0f} s old, more than {self.max_age:g} s")


def require_limit(max_error_ns: int | None) -> None:
    if max_error_ns is not None and not 0 <= operator.index(max_error_ns) < 2**64:
        raise ValueError(f"max_error_ns must be from 0 to 2**64 - 1, not {max_error_ns}")


def _within(interval: TimeInterval, max_error_ns: int | None) -> TimeInterval:
    if max_error_ns is not None and interval.error_ns > max_error_ns:
        raise ClockUnboundedError(
            f"the time is bounded to {interval.error_ns} ns, which is more than {max_error_ns}; wait_bounded() waits"
        )
    return interval
