"""Pairing this machine's counter with a clock of the kernel, and periods in the ABI's fixed point.

Everything is in integers: a float of epoch seconds resolves only 240 ns.
"""

import time
from typing import Final, NamedTuple

from vmclock_async import _core
from vmclock_async.abi import CounterId

__all__ = ("COUNTER_ID", "Pairing", "Period", "counter_ticks", "fixed_point_period", "pair")

COUNTER_ID: Final = CounterId(_core.COUNTER_ID)
"""This machine's counter, as the ABI numbers it: X86_TSC or ARM_VCNT."""

counter_ticks = _core.counter
"""The raw counter, 0 to 2**64 - 1, read in order with the loads around it."""

_TRIES: Final = 10


class Pairing(NamedTuple):
    """A counter value and the clock's reading at it."""

    counter_ticks: int
    clock_ns: int
    window_ticks: int
    """Width of the window in which the clock was read, centred on `counter_ticks`: half of it is the error."""


def pair(clock_id: int) -> Pairing:
    """The counter paired with *clock_id* (``time.CLOCK_*``): the tightest of ten tries."""
    best: Pairing | None = None
    for _ in range(_TRIES):
        before = counter_ticks()
        clock_ns = time.clock_gettime_ns(clock_id)
        after = counter_ticks()
        window = after - before
        if best is None or window < best.window_ticks:
            best = Pairing(before + window // 2, clock_ns, window)
    assert best is not None
    return best


class Period(NamedTuple):
    """Seconds a tick as the ABI has them: ``frac_sec`` in units of 2**-(64 + shift) s."""

    frac_sec: int
    shift: int


def fixed_point_period(duration_ns: int, ticks: int) -> Period:
    """The period of a counter that made *ticks* ticks in *duration_ns*, with the top bit of ``frac_sec`` set.

    At 1 GHz: shift 29, frac_sec 0x89705F4136B4A597. Rounded down to the unit.

    Raises:
        ValueError: either is not positive, or the counter is slower than 1 Hz.
    """
    if duration_ns <= 0 or ticks <= 0:
        raise ValueError(f"a period needs a positive duration and tick count, not {duration_ns} ns and {ticks}")
    denominator = ticks * 10**9
    # frac_sec / 2**(64 + shift) = duration_ns / denominator, with 2**63 <= frac_sec < 2**64.
    shift = denominator.bit_length() - duration_ns.bit_length()
    if (duration_ns << 64 + max(shift, 0)) // denominator >= 2**64:
        shift -= 1
    elif shift >= 0 and (duration_ns << 64 + shift) // denominator < 2**63:
        shift += 1
    if shift < 0:
        raise ValueError(f"{ticks} ticks in {duration_ns} ns: a period of a second or more does not fit the ABI")
    return Period((duration_ns << 64 + shift) // denominator, shift)
