"""From answers to intervals. Nothing here waits or looks at a clock.

Before a request the counter is read (c1), and after its answer (c4). The server received the request at t2 and sent
the answer at t3, by its own clock, and both happened between the two readings:

    c         = (c1 + c4) / 2                               the counter value that the time belongs to
    T at c    = (t2 + t3) / 2
    max error = root delay / 2 + root dispersion + precision            what the server states of itself, in that packet
              + ((c4 - c1) * (P + R) - (t3 - t2)) / 2                   the round trip: all of it may be on one way
              + 1.5 * 2**-16 s + 2 ticks + 1 ns                         roundings
    T at now  = T + (now - c) * P
    max error = max error + (now - c) * R                   the drift since

What a server states of itself is believed; from three servers up a majority has to agree. The statements count 2**-16
s, and a server may have cut them: one unit of the dispersion, and half a unit of half the delay. Two ticks are one of
the counter's own last tick at each end and the middle's rounding; a nanosecond is more than the timestamps' last digit.

The time in which the server held the packet is taken off the round trip. If that leaves less than nothing, and not by
the precision and the last digits alone, the server's clock does not go as time does, and the answer is refused.

P and R are the counter's period and its maximum error, by one of two ways: the one with the smaller R.

    nominal:   P = that of CLOCK_MONOTONIC_RAW              R = its uncertainty + 500 ppm
    measured:  P = (T_b - T_a) / (c_b - c_a)                R = (error_a + error_b) / (c_b - c_a) + 50 ppm

RAW is the oscillator at the rate that the kernel takes for its nominal one, and no oscillator that a kernel can steer
is farther off than 500 ppm (MAXFREQ, ``include/linux/timex.h``). The measured period is the mean of the last hour at
most (``Baseline.LENGTH`` measurements), exact to the errors at both its ends. By how much an oscillator may depart from
such a mean, with temperature and age, is the 50 ppm that ClockBound takes for its whole error.
"""

import math
from collections import deque
from fractions import Fraction
from typing import Final, NamedTuple, final

from vmclock_async import TimeInterval
from vmclock_async.sources import Term
from vmclock_async.timebase import Rate, ticks_between
from vmclock_ntp.exchange import Exchange

__all__ = ("Baseline", "Moment", "Sample", "counter_rate", "interval_text")

PPM: Final = Fraction(1, 10**6)
NOMINAL: Final = 500 * PPM
WANDER: Final = 50 * PPM
STATED_UNIT_NS: Final = Fraction(10**9, 2**16)


def counter_rate(raw: Rate, measured: Rate | None) -> Rate:
    """P, and R as its error, from the rate against CLOCK_MONOTONIC_RAW and the one that was *measured*, if any."""
    nominal = raw._replace(error=raw.error + raw.ns_per_tick * NOMINAL)
    if measured is None:
        return nominal
    wandering = measured._replace(error=measured.error + measured.ns_per_tick * WANDER)
    return min(wandering, nominal, key=lambda rate: rate.error)


def _digits_ns(rate: Rate) -> Fraction:
    """Two ticks of the counter and a nanosecond: what the last digits of an exchange may hide."""
    return 2 * rate.ns_per_tick + 1


def interval_text(interval: TimeInterval) -> str:
    """*interval*, for the log."""
    return f"{interval.earliest_ns} to {interval.latest_ns} ns"


class Moment(NamedTuple):
    """A counter value and an interval of UTC that contains it."""

    counter_ticks: int
    true_ns: Fraction
    error_ns: Fraction

    @classmethod
    def of(cls, interval: TimeInterval, counter_ticks: int) -> "Moment":
        """The moment at which the counter was at *counter_ticks*, and true time in *interval*."""
        earliest_ns, latest_ns = interval.earliest_ns, interval.latest_ns
        return cls(counter_ticks, Fraction(earliest_ns + latest_ns, 2), Fraction(latest_ns - earliest_ns, 2))

    def at(self, counter_ticks: int, rate: Rate) -> "Moment":
        """The same, carried forward to *counter_ticks*; *rate* is P, and R as its error."""
        ticks = ticks_between(self.counter_ticks, counter_ticks)
        return Moment(
            counter_ticks, self.true_ns + ticks * rate.ns_per_tick, self.error_ns + abs(ticks) * rate.error
        )

    def contradicts(self, other: "Moment") -> bool:
        """Whether true time cannot be in both; *other* is at the same counter value."""
        return abs(self.true_ns - other.true_ns) > self.error_ns + other.error_ns

    @property
    def text(self) -> str:
        """Its interval, for the log."""
        return interval_text(self.interval)

    @property
    def interval(self) -> TimeInterval:
        """The interval, rounded outward to nanoseconds."""
        return TimeInterval(math.floor(self.true_ns - self.error_ns), math.ceil(self.true_ns + self.error_ns))


@final
class Sample:
    """One exchange with a server, and what follows from it."""

    def __init__(self, exchange: Exchange) -> None:
        answer = exchange.answer
        self._round_trip_ticks: Final = exchange.round_trip_ticks
        self._held_ns: Final = answer.held_ns
        self._root_delay_ns: Final = answer.root_delay_ns
        self._root_dispersion_ns: Final = answer.root_dispersion_ns
        self._precision_ns: Final = answer.precision_ns
        self.leap: Final = answer.leap
        self.counter_ticks: Final = (exchange.sent_ticks + self._round_trip_ticks // 2) % 2**64
        self.true_ns: Final = (answer.receive_ns + answer.transmit_ns) / 2

    def _ways_ns(self, rate: Rate) -> Fraction:
        """The time that both ways together took at most."""
        return self._round_trip_ticks * (rate.ns_per_tick + rate.error) - self._held_ns

    def objection(self, rate: Rate) -> str | None:
        """Why this is not used, in words; None if it is."""
        ways_ns = self._ways_ns(rate)
        if ways_ns < -(self._precision_ns + _digits_ns(rate)):
            return (
                f"it says that it held the packet for {float(self._held_ns) / 1e9:g} s, "
                f"{float(-ways_ns) / 1e9:g} s longer than the round trip"
            )
        return None

    def terms(self, counter_ticks: int, rate: Rate) -> tuple[Term, ...]:
        """The terms of the error, carried forward to *counter_ticks*; *rate* is P, and R as its error."""
        return (
            Term("root delay", self._root_delay_ns / 2, "half of the server's: answers may come by unequal ways"),
            Term("root dispersion", self._root_dispersion_ns, "the server's statement of its other errors"),
            Term(
                "round trip",
                max(Fraction(0), self._ways_ns(rate)) / 2,
                "half of it, without the time that the server held the packet",
            ),
            Term("precision", self._precision_ns, "the resolution of the server's clock"),
            Term("rounding by the server", STATED_UNIT_NS * 3 / 2, "its statements count 15 us"),
            Term("counter", _digits_ns(rate), "its last tick, and the last digit of timestamps"),
            Term(
                "oscillator",
                abs(ticks_between(self.counter_ticks, counter_ticks)) * rate.error,
                "the counter's drift since the server answered",
            ),
        )

    def moment(self, counter_ticks: int, rate: Rate) -> Moment:
        """True time at *counter_ticks*."""
        ticks = ticks_between(self.counter_ticks, counter_ticks)
        error_ns = sum((Fraction(term.ns) for term in self.terms(counter_ticks, rate)), Fraction(0))
        return Moment(counter_ticks, self.true_ns + ticks * rate.ns_per_tick, error_ns)


@final
class Baseline:
    """The counter's rate, between two of the last moments: the two that leave the least open."""

    LENGTH: Final = 64
    """Number of moments that are kept: an hour's, or a quarter of an hour's with polls of 16 s."""

    def __init__(self) -> None:
        self._moments: Final[deque[Moment]] = deque()
        self._best: tuple[Moment, Rate] | None = None
        """The earlier moment of the best pair, and the rate of the two."""

    @property
    def rate(self) -> Rate | None:
        """The measured rate, and its uncertainty as its error; None before there are two moments."""
        return self._best[1] if self._best else None

    def add(self, moment: Moment, rate: Rate) -> None:
        """Add *moment*, later than all before; *rate* is P until then, and R as its error.

        One that contradicts the last begins the measurement over.
        """
        if self._moments and moment.contradicts(self._moments[-1].at(moment.counter_ticks, rate)):
            self._moments.clear()
            self._best = None
        if len(self._moments) == self.LENGTH:
            oldest = self._moments.popleft()
            if self._best and self._best[0] is oldest:
                self._best = None  # the new moment makes pairs of its own
        for earlier in self._moments:
            if (found := _rate_between(earlier, moment)) and (not self._best or found.error < self._best[1].error):
                self._best = earlier, found
        self._moments.append(moment)


def _rate_between(earlier: Moment, later: Moment) -> Rate | None:
    """The mean rate between two moments; None where they are too close together for one."""
    ticks, passed_ns = ticks_between(earlier.counter_ticks, later.counter_ticks), later.true_ns - earlier.true_ns
    if ticks <= 0 or passed_ns <= 0:
        return None
    return Rate(passed_ns / ticks, (earlier.error_ns + later.error_ns) / ticks)
