"""From readings of a PTP clock to one update. Nothing here waits or looks at a clock.

    T         = the PTP clock's time, with the TAI offset where it counts in TAI
    max error = claimed + assumed + half window + 2 ns                                (the sum of ``error_terms``)
    P and R   = the tighter of these two:
                RAW's period;              R = its own uncertainty + P * 500 ppm
                the slope of the readings; R = its own uncertainty + P * 50 ppm
                                               + (claimed + assumed, at the first and at the last reading) / ticks

*claimed* is what the clock's device says of its own error, *assumed* the setting ``assumed_error``. Where neither is
known there is no bound.

P and R must hold for true time, not for the PTP clock. The clock is the host's and somebody disciplines it, by a slew
of any rate within its error. Two anchors do not depend on that slew. The kernel's nominal rate of the counter, that of
CLOCK_MONOTONIC_RAW, is off by at most 500 ppm (MAXFREQ, ``include/linux/timex.h``). And at each reading true time lay
within the error of the clock, so over a baseline its mean rate was that of the clock to within the errors at both
ends; an oscillator's own rate changes by less than 50 ppm after that. With an error of 20 us the second one is tighter
after two seconds, with 10 ms never.
"""

import math
from collections.abc import Iterable
from fractions import Fraction
from typing import Final, NamedTuple, final

from vmclock_async.abi import LeapIndicator, TimeType
from vmclock_async.models import BodyUpdate
from vmclock_async.sources import Explanation, Term
from vmclock_async.timebase import Pairing, Rate, Slope, Timex, leap_indicator, ticks_between, timescale

__all__ = ("EARLIEST_NS", "LATEST_NS", "Measurement", "Steadiness", "error_terms", "explanation", "tai_offset_s")

EARLIEST_NS: Final = 1_577_836_800 * 10**9
"""2020-01-01: a clock that nobody has set begins at 1970."""
LATEST_NS: Final = 2**63
"""2262-04-11: later times do not fit the reader's interval."""

_DAY_NS: Final = 86_400 * 10**9
_AROUND_LEAP_NS: Final = 2 * 10**9
"""The clock and the kernel, which are not set to each other, may make a leap that far apart."""

_NOMINAL: Final = Fraction(500, 10**6)
_OSCILLATOR: Final = Fraction(50, 10**6)
_FASTEST_SLEW: Final = Fraction(100_000, 10**6)
"""The kernel's own limit (ADJ_TICK by a tenth). A clock that moves faster was stepped."""


def tai_offset_s(timex: Timex | None, time_type: TimeType, setting_s: int | None) -> int | None:
    """Seconds to add to TAI for UTC: as the kernel knows them, else, for a clock in TAI, *setting_s*.

    None: nobody knows. A clock in UTC does without: its time is then published as UTC.
    """
    known_s = None if timex is None else timescale(timex).tai_offset_s
    return setting_s if known_s is None and time_type == TimeType.TAI else known_s


class Measurement(NamedTuple):
    """A reading of the clock, with what is known of its error."""

    pairing: Pairing
    """The counter, paired with the clock in its own timescale."""
    time_type: TimeType
    """The clock's timescale."""
    tai_offset_s: int | None
    """Seconds to add to TAI for UTC; known for a clock in TAI."""
    timex: Timex | None
    claimed_ns: int | None
    assumed_ns: int | None

    @property
    def utc_ns(self) -> int:
        """UTC at the pairing, nanoseconds since 1970."""
        offset_s = (self.tai_offset_s or 0) if self.time_type == TimeType.TAI else 0
        return self.pairing.clock_ns + offset_s * 10**9

    @property
    def is_at_leap(self) -> bool:
        """Whether an announced leap second may be passing at this moment.

        Kernel and clock may then be a second apart, the one before its leap and the other after it.
        """
        if self.timex is None or leap_indicator(self.timex) == LeapIndicator.NONE:
            return False
        return not _AROUND_LEAP_NS <= self.utc_ns % _DAY_NS < _DAY_NS - _AROUND_LEAP_NS

    @property
    def clock_error_ns(self) -> int | None:
        """How far the clock itself may be off; None: nobody knows."""
        if self.claimed_ns is None and self.assumed_ns is None:
            return None
        return (self.claimed_ns or 0) + (self.assumed_ns or 0)

    def update(self, rate: Rate) -> BodyUpdate:
        """The update for this, with P and R as *rate* has them."""
        terms = error_terms(self, rate)
        return BodyUpdate.measured(
            counter_ticks=self.pairing.counter_ticks,
            utc_ns=self.utc_ns,
            error_ns=None if terms is None else _sum_ns(terms),
            rate=rate,
            drift=0,  # it is in the error
            tai_offset_sec=self.tai_offset_s,
            leap_indicator=None if self.timex is None else leap_indicator(self.timex),
        )


def error_terms(measurement: Measurement, rate: Rate) -> tuple[Term, ...] | None:
    """The terms of the bound on the error of *measurement*; None if the clock's own error is unknown."""
    if measurement.clock_error_ns is None:
        return None
    longest_tick_ns = rate.ns_per_tick + rate.error
    # Two ticks: one for the rounding of the middle, one for the counter's own last tick.
    half_window_ns = math.ceil((measurement.pairing.window_ticks // 2 + 2) * longest_tick_ns)
    return (
        Term("claimed error", measurement.claimed_ns or 0, "what the clock's device says of itself"),
        Term("assumed error", measurement.assumed_ns or 0, "what you say of the clock: ptp.assumed_error"),
        Term("pairing", half_window_ns, "half the window in which counter and clock were read"),
        Term("clock", 2, "its own last nanosecond, and the rounding of time_frac_sec"),
    )


def _sum_ns(terms: Iterable[Term]) -> int:
    """The sum of *terms*, rounded up."""
    return math.ceil(sum(term.ns for term in terms))


def explanation(measurement: Measurement, rate: Rate) -> Explanation | None:
    """The terms of the bound that ``Measurement.update`` gives for *rate*; None if it gives none."""
    terms = error_terms(measurement, rate)
    return None if terms is None else Explanation(measurement.pairing.counter_ticks, terms)


@final
class Steadiness:
    """Rate of true time against the counter, from one measurement after the other."""

    def __init__(self) -> None:
        self._forget()
        self._last: Measurement | None = None
        self.stepped_ns = 0
        """How far the clock was stepped before the last measurement; 0: it was not."""

    def _forget(self) -> None:
        self._slope = Slope()
        self._measurements: list[Measurement] = []

    def rate(self, measurement: Measurement, raw: Rate) -> Rate:
        """P, and R as its error, at *measurement*, which is later than all before; *raw* is that of RAW.

        A step of the clock, or an unknown error, starts the measurement of the slope over.
        """
        self.stepped_ns = 0 if self._last is None else _stepped_ns(self._last, measurement, raw)
        self._last = measurement
        if self.stepped_ns or measurement.clock_error_ns is None:
            self._forget()
        nominal = Rate(raw.ns_per_tick, raw.error + raw.ns_per_tick * _NOMINAL)
        if measurement.clock_error_ns is None:
            return nominal
        self._slope.add(measurement.pairing)  # of its own timescale: a TAI clock goes on over a leap second
        self._measurements = [*self._measurements[1 - Slope.LENGTH :], measurement]
        by_slope = self._by_slope()
        return nominal if by_slope is None or by_slope.error > nominal.error else by_slope

    def _by_slope(self) -> Rate | None:
        first, last = self._measurements[0], self._measurements[-1]
        try:
            slope = self._slope.rate()
        except ValueError:  # the first one, or too close together for an answer
            return None
        ticks = ticks_between(first.pairing.counter_ticks, last.pairing.counter_ticks)
        ends_ns = (first.clock_error_ns or 0) + (last.clock_error_ns or 0)
        return slope._replace(error=slope.error + slope.ns_per_tick * _OSCILLATOR + Fraction(ends_ns, ticks))


def _stepped_ns(last: Measurement, measurement: Measurement, raw: Rate) -> int:
    """How far the clock was stepped between the two; 0 if it may have been slewed."""
    ticks = ticks_between(last.pairing.counter_ticks, measurement.pairing.counter_ticks)
    expected_ns = ticks * raw.ns_per_tick
    windows = measurement.pairing.window_ticks + last.pairing.window_ticks
    off_ns = measurement.pairing.clock_ns - last.pairing.clock_ns - expected_ns
    return round(off_ns) if abs(off_ns) > abs(expected_ns) * _FASTEST_SLEW + windows * raw.ns_per_tick else 0
