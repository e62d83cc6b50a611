"""The kernel's view of its own clock: ``adjtimex(2)``, read only, which needs no privilege.

Layout and constants: ``include/uapi/linux/timex.h``. In a ``struct timex`` offset and time are in microseconds, or
in nanoseconds with STA_NANO; frequency in ppm times 2**16; both errors in microseconds. ``tick`` is microseconds
between clock ticks of USER_HZ, a coarser frequency, which chronyd sets too.
"""

import ctypes
import os
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

__all__ = ("ClockState", "ClockStatusBits", "Timex", "adjtimex")


class ClockState(IntEnum):
    """What adjtimex(2) returns: where the kernel is with leap seconds."""

    OK = 0
    INS = 1
    """A leap second is to be inserted at the end of the day."""
    DEL = 2
    OOP = 3
    """The inserted second is in progress."""
    WAIT = 4
    """It is over, and the announcement not withdrawn yet."""
    ERROR = 5


class ClockStatusBits(IntFlag):
    """Bits of ``timex.status`` that are read here."""

    PLL = 0x0001
    """The kernel's own loop steers the clock, and `offset_ns` is what it has yet to correct."""
    INS = 0x0010
    DEL = 0x0020
    UNSYNC = 0x0040
    CLOCKERR = 0x1000
    NANO = 0x2000


class Timex(NamedTuple):
    """One reading of the kernel's clock discipline."""

    state: int
    """A ``ClockState``, or a number that it does not name."""
    status: ClockStatusBits
    offset_ns: int
    """What the kernel's own loop is still slewing; positive: to be added to the clock. Cut to whole microseconds
    without STA_NANO."""
    frequency_ppb: int
    """Correction of the clock's rate, parts in 10**9, rounded down; positive: the clock is made to run faster."""
    maxerror_ns: int
    esterror_ns: int
    tai_offset_s: int
    """TAI minus UTC, 37 since 2017; 0 where the kernel was not told."""
    realtime_ns: int
    """CLOCK_REALTIME at this reading. Around a leap second this is right at once, and CLOCK_REALTIME itself only
    from the kernel's next tick on."""

    @property
    def unsynchronized(self) -> bool:
        """Whether the kernel says that its clock follows nothing."""
        return bool(self.status & (ClockStatusBits.UNSYNC | ClockStatusBits.CLOCKERR))


class _timex(ctypes.Structure):
    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("constant", ctypes.c_long),
        ("precision", ctypes.c_long),
        ("tolerance", ctypes.c_long),
        ("time", ctypes.c_long * 2),
        ("tick", ctypes.c_long),
        ("ppsfreq", ctypes.c_long),
        ("jitter", ctypes.c_long),
        ("shift", ctypes.c_int),
        ("stabil", ctypes.c_long),
        ("jitcnt", ctypes.c_long),
        ("calcnt", ctypes.c_long),
        ("errcnt", ctypes.c_long),
        ("stbcnt", ctypes.c_long),
        ("tai", ctypes.c_int),
        ("reserved", ctypes.c_int * 11),
    )


_libc: Final = ctypes.CDLL(None, use_errno=True)
_NOMINAL_TICK_US: Final = 10**6 // os.sysconf("SC_CLK_TCK")


def adjtimex() -> Timex:
    """Read the kernel's clock discipline; does not wait.

    Raises:
        OSError: the call is refused (a seccomp filter).
    """
    timex = _timex()
    state = _libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"adjtimex: {os.strerror(number)}")
    unit_ns = 1 if timex.status & ClockStatusBits.NANO else 1000
    seconds, fraction = timex.time
    return Timex(
        state=state,
        status=ClockStatusBits(timex.status),
        offset_ns=timex.offset * unit_ns,
        frequency_ppb=(timex.freq * 1000 >> 16) + (timex.tick - _NOMINAL_TICK_US) * 10**9 // _NOMINAL_TICK_US,
        maxerror_ns=timex.maxerror * 1000,
        esterror_ns=timex.esterror * 1000,
        tai_offset_s=timex.tai,
        realtime_ns=seconds * 10**9 + fraction * unit_ns,
    )
