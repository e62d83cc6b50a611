"""From an interval of true time to a bound on the error of CLOCK_REALTIME. Nothing here waits or looks at a clock.

    bound         = max(latest - r_least, r_most - earliest) + lag * max_drift + 2 ns + leap
    max_drift     = s / (1 - s),   s = slew + max(500 ppm, R / P)
    void_after    = as_of + min(60 s, 0.899 * the time for which the segment's time may be used)

CLOCK_REALTIME is read before and after the interval; r_least and r_most are the lesser and the greater of the two,
because it may be set meanwhile. They enclose the clock at the interval's own instant, and from the later one the
clock goes on. Its error is at most the larger distance to an end.

A client adds max_drift times the time that CLOCK_MONOTONIC_COARSE has made since as_of. Daemons slew that clock and
CLOCK_REALTIME alike. If both go wrong by the part s of true time, they make 1 - s of a second in a second in which they
are wrong by s, so the rate by that clock is s / (1 - s). slew is what daemons do: by default at most a tenth (ADJ_TICK)
and 500 ppm (ADJ_FREQUENCY), see ``LARGEST_CORRECTION_PPB``. On top comes what the oscillator itself is off: the 500 ppm
that the kernel assumes (``kernel/time/ntp.c``), or the possible error R / P of the counter's rate, if the page says
more.

as_of and a client's later reading are both of a clock that stands still between two ticks, lag apart. So the time
between them may seem shorter by a lag than it is. The two nanoseconds are a client's own: it calculates in 64-bit
floats, and cuts the result to whole nanoseconds.

leap is a second from two minutes before an announced leap second on. UTC makes it within a client's use then, and
CLOCK_REALTIME may make it earlier, later, or not at all. It is over once the interval contains both readings of UTC.
Up to there the interval has at most the later one, and a clock that does not make a positive leap is on the other side.
Two minutes are the longest use by a client's clock that goes at half the speed, the least for which there is a
max_drift.

void_after is the end of a client's use. 60 s is far less than 32,767 commits take, after which the generation is one
that a client may have seen before: such a client would keep its old copy. 0.899 is CLOCK_MONOTONIC at its slowest.
"""

import math
from fractions import Fraction
from typing import Final, NamedTuple

from vmclock_async.intervals import TimeInterval

__all__ = (
    "LONGEST_USE_NS",
    "Instant",
    "bound_ns",
    "leap_ns",
    "max_drift_ppb",
    "void_after_ns",
)

LONGEST_USE_NS: Final = 60 * 10**9
"""Longest time, in nanoseconds, for which a client may use a bound that is not written again."""
_OSCILLATOR: Final = Fraction(500, 10**6)
_SLOWEST_MONOTONIC: Final = Fraction(899, 1000)
_CLIENT_NS: Final = 2
_END_PPB: Final = 10**9
_LEAP_NS: Final = 10**9


class Instant(NamedTuple):
    """An interval of true time, and the system's clocks around it."""

    as_of_ns: int
    """CLOCK_MONOTONIC_COARSE, read first."""
    before_ns: int
    """CLOCK_REALTIME before the interval, nanoseconds since 1970."""
    interval: TimeInterval
    after_ns: int
    """CLOCK_REALTIME after the interval."""

    @property
    def window_ns(self) -> int:
        """How far the clock may be from its place at the interval's own instant."""
        return abs(self.after_ns - self.before_ns)


def bound_ns(instant: Instant, drift_ppb: int, lag_ns: int) -> int:
    """How far CLOCK_REALTIME may be off from *instant* on, by *drift_ppb* more for each second.

    Args:
        instant: the interval and the clocks.
        drift_ppb: rate by which a client lets the bound grow, parts in 10**9.
        lag_ns: longest time between two ticks of CLOCK_MONOTONIC_COARSE.
    """
    fast_ns = max(instant.before_ns, instant.after_ns) - instant.interval.earliest_ns
    slow_ns = instant.interval.latest_ns - min(instant.before_ns, instant.after_ns)
    return max(fast_ns, slow_ns) + math.ceil(Fraction(lag_ns * drift_ppb, 10**9)) + _CLIENT_NS


def leap_ns(interval: TimeInterval, month_end_ns: int | None) -> int:
    """What a leap second that is announced for *month_end_ns* adds to a bound by *interval*; None: none is announced.

    UTC makes a negative one a second before the month's end. From there on *interval* is a second longer, and from the
    month's end on it contains both readings; see ``reckoning``.
    """
    if month_end_ns is None:
        return 0
    begins_ns = month_end_ns - _LEAP_NS - 2 * LONGEST_USE_NS
    return _LEAP_NS if begins_ns <= interval.latest_ns < month_end_ns + _LEAP_NS else 0


def max_drift_ppb(slew_ppb: int, counter_off: Fraction) -> int | None:
    """The rate by which a bound on CLOCK_REALTIME has to grow, parts in 10**9, rounded up.

    None if ClockBound's segment cannot hold it.

    Args:
        slew_ppb: greatest rate by which daemons slew the clock, parts in 10**9.
        counter_off: how far the counter's rate may be off, as a part of it.
    """
    off = Fraction(slew_ppb, 10**9) + max(_OSCILLATOR, counter_off)
    if off >= 1:
        return None
    drift_ppb = math.ceil(off / (1 - off) * 10**9)
    return drift_ppb if drift_ppb < _END_PPB else None


def void_after_ns(as_of_ns: int, left_ns: int) -> int:
    """CLOCK_MONOTONIC_COARSE up to which clients may use a bound; *as_of_ns* at least.

    Args:
        as_of_ns: that clock when the bound was measured.
        left_ns: nanoseconds for which the segment's time may be used yet.
    """
    return as_of_ns + min(LONGEST_USE_NS, max(0, math.floor(left_ns * _SLOWEST_MONOTONIC)))
