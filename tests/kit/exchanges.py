"""Answers of a chronyd without any error, to which a test adds one; the counter makes 2 GHz."""

from decimal import Decimal
from fractions import Fraction
from typing import Any

from vmclock_async.timebase import ClockState, ClockStatusBits, Pairing, Rate, Timex
from vmclock_chrony.measure import UNKNOWN_TIMEX, Estimator, Exchange, Tracking

NS = 10**9
PPM = Fraction(1, 10**6)
NOW_NS = 1_790_000_000 * NS
TICK_NS = Fraction(1, 2)
RAW = Rate(TICK_NS, Fraction(0))
"""A counter of 2 GHz, known exactly."""


def tracking(**changes: Any) -> Tracking:
    """A report without any error, of a reference just now."""
    values: dict[str, Any] = dict.fromkeys(Tracking._fields, Fraction(0))
    values |= {"reference_id": 0x7F000001, "stratum": 2, "leap": 0, "ref_time_ns": Fraction(NOW_NS)}
    values |= {"is_of_reference_clock": False, "reference_name": "127.0.0.1"}
    return Tracking(**{**values, **changes})


def timex(**changes: Any) -> Timex:
    """A kernel that leaves its clock's rate alone, in UTC."""
    values = UNKNOWN_TIMEX._replace(state=ClockState.OK, status=ClockStatusBits.NANO, frequency_ppb=0)
    return values._replace(**changes)


def exchange(
    *, counter: int = 0, clock_ns: int = NOW_NS, trip_ticks: int = 0, trip_ns: int | None = None,
    windows: tuple[int, int] = (0, 0), kernel: Timex | None = None, **said: Any
) -> Exchange:  # fmt: skip
    """An exchange in no time, or in *trip_ticks*, in which the clock went on by *trip_ns* (RAW's, if None)."""
    passed_ns = trip_ticks // 2 if trip_ns is None else trip_ns
    before = Pairing(counter % 2**64, clock_ns, windows[0])
    after = Pairing((counter + trip_ticks) % 2**64, clock_ns + passed_ns, windows[1])
    said.setdefault("ref_time_ns", Fraction(clock_ns))
    return Exchange(kernel or timex(), before, tracking(**said), after)


def estimator(drift_ppm: str = "50", chrony_ppm: str = "1", reference_error_ns: int = 0) -> Estimator:
    return Estimator(
        max_clock_error_ppm=Decimal(drift_ppm),
        chrony_maxclockerror_ppm=Decimal(chrony_ppm),
        reference_error_ns=Fraction(reference_error_ns),
    )
