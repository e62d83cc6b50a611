"""From one reading of the kernel's clock to one update. Nothing here waits or looks at a clock.

    max error = maxerror + 500 us + |offset| + half window + assumed error + 2 ns      (the sum of ``error_terms``)
    P         = the slope of (counter, clock) over the last readings;
                at the first reading: RAW's period with the kernel's correction of its clock's rate
    R         = P * 500 ppm + |P - RAW's period| + P's own uncertainty

maxerror is the daemon's value plus what the kernel has added since. The kernel adds 500 us once a second, so up to
that much is yet to be added. 500 ppm is the kernel's own limit (MAXFREQ) for an oscillator's distance from its
nominal rate. The second term of R is small while the clock runs evenly. While a daemon slews it (chronyd: by up to
8 %), the clock's rate is not that of true time: true time keeps to RAW's, within the limit.

A kernel value that is out of range is unknown, and unused: without an offset there is neither bound nor estimated
error, and without maxerror no bound except the one that ``assumed_error`` gives.

Sources: adjtimex(2), ``include/linux/timex.h``, ``kernel/time/ntp.c``.
"""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Final, NamedTuple

from vmclock_async.models import BodyUpdate
from vmclock_async.sources import Explanation, Term
from vmclock_async.timebase import (
    ClockStatusBits,
    Pairing,
    Rate,
    Timescale,
    Timex,
    leap_indicator,
    timescale,
)
from vmclock_kernel.written import STEP_NS

__all__ = (
    "CHRONYD_ASSUMED_NS",
    "Reading",
    "assumed_error_ns",
    "drift",
    "error_terms",
    "est_error_ns",
    "explanation",
    "max_error_ns",
    "time_update",
)

CHRONYD_ASSUMED_NS: Final = 10_000_000
"""Allowance, in nanoseconds, for what chronyd is still slewing, which its maxerror leaves out."""

_DRIFT: Final = Fraction(500, 10**6)


class Reading(NamedTuple):
    """The kernel's clock, paired with the counter between two readings of its discipline."""

    before: Timex
    pairing: Pairing
    after: Timex

    @property
    def timescale(self) -> Timescale:
        """The timescale that the counter is paired with."""
        return timescale(self.before)

    @property
    def utc_ns(self) -> int:
        """UTC at the pairing, nanoseconds since 1970."""
        return self.pairing.clock_ns + (self.timescale.tai_offset_s or 0) * 10**9

    @property
    def is_consistent(self) -> bool:
        """Whether all three belong to one state of the clock; if not, ask again.

        The clock must lie between the kernel's values before and after. If it does not, it was stepped, or a leap
        second is due: CLOCK_REALTIME makes that leap with the next tick, up to 10 ms late, adjtimex at once.
        """
        before, after = self.before, self.after
        if (before.state, before.status, before.tai_offset_s) != (after.state, after.status, after.tai_offset_s):
            return False
        if before.realtime_ns is None or after.realtime_ns is None:
            return False
        return (
            before.realtime_ns <= self.utc_ns <= after.realtime_ns + 1000
        )  # realtime_ns is cut to whole microseconds


def assumed_error_ns(
    setting_ns: int | None, timex: Timex, *, may_be_zero: bool, may_be_nonsense: bool, chronyd_runs: bool
) -> int | None:
    """Addition to the bound for what maxerror leaves out; None: there is no bound to add it to.

    If the kernel's own loop does not steer the clock (STA_PLL is clear), a daemon steers it by the clock's rate, and
    nothing shows how much that daemon has yet to correct. It may be chronyd, visible or not.
    """
    if setting_ns is not None:
        return setting_ns
    if may_be_nonsense:
        return None
    if chronyd_runs:
        return CHRONYD_ASSUMED_NS
    if may_be_zero:
        return None
    return 0 if timex.status & ClockStatusBits.PLL else CHRONYD_ASSUMED_NS


def drift(rate: Rate, raw: Rate) -> Fraction:
    """R: the possible difference of true time's rate from a clock that goes by *rate*, nanoseconds a tick."""
    return raw.ns_per_tick * _DRIFT + abs(rate.ns_per_tick - raw.ns_per_tick) + rate.error


def error_terms(reading: Reading, longest_tick_ns: Fraction, assumed_ns: int) -> tuple[Term, ...] | None:
    """The terms of the bound on the error of *reading*, if a tick takes at most *longest_tick_ns*; whole nanoseconds.

    None if it is unknown how much is being slewed. If maxerror is unknown, only *assumed_ns* counts.
    """
    offset_ns = _offset_ns(reading)
    if offset_ns is None:
        return None
    maxerror_ns = max(reading.before.maxerror_ns or 0, reading.after.maxerror_ns or 0)
    half_window_ns = _half_window_ns(reading, longest_tick_ns)
    terms: tuple[Term, ...] = (
        Term("maxerror", maxerror_ns, "the daemon's value, and what the kernel has added since"),
        Term("maxerror's step", STEP_NS, "the kernel adds it once a second, so it may be missing"),
        Term("offset", offset_ns, "what the kernel is still correcting"),
        Term("pairing", half_window_ns, "half the window in which counter and clock were read"),
        Term("assumed error", assumed_ns, "what the daemon did not tell the kernel: kernel.assumed_error"),
        Term("clock", 2, "its own last nanosecond, and the rounding of time_frac_sec"),
    )
    lacking_ns = (est_error_ns(reading, longest_tick_ns) or 0) - _sum_ns(terms)
    if lacking_ns > 0:
        terms += (Term("estimated error", lacking_ns, "the daemon's estimate is larger than its bound"),)
    return terms


def max_error_ns(reading: Reading, longest_tick_ns: Fraction, assumed_ns: int) -> int | None:
    """The sum of ``error_terms``."""
    terms = error_terms(reading, longest_tick_ns, assumed_ns)
    return None if terms is None else _sum_ns(terms)


def _sum_ns(terms: Iterable[Term]) -> int:
    """The sum of *terms*, rounded up."""
    return math.ceil(sum(term.ns for term in terms))


def est_error_ns(reading: Reading, longest_tick_ns: Fraction) -> int | None:
    """The estimated error of *reading*; None if it is unknown."""
    offset_ns = _offset_ns(reading)
    if offset_ns is None or reading.after.esterror_ns is None:
        return None
    return reading.after.esterror_ns + offset_ns + _half_window_ns(reading, longest_tick_ns)


def explanation(reading: Reading, rate: Rate, raw: Rate, *, assumed_ns: int | None) -> Explanation | None:
    """The terms of the bound that ``time_update`` gives for the same arguments; None if it gives none."""
    longest_tick_ns = rate.ns_per_tick + drift(rate, raw)
    terms = None if assumed_ns is None else error_terms(reading, longest_tick_ns, assumed_ns)
    return None if terms is None else Explanation(reading.pairing.counter_ticks, terms)


def time_update(reading: Reading, rate: Rate, raw: Rate, *, assumed_ns: int | None) -> BodyUpdate:
    """The update for *reading* of a clock that goes by *rate*; without a bound if *assumed_ns* is None."""
    off = drift(rate, raw)
    longest_tick_ns = rate.ns_per_tick + off
    return BodyUpdate.measured(
        counter_ticks=reading.pairing.counter_ticks,
        utc_ns=reading.utc_ns,
        error_ns=None if assumed_ns is None else max_error_ns(reading, longest_tick_ns, assumed_ns),
        rate=rate._replace(error=off),
        drift=0,  # it is in the error
        est_error_ns=est_error_ns(reading, longest_tick_ns),
        est_error_ns_per_tick=rate.error,
        tai_offset_sec=reading.timescale.tai_offset_s,
        leap_indicator=leap_indicator(reading.after),
    )


def _offset_ns(reading: Reading) -> int | None:
    """The larger |offset|, rounded up; None if it is unknown."""
    before_ns, after_ns = reading.before.offset_ns, reading.after.offset_ns
    if before_ns is None or after_ns is None:
        return None
    cut_ns = 0 if reading.after.status & ClockStatusBits.NANO else 1000
    return max(abs(before_ns), abs(after_ns)) + cut_ns


def _half_window_ns(reading: Reading, longest_tick_ns: Fraction) -> int:
    # Two ticks: one for the rounding of the middle, one for the counter's own last tick.
    return math.ceil((reading.pairing.window_ticks // 2 + 2) * longest_tick_ns)
