"""Readings: the bounded time that a page and a counter give, now and at stamps.

A reading is made of one snapshot and a counter value that was read within it. This module has the whole rule; the
compiled core handles the plain case and leaves every other to this module. ``waiting`` waits for readings.
"""

import math
import operator
from fractions import Fraction
from typing import Final, NamedTuple, final

from vmclock_async._reading.feed import Feed
from vmclock_async.abi import device_marker, is_own_generation
from vmclock_async.errors import (
    ClockDisruptedError,
    ClockStaleError,
    ClockUnboundedError,
    CounterNotSupportedError,
)
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import (
    UNITS_PER_SECOND,
    bounds_at,
    bounds_in_range,
    elapsed,
    maxerror_rate,
    reference_month_ns,
    ticks_between,
    units,
)

__all__ = ("SYNC_LIMIT_S", "Readings", "Since", "age_ns", "require_limit")

_S: Final = 10**9
SYNC_LIMIT_S: Final = 0.0005
"""Longest time, in seconds, that a synchronous method retries a read."""
_SLOWEST_MONOTONIC: Final = Fraction(899, 1000)
_FASTEST_MONOTONIC: Final = Fraction(1101, 1000)
"""Fastest CLOCK_MONOTONIC in units of true time. The kernel lets a daemon slew it by a tenth (ADJ_TICK) and 500 ppm
(ADJ_FREQUENCY), and assumes that an oscillator is off by at most 500 ppm (kernel/time/ntp.c)."""


class Since(NamedTuple):
    """The moment at which a clock first saw a marker."""

    opened: int
    """``Snapshot.opened`` then: another file has its own markers."""
    marker: int
    counter: int
    monotonic_ns: int


@final
class Readings:
    """The readings of one feed."""

    def __init__(self, feed: Feed, *, max_age: float, max_drift_ppm: float | None) -> None:
        if not 0 < max_age < 2**33:
            raise ValueError(f"max_age must be from 0 to {2**33} s, not {max_age}")
        if max_drift_ppm is not None and not 0 < max_drift_ppm <= 10**6:
            raise ValueError(f"max_drift_ppm must be from 0 to 1,000,000, not {max_drift_ppm}")
        self.feed: Final = feed
        self.max_age: Final = max_age
        self.drift_ppb: Final = math.ceil(Fraction(max_drift_ppm or 0) * 1000)
        self._since: Since | None = None

    def at(self, counter_ticks: int, max_error_ns: int | None) -> tuple[TimeInterval, Snapshot]:
        """See ``Clock.at``; and the snapshot from which the interval was made."""
        require_limit(max_error_ns)
        counter_ticks = operator.index(counter_ticks) % 2**64
        snapshot, counter, since = self.sample_since()
        _require_continuous(since, ticks_between(since.counter, counter_ticks) >= 0)
        ago = elapsed(snapshot.body, counter_ticks, counter)
        if ago < 0:
            raise ValueError(f"the counter is at {counter}, and {counter_ticks} lies ahead of that")
        if ago > self.max_age * UNITS_PER_SECOND:
            raise self._too_long_ago(Fraction(ago, UNITS_PER_SECOND))
        at = self.interval(snapshot, counter_ticks, None, max_past_s=self.max_age)
        leap_ns = _S if at.earliest_ns < reference_month_ns(snapshot) else 0
        bounds = bounds_in_range(at.earliest_ns - leap_ns, at.latest_ns + leap_ns)
        return _within(TimeInterval(*bounds, at.status), max_error_ns), snapshot

    def at_monotonic(self, ns: int, max_error_ns: int | None) -> tuple[TimeInterval, Snapshot]:
        """See ``Clock.at_monotonic``; and the snapshot from which the interval was made."""
        require_limit(max_error_ns)
        ns = operator.index(ns)
        snapshot, _, since = self.sample_since()
        _require_continuous(since, ns >= since.monotonic_ns)
        counter, now_ns, window_ns = self.feed.pair_monotonic()
        elapsed_ns = now_ns - ns
        if elapsed_ns < 0:
            raise ValueError(f"CLOCK_MONOTONIC is at {now_ns} ns, and {ns} lies ahead of that")
        if elapsed_ns > self.max_age * 10**9:
            raise self._too_long_ago(Fraction(elapsed_ns, 10**9))
        now = self.interval(snapshot, counter, None)
        earliest_ns = now.earliest_ns - math.ceil(elapsed_ns / _SLOWEST_MONOTONIC) - window_ns
        latest_ns = now.latest_ns - math.floor(elapsed_ns / _FASTEST_MONOTONIC) + window_ns
        # Near a leap second UTC may have inserted or dropped one since, so each side is a second wider.
        near_leap = snapshot.body.leap_indicator or earliest_ns < reference_month_ns(snapshot)
        leap_ns = _S if near_leap else 0
        bounds = bounds_in_range(earliest_ns - leap_ns, latest_ns + leap_ns)
        return _within(TimeInterval(*bounds, now.status), max_error_ns), snapshot

    def sample(self, limit_s: float = SYNC_LIMIT_S) -> tuple[Snapshot, int]:
        """A snapshot and the counter read within it; its marker is noted. In a loop's thread *limit_s* must be 0."""
        snapshot, counter, _ = self.sample_since(limit_s)
        return snapshot, counter

    def sample_since(self, limit_s: float = SYNC_LIMIT_S) -> tuple[Snapshot, int, Since]:
        """The same, and the moment since which its marker is known; another thread may note another one meanwhile."""
        snapshot, counter = self.feed.sample(limit_s)
        return snapshot, counter, self.note_marker(snapshot)

    def note_marker(self, snapshot: Snapshot) -> Since:
        """The moment since which the marker of *snapshot* is known: now, if it is new."""
        since, marker = self._since, snapshot.body.disruption_marker
        if since is None or since.marker != marker or since.opened != snapshot.opened:
            self._since = since = Since(snapshot.opened, marker, *self.feed.stamps())
        return since

    def interval(
        self,
        snapshot: Snapshot,
        counter: int,
        max_error_ns: int | None,
        *,
        max_past_s: float = 1.0,
        limit_s: float = SYNC_LIMIT_S,
    ) -> TimeInterval:
        """The interval of *snapshot* at *counter*, if the fence holds. In a loop's thread *limit_s* must be 0.

        Raises:
            ClockError: there is no interval, for the reason it gives.
            SegmentUnstableError: the device's page is being written, and is needed.
        """
        self.require_fit(snapshot, limit_s)
        interval = self.reckoned(snapshot, counter, max_past_s=max_past_s)
        self.require_fence(snapshot)
        return _within(interval, max_error_ns)

    def reckoned(self, snapshot: Snapshot, counter: int, *, max_past_s: float = 1.0) -> TimeInterval:
        """The interval of *snapshot* at *counter*, by themselves alone.

        Raises:
            ClockError: there is no interval, for the reason it gives.
        """
        bounds = bounds_at(
            snapshot,
            counter,
            counter_id=self.feed.counter_id,
            max_age_s=self.max_age,
            max_past_s=max_past_s,
            max_drift_ppb=self.drift_ppb,
        )
        return TimeInterval(*bounds, snapshot.body.clock_status)

    def require_fit(self, snapshot: Snapshot, limit_s: float = SYNC_LIMIT_S) -> None:
        """Raise if the counter is unreliable, or if the page is of another boot. In a loop's thread *limit_s* is 0."""
        if reason := self.feed.unfit_because(snapshot, limit_s):
            raise CounterNotSupportedError(f"{reason}; or read the device too, where that gives the time")
        self.feed.require_this_boot()

    def asked_again_at(self, snapshot: Snapshot, counter: int) -> int | None:
        """The counter value, a quarter of a second after *counter*, up to which one check of the path suffices.

        None if the page does not give the counter's rate.
        """
        body = snapshot.body
        if not body.counter_period_frac_sec:
            return None
        quarter: int = 2 ** (62 + body.counter_period_shift) // body.counter_period_frac_sec
        return counter + quarter

    def ages_in_s(self, snapshot: Snapshot, counter: int) -> float:
        """Time, in seconds from *counter* on, until the reference of *snapshot* is older than max_age; at least 0."""
        body = snapshot.body
        left = units(self.max_age) - elapsed(body, body.counter_value, counter)
        return max(0, left) / UNITS_PER_SECOND

    def longest_tick_s(self, snapshot: Snapshot) -> Fraction:
        """Longest time, in seconds, that a tick of the counter may take."""
        body = snapshot.body
        numerator = body.counter_period_frac_sec + maxerror_rate(body, self.drift_ppb)
        return Fraction(numerator, 2 ** (64 + body.counter_period_shift))

    def require_fence(self, snapshot: Snapshot) -> None:
        self.feed.require_fence_in_place()
        marker, device = snapshot.body.disruption_marker, self.feed.fence_marker()
        if device is not None and device_marker(marker) != device_marker(device):
            raise ClockDisruptedError(
                f"the device's disruption marker is {device}, and the segment's is {marker}: the machine was "
                "disrupted, and its publisher has not published that yet; wait for a new commit"
            )

    def generation(self, snapshot: Snapshot, limit_s: float = SYNC_LIMIT_S) -> int | None:
        """The machine's generation counter: that of *snapshot* if a device gave it, else the present one of the device.

        The publisher's own counter comes last: it is drawn where the publisher sees no device's counter. In a loop's
        thread *limit_s* must be 0.

        Raises:
            SegmentUnstableError: the device's page is being written, and is needed.
        """
        told = snapshot.body.vm_generation_counter
        if told is not None and not is_own_generation(told):
            return told
        device = self.feed.fence_generation(limit_s)
        return told if device is None else device

    def sees_restores(self, snapshot: Snapshot) -> bool:
        """Whether restores are seen: by a generation counter, or as disruptions that a device reports."""
        is_from_device = self.feed.fenced or device_marker(snapshot.body.disruption_marker) != 0
        return is_from_device or snapshot.body.vm_generation_counter is not None

    def require_generation(self, snapshot: Snapshot, limit_s: float = SYNC_LIMIT_S) -> None:
        """Raise if the device was restored, and the segment does not show it yet. Time does not depend on this.

        In a loop's thread *limit_s* must be 0.

        Raises:
            SegmentUnstableError: the device's page is being written.
        """
        told = snapshot.body.vm_generation_counter
        if told is None or is_own_generation(told):
            return
        device = self.feed.fence_generation(limit_s)
        if device is not None and told != device:
            raise ClockDisruptedError(
                f"the device's generation is {device}, and the segment's is {told}: the machine was restored, "
                "and its publisher has not published that yet; wait for a new commit"
            )

    def _too_long_ago(self, seconds: Fraction) -> ClockStaleError:
        return ClockStaleError(f"the stamp is {float(seconds):.0f} s old, more than {self.max_age:g} s")


def age_ns(snapshot: Snapshot, counter: int) -> int:
    """The age of the reference of *snapshot* at *counter*, in nanoseconds, rounded down; see ``Clock.age_ns``."""
    body = snapshot.body
    return elapsed(body, body.counter_value, counter) * 10**9 // UNITS_PER_SECOND


def require_limit(max_error_ns: int | None) -> None:
    """Refuse a *max_error_ns* that is no integer, or out of range."""
    if max_error_ns is None:
        return
    if isinstance(max_error_ns, bool) or not hasattr(max_error_ns, "__index__"):
        raise TypeError(f"max_error_ns must be an integer, nanoseconds, not {max_error_ns!r}")
    if not 0 <= operator.index(max_error_ns) < 2**64:
        raise ValueError(f"max_error_ns must be from 0 to 2**64 - 1, not {max_error_ns}")


def _within(interval: TimeInterval, max_error_ns: int | None) -> TimeInterval:
    if max_error_ns is not None and interval.error_ns > max_error_ns:
        raise ClockUnboundedError(
            f"the time is bounded to {interval.error_ns} ns, which is more than {max_error_ns}; wait_bounded() waits"
        )
    return interval


def _require_continuous(since: Since, continuous: bool) -> None:
    if not continuous:
        raise ClockDisruptedError(
            f"the stamp is from before this clock first saw the disruption marker {since.marker}: the counter "
            "may have been disrupted since"
        )
