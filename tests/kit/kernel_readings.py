"""Readings of a kernel whose own loop keeps its clock in TAI, to which a test gives other values."""

from fractions import Fraction
from typing import Any

from vmclock_async.timebase import (
    ClockState,
    ClockStatusBits,
    Pairing,
    Rate,
    Timex,
)
from vmclock_kernel.measure import Reading

NS = 10**9


MS = 10**6


US = 1000


STEP = 500 * US
"""What the kernel adds to maxerror each second."""


NEW_YEAR_S = 1_798_761_600
"""2027-01-01 00:00:00 UTC: the end of a month."""
SYNCHRONIZED = ClockStatusBits.PLL | ClockStatusBits.NANO


PPM = Fraction(1, 10**6)


RAW = Rate(Fraction(1, 2), Fraction(0))
"""A counter of 2 GHz, known exactly."""


def timex(**changes: Any) -> Timex:
    """A kernel whose own loop keeps its clock in TAI."""
    values: dict[str, Any] = {
        "state": ClockState.OK,
        "status": SYNCHRONIZED,
        "offset_ns": 0,
        "frequency_ppb": 0,
        "maxerror_ns": 2001 * US,
        "esterror_ns": 300 * US,
        "tai_offset_s": 37,
        "realtime_ns": 1_790_000_000 * NS,
    }
    return Timex(**{**values, **changes})


def realtime_of(state: Timex) -> int:
    """CLOCK_REALTIME at that reading."""
    assert state.realtime_ns is not None
    return state.realtime_ns


def reading(counter: int = 1000, clock_ns: int | None = None, *, window: int = 0, **changes: Any) -> Reading:
    """A reading of that kernel, with TAI or UTC paired as the kernel has it."""
    state = timex(**changes)
    if clock_ns is None:
        clock_ns = realtime_of(state) + state.tai_offset_s * NS
    return Reading(state, Pairing(counter, clock_ns, window), state)
