"""A PTP clock is read, in a worker thread, in the best way that clock and kernel allow.

1. PTP_SYS_OFFSET_PRECISE: hardware or hypervisor reads both clocks at one instant, so the time that the request takes
   is no error (ptp_kvm, ptp_vmclock, network cards with PTM).
2. PTP_SYS_OFFSET_EXTENDED against CLOCK_MONOTONIC_RAW: the driver reads that clock right before and after the device
   (Linux 6.12).
3. ``clock_gettime(2)`` on the clock's descriptor, between two readings of the counter. Every kernel and clock can do
   this, and nothing but the counter is relied on.

Every way is tried at each reading, because the refusal of one costs a microsecond and may be over at the next: the
kernel refuses the first for a moment while it keeps its time, or after another clocksource was chosen.
"""

import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from vmclock_async.timebase import Pairing
from vmclock_ptp.machine import Machine
from vmclock_ptp.pairing import paired
from vmclock_ptp.uapi import Crossing, clock_id_of

__all__ = ("Reading", "read")

_TRIES: Final = 3
"""How often a way is tried, because a thread that waits for its turn between two calls has a wide window."""

_SLOW_NS: Final = 100_000_000
"""A device whose answer took longer is not asked again at once: its time is wanted within seconds."""


class Reading(NamedTuple):
    """The counter paired with a PTP clock."""

    pairing: Pairing
    way: str
    """The kernel's name of the call with which the clock was read."""


def read(machine: Machine, descriptor: int) -> Reading:
    """Read the PTP clock that is open as *descriptor*: the tightest reading of the first way that works.

    Raises:
        OSError: no way works; the error is that of the last one.
    """
    ways: tuple[tuple[str, Callable[[int], Sequence[Crossing]]], ...] = (
        ("PTP_SYS_OFFSET_PRECISE", machine.precise),
        ("PTP_SYS_OFFSET_EXTENDED", machine.extended),
    )
    for way, cross in ways:
        if found := _crossed(machine, cross, descriptor):
            return Reading(min(found, key=lambda pairing: pairing.window_ticks), way)
    return Reading(machine.pair(clock_id_of(descriptor)), "clock_gettime")


def _crossed(machine: Machine, cross: Callable[[int], Sequence[Crossing]], descriptor: int) -> list[Pairing]:
    """Pairings made in one way; none if that way is refused."""
    found = []
    for _ in range(_TRIES):
        before = machine.pair(time.CLOCK_MONOTONIC_RAW)
        try:
            crossings = cross(descriptor)
        except OSError:  # the last way's error is the one to report
            break
        after = machine.pair(time.CLOCK_MONOTONIC_RAW)
        tightest = min(crossings, key=lambda crossing: crossing.raw_after_ns - crossing.raw_before_ns)
        if (pairing := paired(tightest, before, after)) is not None:
            found.append(pairing)
        if after.clock_ns - before.clock_ns > _SLOW_NS:
            break
    return found
