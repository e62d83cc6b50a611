"""The clockbound source's view of the machine: all of its input, in one place."""

import time
from pathlib import Path
from typing import Final

from vmclock_async import SegmentReader
from vmclock_async.clockbound import ErrorBound, Layout, read_error_bound
from vmclock_async.errors import SegmentError
from vmclock_async.timebase import (
    ClockState,
    ClockStatusBits,
    Pairing,
    Timex,
    adjtimex,
    counter_unfit_because,
    pair,
    timescale,
)
from vmclock_clockbound.measure import Reading

__all__ = ("UNKNOWN_TIMEX", "Machine")

UNKNOWN_TIMEX: Final = Timex(
    state=ClockState.ERROR,
    status=ClockStatusBits.UNSYNC,
    offset_ns=None,
    frequency_ppb=None,
    maxerror_ns=None,
    esterror_ns=None,
    tai_offset_s=0,
    realtime_ns=None,
)
"""Stands for a kernel that gives no answer: UTC, and a clock whose rate may have the largest correction."""


class Machine:
    """This machine; a test may play another by overriding methods. ``read`` blocks for some ten microseconds."""

    def __init__(self, path: Path, layout: Layout, device: Path) -> None:
        self._path: Final = path
        self._layout: Final = layout
        self._device: Final = device

    def counter_unfit_because(self) -> str | None:
        """Why no time may be given in terms of the counter; None if it is fit."""
        return counter_unfit_because()

    def bound(self) -> ErrorBound:
        """What ClockBound's segment says now.

        Raises:
            SegmentError: it cannot be read.
        """
        return read_error_bound(self._path, layout=self._layout)

    def timex(self) -> Timex:
        """The kernel's clock discipline."""
        try:
            return adjtimex()
        except OSError:  # a seccomp filter: ClockBound gives the bound all the same
            return UNKNOWN_TIMEX

    def pair(self, clock_id: int) -> Pairing:
        """The counter paired with *clock_id*."""
        return pair(clock_id)

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def device_marker(self) -> int | None:
        """The VMClock device's disruption marker; None if it cannot be read."""
        try:
            with SegmentReader(self._device) as device:
                return device.disruption_marker
        except SegmentError:
            return None

    def read(self) -> Reading:
        """The segment and then the clocks, as ClockBound's own clients read them.

        Raises:
            SegmentError: the segment cannot be read.
        """
        bound = self.bound()
        before = self.timex()
        before_ns = self.monotonic_ns()
        pairing = self.pair(timescale(before).clock_id)
        after_ns = self.monotonic_ns()
        after = self.timex()
        marker = self.device_marker() if bound.detects_disruptions else None
        return Reading(bound, before, before_ns, pairing, after_ns, after, marker)
