"""From one reading of ClockBound's segment and the clocks to one update. Nothing here waits or looks at a clock.

    max error = bound + max_drift_ppb * 1e-9 * (m - as_of) + half window + 2 ns        (the sum of ``error_terms``)
    P         = the slope of (counter, clock) over the last readings;
                at the first reading: RAW's period with the kernel's correction of its clock's rate
    R         = P_raw * max(max_clock_error_ppm * 1e-6, max_drift_ppb * 1e-9) + |P - P_raw| + P's own uncertainty

The first two terms are those of ClockBound's own client. There m is CLOCK_MONOTONIC_COARSE; here it is CLOCK_MONOTONIC
after the pairing, which is ahead of that. as_of is CLOCK_MONOTONIC_COARSE from before ClockBound measured, so the time
between the two is at least the time for which the clock has drifted.

max_drift_ppb (ClockBound's, 1 ppm by default) is how fast a clock drifts that its daemon keeps. It cannot be R: P may
contain a slew, and a slew that cancels the daemon's own correction of the rate does not show in any rate. What holds
whatever the daemon does is the oscillator: true time keeps to RAW's rate within max_clock_error_ppm, a setting.

Sources: the documents of ClockBound's protocol, version 2; adjtimex(2).
"""

import math
from fractions import Fraction
from typing import Final, NamedTuple, final

from vmclock_async.abi import ClockStatus
from vmclock_async.clockbound import ErrorBound
from vmclock_async.models import BodyUpdate
from vmclock_async.sources import Explanation, Term
from vmclock_async.timebase import (
    Pairing,
    Rate,
    Timescale,
    Timex,
    leap_indicator,
    timescale,
)

__all__ = ("Reading", "Steps", "drift", "error_terms", "explanation", "time_update")

_PPB: Final = Fraction(1, 10**9)
_TOLERATED_STEP_NS: Final = 10_000
"""Where a sandbox computes its clocks each by itself, they differ by some microseconds."""


class Reading(NamedTuple):
    """What the segment says, and the clocks after it was read."""

    bound: ErrorBound
    before: Timex
    before_ns: int
    """CLOCK_MONOTONIC before the pairing."""
    pairing: Pairing
    after_ns: int
    """CLOCK_MONOTONIC after it."""
    after: Timex
    device_marker: int | None
    """The device's disruption marker, read last; None if it cannot be read, or is not needed."""

    @property
    def timescale(self) -> Timescale:
        """The timescale that the counter is paired with."""
        return timescale(self.before)

    @property
    def utc_ns(self) -> int:
        """UTC at the pairing by CLOCK_REALTIME, nanoseconds since 1970."""
        return self.pairing.clock_ns + (self.timescale.tai_offset_s or 0) * 10**9

    @property
    def is_consistent(self) -> bool:
        """Whether all belongs to one state of the clock; if not, ask again.

        CLOCK_REALTIME makes a leap second with the kernel's next tick, up to 10 ms later than adjtimex.
        """
        before, after = self.before, self.after
        if (before.state, before.tai_offset_s) != (after.state, after.tai_offset_s):
            return False
        if before.realtime_ns is None or after.realtime_ns is None:
            return True  # adjtimex is refused: leap seconds are unknown anyway
        # adjtimex may cut its time to whole microseconds.
        return before.realtime_ns <= self.utc_ns <= after.realtime_ns + 1000


@final
class Steps:
    """Notices that CLOCK_REALTIME was set between two readings, which ClockBound's bound does not contain at once.

    A daemon slews CLOCK_REALTIME and CLOCK_MONOTONIC alike, so the difference of the two changes only when one is set.
    """

    def __init__(self) -> None:
        self._least_ns, self._most_ns = -math.inf, math.inf

    def seen(self, reading: Reading) -> bool:
        """Whether the clock was set since the last call; no at the first."""
        least_ns, most_ns = reading.utc_ns - reading.after_ns, reading.utc_ns - reading.before_ns
        if least_ns > self._most_ns + _TOLERATED_STEP_NS or most_ns < self._least_ns - _TOLERATED_STEP_NS:
            self._least_ns, self._most_ns = least_ns, most_ns
            return True
        self._least_ns, self._most_ns = max(self._least_ns, least_ns), min(self._most_ns, most_ns)
        if self._least_ns > self._most_ns:  # within what is tolerated
            self._least_ns, self._most_ns = least_ns, most_ns
        return False


def drift(rate: Rate, raw: Rate, bound: ErrorBound, clock_error: Fraction) -> Fraction:
    """R: the possible difference of true time's rate from a clock that goes by *rate*, nanoseconds a tick.

    *clock_error* is how far the oscillator may be off, as a part of its rate.
    """
    oscillator = max(clock_error, bound.max_drift_ppb * _PPB)
    return raw.ns_per_tick * oscillator + abs(rate.ns_per_tick - raw.ns_per_tick) + rate.error


def error_terms(reading: Reading, longest_tick_ns: Fraction) -> tuple[Term, ...]:
    """The terms of the bound on the error of *reading*, if a tick takes at most *longest_tick_ns*."""
    bound = reading.bound
    grown_ns = max(0, reading.after_ns - bound.as_of_ns) * bound.max_drift_ppb * _PPB
    # Two ticks: one for the rounding of the middle, one for the counter's own last tick.
    half_window_ns = (reading.pairing.window_ticks // 2 + 2) * longest_tick_ns
    return (
        Term("bound", bound.bound_ns, "how far ClockBound says that the clock may be off"),
        Term("growth", grown_ns, "its rate of drift, for the time since it measured"),
        Term("pairing", half_window_ns, "half the window in which counter and clock were read"),
        Term("clock", 2, "its own last nanosecond, and the rounding of time_frac_sec"),
    )


def explanation(reading: Reading, rate: Rate, raw: Rate, clock_error: Fraction) -> Explanation:
    """The terms of the bound that ``time_update`` gives for the same arguments."""
    longest_tick_ns = rate.ns_per_tick + drift(rate, raw, reading.bound, clock_error)
    return Explanation(reading.pairing.counter_ticks, error_terms(reading, longest_tick_ns))


def time_update(
    reading: Reading, rate: Rate, raw: Rate, clock_error: Fraction, *, status: ClockStatus
) -> BodyUpdate:
    """The update for *reading* of a clock that goes by *rate*."""
    off = drift(rate, raw, reading.bound, clock_error)
    terms = error_terms(reading, rate.ns_per_tick + off)
    return BodyUpdate.measured(
        counter_ticks=reading.pairing.counter_ticks,
        utc_ns=reading.utc_ns,
        error_ns=sum((Fraction(term.ns) for term in terms), Fraction(0)),
        rate=rate._replace(error=off),
        drift=0,  # it is in the error
        tai_offset_sec=reading.timescale.tai_offset_s,
        leap_indicator=leap_indicator(reading.after),
        clock_status=status,
    )
