"""The ptp source's view of the machine: all of its input, in one place.

Methods that take a descriptor ask a device, so they are for a worker thread. All methods may block.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from vmclock_async import SegmentReader
from vmclock_async.timebase import Calibration, Pairing, Rate, Timex, adjtimex, counter_unfit_because, pair
from vmclock_ptp import uapi

__all__ = ("Machine", "PtpClock", "Rates")

_NO_CLAIM: Final = 2**32 - 1
"""ENA_PHC_MAX_ERROR_BOUND: the device says that it does not know."""


class PtpClock(NamedTuple):
    """A PTP clock as sysfs shows it."""

    path: str
    """The device, such as ``/dev/ptp0``."""
    name: str
    """Its ``clock_name``; empty if that cannot be read."""
    sysfs: Path
    """Its directory below ``/sys/class/ptp``."""


class Rates(Protocol):
    """What gives the rate of the counter against CLOCK_MONOTONIC_RAW, as ``timebase.Calibration`` does."""

    def rate(self) -> Rate:
        """The rate since the calibration began.

        Raises:
            ValueError: the counter or the clock has not moved since.
        """
        ...


class Machine:
    """This machine; a test may play another by overriding methods, or by other directories."""

    def __init__(self, *, dev: Path = Path("/dev"), sys: Path = Path("/sys")) -> None:
        self._dev: Final = dev
        self._class: Final = sys / "class/ptp"

    def counter_unfit_because(self) -> str | None:
        """Why no time may be given in terms of the counter; None if it is fit."""
        return counter_unfit_because()

    def kernel_release(self) -> str:
        """The kernel's release, such as ``6.12.9``."""
        return os.uname().release

    def clocks(self) -> list[PtpClock]:
        """The PTP clocks that sysfs shows, by number; none where it cannot be read."""
        try:
            names = [name for name in os.listdir(self._class) if name.startswith("ptp") and name[3:].isdecimal()]
        except OSError:
            return []
        return [self._clock(str(self._dev / name), name) for name in sorted(names, key=lambda name: int(name[3:]))]

    def clock_at(self, path: str) -> PtpClock:
        """The PTP clock whose device, or a link to it, is *path*."""
        return self._clock(path, os.path.basename(os.path.realpath(path)))

    def _clock(self, path: str, name: str) -> PtpClock:
        sysfs = self._class / name
        try:
            clock_name = (sysfs / "clock_name").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            clock_name = ""
        return PtpClock(path, clock_name, sysfs)

    def claimed_error_ns(self, clock: PtpClock, file_name: str) -> int | None:
        """The bound that the device of *clock* claims in its file *file_name*, nanoseconds; None: it claims none.

        A zero is no bound, and nor is what cannot be read or is not a number of 32 bits.
        """
        try:
            text = (clock.sysfs / "device" / file_name).read_text(encoding="ascii", errors="replace").strip()
        except OSError:  # the ENA driver: EBUSY while the device does not know its bound
            return None
        claimed_ns = int(text) if text.isdecimal() and len(text) <= 10 else 0
        return claimed_ns if 0 < claimed_ns < _NO_CLAIM else None

    def page_status(self, device: str) -> int:
        """The clock_status of the page of the VMClock device called *device*.

        Raises:
            SegmentError, OSError: it cannot be read.
        """
        with SegmentReader(self._dev / device) as reader:
            return reader.snapshot().body.clock_status

    def open(self, path: str) -> int:
        """A descriptor of the PTP clock at *path*, for reading.

        Raises:
            OSError: as open(2) gives it.
        """
        # Without O_NONBLOCK a FIFO would be waited for.
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self, descriptor: int) -> None:
        """Close *descriptor*."""
        os.close(descriptor)

    def calibration(self) -> Rates:
        """A calibration of the counter that begins now."""
        return Calibration()

    def timex(self) -> Timex | None:
        """The kernel's clock discipline; None where a seccomp filter forbids to ask for it."""
        try:
            return adjtimex()
        except OSError:
            return None

    def pair(self, clock_id: int) -> Pairing:
        """The counter paired with *clock_id*, which may be that of an open PTP clock.

        Raises:
            OSError: the clock cannot be read.
        """
        return pair(clock_id)

    def precise(self, descriptor: int) -> Sequence[uapi.Crossing]:
        """As ``uapi.precise``: one crossing."""
        return [uapi.precise(descriptor)]

    def extended(self, descriptor: int) -> Sequence[uapi.Crossing]:
        """As ``uapi.extended``: a few crossings."""
        return uapi.extended(descriptor, 10)
