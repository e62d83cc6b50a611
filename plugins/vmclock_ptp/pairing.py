"""The counter paired with a PTP clock, from a crossing of that clock with CLOCK_MONOTONIC_RAW. Nothing waits here.

The kernel does not say what the counter was at a crossing, so the counter is paired with CLOCK_MONOTONIC_RAW before
and after, and the crossing lies on the line between the two pairings. Off that line it may be, either way, by

    half the wider window of the two pairings, and a tick for the rounding of its middle
    2 ns: each of three readings of CLOCK_MONOTONIC_RAW has lost less than its last nanosecond
    500 ppm of the ticks between the pairings: nothing steers CLOCK_MONOTONIC_RAW, but where the kernel computes it
        from a clock of the hypervisor, that one may change its rate in between

An error at an end of the line weighs less in the middle, so the wider window alone bounds both. Source of the
500 ppm: MAXFREQ in ``include/linux/timex.h``, the kernel's limit for an oscillator's distance from its nominal rate.
A rate that changes from one end of that range to the other bends the line by half of what is allowed here.
"""

import math
from fractions import Fraction
from typing import Final

from vmclock_async.timebase import Pairing, ticks_between
from vmclock_ptp.uapi import Crossing

__all__ = ("paired",)

_BENT: Final = Fraction(500, 10**6)
_LOST_NS: Final = 2


def paired(crossing: Crossing, before: Pairing, after: Pairing) -> Pairing | None:
    """The counter paired with the PTP clock, from pairings with CLOCK_MONOTONIC_RAW *before* and *after*.

    None if the crossing does not lie between them: the driver gave another clock than CLOCK_MONOTONIC_RAW, or the
    counter was disturbed.
    """
    ticks = ticks_between(before.counter_ticks, after.counter_ticks)
    elapsed_ns = after.clock_ns - before.clock_ns
    if not before.clock_ns <= crossing.raw_before_ns <= crossing.raw_after_ns <= after.clock_ns:
        return None
    if ticks <= 0 or elapsed_ns <= 0:
        return None
    ticks_per_ns = Fraction(ticks, elapsed_ns)
    off_ticks = Fraction(max(before.window_ticks, after.window_ticks), 2) + 1
    off_ticks += _LOST_NS * ticks_per_ns + ticks * _BENT
    first = (crossing.raw_before_ns - before.clock_ns) * ticks_per_ns - off_ticks
    last = (crossing.raw_after_ns - before.clock_ns) * ticks_per_ns + off_ticks
    middle = before.counter_ticks + math.floor((first + last) / 2)
    return Pairing(middle % 2**64, crossing.device_ns, math.ceil(last - first))
