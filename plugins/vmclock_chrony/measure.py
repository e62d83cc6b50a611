"""From one answer of chronyd to one measurement. Nothing here waits or looks at a clock.

Before the request the counter is paired with the system clock (c_b, r_b), and after it (c_a, r_a). P and R are the
period and its maximum error. Other names are those of chrony's ``tracking`` report (chronyc(1)):

    T at c_b  = r_b + offset - forgotten         chronyd's own estimate of true time; offset is true minus system
    age       = |(r_b + offset) - ref_time|
    max error = root_delay / 2 + root_dispersion
              + max(0, max_clock_error_ppm - chrony_maxclockerror_ppm) * 1e-6 * age
              + R * (c_a - c_b) + half a pairing's window + disagreement + 2 ns
              + 2**-24 * (|offset| + root_delay + root_dispersion)
              + reference_error + stated + missing
    est error = rms_offset, the max error at most
    P         = the slope of (counter, r_b + offset) over the last measurements, once there are 4; before that
                P_raw * (1 - frequency * 1e-6)
    R         = P * (max_clock_error_ppm + skew + |residual_freq|) * 1e-6 + P's own uncertainty
              + |P - P_raw * (1 - frequency * 1e-6)|

chronyd extrapolates root_delay and root_dispersion to the moment of its answer, at its own maxclockerror (1 ppm), which
is an estimate: an oscillator holds 50. The second term adds the difference, since ref_time (which chronyd fuzzes by up
to a second into the past). A ref_time that lies ahead belongs to a clock that somebody set back: it is that far from
fresh. The wire's floats have 25 bits, hence the term after that. reference_error is a setting: the possible error of
a reference clock itself, which chronyd does not know; stated is what a file of the kernel says of that (``reference``).
missing is what chronyd measured and may have forgotten, and forgotten is what it was seen to forget (``doubt``). If
missing exceeds the rest of the bound, that rest counts twice; forgotten counts only if it exceeds that rest.

rms_offset describes the last updates, corrected since: for hours after a step it is larger than any error there is.

frequency: positive means that the clock runs fast of true time. If chronyd steers the kernel's clock, RAW is
that clock; under ``chronyd -x`` it is not, and chronyd does not know the kernel's own correction. So before there
is a slope, R is widened by that correction too.

disagreement is the difference of the two pairings over the round trip: chronyd slews by up to 83,333 ppm. More
than 100,000 ppm and a microsecond of it is a step, and the measurement is dropped.

An estimate that jumps by more than the errors of both measurements starts the slope over. The last term of R is almost
nothing in steady state. While chronyd settles on a new estimate, its estimates move at a rate that no clock has.
"""

from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple, final

from vmclock_async import BodyUpdate, LeapIndicator, SourceUnavailableError
from vmclock_async.sources import Explanation, Term
from vmclock_async.timebase import (
    LARGEST_CORRECTION_PPB,
    ClockState,
    ClockStatusBits,
    Pairing,
    Rate,
    Slope,
    Timescale,
    Timex,
    ticks_between,
    timescale,
)

if TYPE_CHECKING:
    from pychrony import TrackingStatus

__all__ = ("UNKNOWN_TIMEX", "Estimator", "Exchange", "Tracking", "leap_of")

PPM: Final = Fraction(1, 10**6)
MAX_KERNEL_PPM: Final = 500
"""Largest deviation of an unslewed kernel clock from its nominal rate: MAXFREQ, ``include/linux/timex.h``."""
STEP: Final = Fraction(1, 10)
STEP_NS: Final = 1000
CUT_NS: Final = 1000
"""Without STA_NANO adjtimex cuts its time to whole microseconds."""
WIRE: Final = Fraction(1, 2**24)
ENOUGH_FOR_A_SLOPE: Final = 4

LOCAL: Final = 0x7F7F0101
"""Reference id of a clock that is its own reference (``local``): 127.127.1.1."""
MANUAL: Final = int.from_bytes(b"MANU", "big")
"""Reference id of ``manual``."""
END_NS: Final = 2**63
"""The end of the kernel's own clock, in 2262."""
STALE_INTERVALS: Final = 8
STALE_S: Final = 10
FUZZ_S: Final = 1

_LEAP_UNSYNC: Final = 3

UNKNOWN_TIMEX: Final = Timex(
    state=ClockState.ERROR,
    status=ClockStatusBits.UNSYNC,
    offset_ns=0,
    frequency_ppb=None,
    maxerror_ns=None,
    esterror_ns=None,
    tai_offset_s=0,
    realtime_ns=None,
)
"""Stands for a kernel that gives no answer: UTC, and a clock whose rate may have the largest correction."""


class Tracking(NamedTuple):
    """chronyd's ``tracking`` report, exact: nanoseconds and parts per million as fractions."""

    reference_id: int
    stratum: int
    leap: int
    ref_time_ns: Fraction
    """UTC, since 1970."""
    offset_ns: Fraction
    """True time minus the system clock."""
    last_offset_ns: Fraction
    """The last update's finding: positive if the system clock, as chronyd had corrected it, was ahead."""
    rms_offset_ns: Fraction
    frequency_ppm: Fraction
    residual_freq_ppm: Fraction
    skew_ppm: Fraction
    root_delay_ns: Fraction
    root_dispersion_ns: Fraction
    update_interval_s: Fraction
    is_of_reference_clock: bool
    """Whether chronyd follows a reference clock of this machine (``refclock``), which has no address."""
    reference_name: str
    """Name of that clock (``refid`` in chrony.conf), or an address."""

    @classmethod
    def of(cls, status: "TrackingStatus") -> "Tracking":
        """The exact form of pychrony's report, whose times are in seconds."""
        return cls(
            reference_id=status.reference_id,
            stratum=status.stratum,
            leap=status.leap_status.value,
            ref_time_ns=Fraction(status.ref_time) * 10**9,
            offset_ns=Fraction(status.offset) * 10**9,
            last_offset_ns=Fraction(status.last_offset) * 10**9,
            rms_offset_ns=Fraction(status.rms_offset) * 10**9,
            frequency_ppm=Fraction(status.frequency),
            residual_freq_ppm=Fraction(status.residual_freq),
            skew_ppm=Fraction(status.skew),
            root_delay_ns=Fraction(status.root_delay) * 10**9,
            root_dispersion_ns=Fraction(status.root_dispersion) * 10**9,
            update_interval_s=Fraction(status.update_interval),
            is_of_reference_clock=not status.reference_ip,
            reference_name=status.reference_ip or status.reference_id_name,
        )

    @property
    def has_reference(self) -> bool:
        """Whether chronyd follows another clock. With ``local`` and no server it claims to have no error."""
        return (
            self.leap != _LEAP_UNSYNC
            and self.stratum != 0
            and self.reference_id not in (LOCAL, MANUAL)
            and self.root_delay_ns + self.root_dispersion_ns != 0
        )


def leap_of(tracking: Tracking) -> LeapIndicator:
    """chronyd's announcement for the end of the month."""
    match tracking.leap:
        case 1:
            return LeapIndicator.PRE_POS
        case 2:
            return LeapIndicator.PRE_NEG
        case _:
            return LeapIndicator.NONE


class Exchange(NamedTuple):
    """One request and its answer, between two pairings with the clock that ``timex`` describes."""

    timex: Timex
    before: Pairing
    tracking: Tracking
    after: Pairing

    @property
    def timescale(self) -> Timescale:
        """The timescale of the pairings."""
        return timescale(self.timex)

    @property
    def true_ns(self) -> Fraction:
        """True time at the first pairing, by chronyd's estimate."""
        return self.before.clock_ns + self.tracking.offset_ns

    @property
    def round_trip_ticks(self) -> int:
        """Ticks between the pairings."""
        return ticks_between(self.before.counter_ticks, self.after.counter_ticks)

    @property
    def age_ns(self) -> Fraction:
        """The distance of chronyd's last measurement from now, never understated."""
        return abs(self._utc_ns(self.before) + self.tracking.offset_ns - self.tracking.ref_time_ns)

    @property
    def is_fresh(self) -> bool:
        """Whether chronyd's last measurement is as recent as usual."""
        limit_s = max(STALE_INTERVALS * self.tracking.update_interval_s, Fraction(STALE_S)) + FUZZ_S
        return self.age_ns <= limit_s * 10**9

    def is_consistent(self, later: Timex) -> bool:
        """Whether the clock stayed in one state from the first pairing until *later* was read.

        The clock must lie between the kernel's values before and after. If it does not, it was stepped, or a leap
        second is due: CLOCK_REALTIME makes that leap with the next tick, up to 10 ms late, adjtimex at once.
        """
        if self.timex.realtime_ns is None or later.realtime_ns is None:
            return self.timex.realtime_ns == later.realtime_ns
        if timescale(later) != self.timescale:
            return False
        earliest_ns, latest_ns = self._utc_ns(self.before), self._utc_ns(self.after)
        return self.timex.realtime_ns <= earliest_ns and latest_ns <= later.realtime_ns + CUT_NS

    def _utc_ns(self, pairing: Pairing) -> int:
        return pairing.clock_ns + (self.timescale.tai_offset_s or 0) * 10**9

    def disagreement_ns(self, raw: Rate) -> Fraction:
        """Difference between the movements of the system clock and of RAW between the pairings."""
        return abs(self.after.clock_ns - self.before.clock_ns - self.round_trip_ticks * raw.ns_per_tick)

    def is_stepped(self, raw: Rate) -> bool:
        """Whether the clock was stepped between the pairings."""
        return self.disagreement_ns(raw) > self.round_trip_ticks * raw.ns_per_tick * STEP + STEP_NS


@final
class Estimator:
    """Makes measurements from exchanges; remembers the last ones for the slope.

    Args:
        max_clock_error_ppm: possible error of any oscillator's rate, parts per million.
        chrony_maxclockerror_ppm: chronyd's own value for that (chrony.conf: maxclockerror).
        reference_error_ns: possible error of chronyd's own reference, nanoseconds.
    """

    def __init__(
        self, *, max_clock_error_ppm: Decimal, chrony_maxclockerror_ppm: Decimal, reference_error_ns: Fraction
    ) -> None:
        self._drift: Final = Fraction(max_clock_error_ppm) * PPM
        self._understated: Final = max(Fraction(0), self._drift - Fraction(chrony_maxclockerror_ppm) * PPM)
        self._reference_error_ns: Final = reference_error_ns
        self._slope = Slope()
        self._last: _Estimate | None = None
        self.explanation: Explanation | None = None
        """The terms of the last measurement's bound."""

    def measure(
        self,
        exchange: Exchange,
        raw: Rate,
        *,
        missing_ns: Fraction = Fraction(0),
        forgotten_ns: Fraction = Fraction(0),
        stated_ns: int | None = None,
    ) -> BodyUpdate:
        """The update that follows from *exchange*, with *raw* the counter's rate against CLOCK_MONOTONIC_RAW.

        *missing_ns* and *forgotten_ns* come from ``Doubt``, *stated_ns* from ``ReferenceFile`` if there is one.

        Raises:
            SourceUnavailableError: chronyd's answer is no time from 1970 to 2262.
        """
        tracking = exchange.tracking
        rate = self._rate(exchange, raw)
        maxerror = rate.ns_per_tick * (self._drift + (tracking.skew_ppm + abs(tracking.residual_freq_ppm)) * PPM)
        maxerror += rate.error
        terms = self._terms(exchange, raw, rate, maxerror)
        if stated_ns is not None:
            terms += (Term("stated", stated_ns, "the reference clock's error: chrony.reference_error_path"),)
        max_error_ns = _sum_ns(terms)
        true_ns = exchange.true_ns - (forgotten_ns if abs(forgotten_ns) > max_error_ns else 0)
        if not 0 <= true_ns < END_NS:
            raise SourceUnavailableError(
                "chrony",
                f"chronyd says that the system clock, {exchange.before.clock_ns} ns since 1970, is off by "
                f"{float(exchange.true_ns - exchange.before.clock_ns) / 1e9:g} s: that is no time from 1970 to 2262",
            )
        estimate = _Estimate(exchange.before.counter_ticks, true_ns, max_error_ns, rate.ns_per_tick, maxerror)
        self._remember(estimate, exchange)
        if missing_ns > max_error_ns:
            # chronyd's next estimate finds it again to within its error; the doubled error keeps its middle inside.
            terms += (Term("doubled", max_error_ns, "all of these once more, until chronyd finds what it forgot"),)
        if missing_ns:
            terms += (Term("forgotten", missing_ns, "what chronyd measured last and may have forgotten"),)
        self.explanation = Explanation(exchange.before.counter_ticks % 2**64, terms)
        return _update(exchange, estimate, _sum_ns(terms))

    def _terms(self, exchange: Exchange, raw: Rate, rate: Rate, maxerror: Fraction) -> tuple[Term, ...]:
        """The terms of the bound, without what chronyd may have forgotten."""
        tracking = exchange.tracking
        window_ticks = max(exchange.before.window_ticks, exchange.after.window_ticks)
        on_the_wire_ns = abs(tracking.offset_ns) + tracking.root_delay_ns + tracking.root_dispersion_ns
        return (
            Term(
                "root delay",
                tracking.root_delay_ns / 2,
                "half of it: the servers' answers may come by unequal ways",
            ),
            Term(
                "root dispersion", tracking.root_dispersion_ns, "chronyd's estimate of what has been added since"
            ),
            Term(
                "oscillator",
                self._understated * exchange.age_ns,
                "its drift since chronyd measured, beyond chronyd's estimate",
            ),
            Term(
                "round trip", maxerror * exchange.round_trip_ticks, "the counter's drift while chronyd was asked"
            ),
            Term("pairing", Fraction(window_ticks, 2) * rate.ns_per_tick, "half the window of counter and clock"),
            Term("slew", exchange.disagreement_ns(raw), "the clock was moved while chronyd was asked"),
            Term("rounding of time", Fraction(2), "the clock's, the counter's and the page's last digits"),
            Term("rounding by chronyd", WIRE * on_the_wire_ns, "its numbers have 25 bits"),
            Term("reference clock", self._reference_error_ns, "its own error: chrony.reference_error"),
        )

    def _rate(self, exchange: Exchange, raw: Rate) -> Rate:
        frequency_ppm = exchange.tracking.frequency_ppm
        by_frequency = raw.ns_per_tick * (1 - frequency_ppm * PPM)
        if len(self._slope) >= ENOUGH_FOR_A_SLOPE:
            try:
                slope = self._slope.rate()
            except ValueError:
                self._slope = Slope()  # the estimates went backward
            else:
                return slope._replace(error=slope.error + abs(slope.ns_per_tick - by_frequency))
        kernel_ppb = exchange.timex.frequency_ppb
        kernel_ppm = Fraction(LARGEST_CORRECTION_PPB if kernel_ppb is None else kernel_ppb, 1000)
        unknown = max(abs(kernel_ppm), abs(kernel_ppm + frequency_ppm)) * PPM
        return Rate(by_frequency, raw.error + by_frequency * unknown)

    def _remember(self, estimate: "_Estimate", exchange: Exchange) -> None:
        if self._last is not None and estimate.contradicts(self._last):
            self._slope = Slope()
        self._last = estimate
        # A slope has one timescale; TAI and UTC run at one rate, and a run changes between them only once.
        self._slope.add(exchange.before._replace(clock_ns=round(estimate.true_ns)))


class _Estimate(NamedTuple):
    counter_ticks: int
    true_ns: Fraction
    max_error_ns: Fraction
    """Without what may be missing, because no clock has the slope across the moment at which that comes back."""
    ns_per_tick: Fraction
    maxerror: Fraction

    def contradicts(self, earlier: "_Estimate") -> bool:
        """Whether *earlier*, carried forward, is farther away than both errors reach."""
        ticks = ticks_between(earlier.counter_ticks, self.counter_ticks)
        away = abs(self.true_ns - earlier.true_ns - ticks * earlier.ns_per_tick)
        return away > self.max_error_ns + earlier.max_error_ns + ticks * earlier.maxerror


def _sum_ns(terms: Iterable[Term]) -> Fraction:
    """The sum of *terms*, exact."""
    return sum((Fraction(term.ns) for term in terms), Fraction(0))


def _update(exchange: Exchange, estimate: _Estimate, max_error_ns: Fraction) -> BodyUpdate:
    offset_s = exchange.timescale.tai_offset_s
    return BodyUpdate.measured(
        counter_ticks=exchange.before.counter_ticks % 2**64,
        utc_ns=estimate.true_ns + (offset_s or 0) * 10**9,
        error_ns=max_error_ns,
        # R may be more than its field holds: chronyd's skew is 1,000,000 ppm until it has a second measurement.
        rate=Rate(estimate.ns_per_tick, estimate.maxerror),
        drift=0,  # it is in R
        est_error_ns=min(exchange.tracking.rms_offset_ns, max_error_ns),
        tai_offset_sec=offset_s,
        leap_indicator=leap_of(exchange.tracking),
    )
