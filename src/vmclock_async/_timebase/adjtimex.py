"""The kernel's view of its own clock: ``adjtimex(2)``, read only, which needs no privilege.

Layout and constants: ``include/uapi/linux/timex.h``. In a ``struct timex`` offset and time are in microseconds, or
in nanoseconds with STA_NANO; frequency in ppm times 2**16; both errors in microseconds. ``tick`` is microseconds
between clock ticks of USER_HZ, a coarser frequency, which chronyd sets too.
"""

import ctypes
import os
from enum import IntEnum, IntFlag
from typing import Final, NamedTuple

__all__ = ("LARGEST_CORRECTION_PPB", "ClockState", "ClockStatusBits", "Timex", "adjtimex")


LARGEST_CORRECTION_PPB: Final = 100_500_000
"""Largest speed-up or slow-down of the kernel's clock: ``tick`` by a tenth (``timekeeping_validate_timex``,
kernel/time/timekeeping.c), ``freq`` by 500 ppm (``MAXFREQ``, include/linux/timex.h).

The kernel's own loop corrects in a second up to a quarter of an offset that ADJ_OFFSET gives (``ntp_offset_chunk``,
kernel/time/ntp.c). That is a tenth of a second for systemd-timesyncd, which gives 0.4 s at most, and so no more than
this. Only a program that gives ``MAXPHASE``, 0.5 s, at time constant 0 would correct 0.125 s."""
_MAX_PHASE_NS: Final = 500_000_000
"""Largest offset that the kernel's own loop takes: ``MAXPHASE``, include/linux/timex.h."""
_MAX_ERROR_US: Final = 16_000_000
"""The kernel counts neither error beyond this: ``NTP_PHASE_LIMIT``, include/linux/timex.h. From 6.11 on it also clamps
written values to the range from 0 to this."""
_MAX_FREQ: Final = 500 << 16
"""``MAXFREQ_SCALED`` in the unit of ``freq``; the kernel clamps written values to it (``process_adjtimex_modes``)."""
_MAX_TAI_OFFSET_S: Final = 100
"""TAI minus UTC is 37 since 2017, and grew by 27 in the 45 years before. The kernel accepts up to 100,000
(``MAX_TAI_OFFSET``), and the ABI's field holds 32,767."""
_END_S: Final = 2**63 // 10**9
"""The last second that the kernel's clock can show (``KTIME_MAX``), in 2262."""
_KERNEL_STATUS_BITS: Final = 0xFFFF
"""All STA_ bits that exist."""


class ClockState(IntEnum):
    """Return value of adjtimex(2): the kernel's state with respect to leap seconds."""

    OK = 0
    INS = 1
    """A leap second will be inserted at the end of the day."""
    DEL = 2
    OOP = 3
    """The inserted second is in progress."""
    WAIT = 4
    """The inserted second is over, and the announcement is not withdrawn yet."""
    ERROR = 5


class ClockStatusBits(IntFlag):
    """The bits of ``timex.status`` that are used here."""

    PLL = 0x0001
    """The kernel's own loop steers the clock, and `offset_ns` is its remaining correction."""
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
    offset_ns: int | None
    """The part that the kernel's own loop has yet to slew, up to 0.5 s; positive: to be added to the clock. Cut to
    whole microseconds without STA_NANO."""
    frequency_ppb: int | None
    """Correction of the clock's rate in parts in 10**9, rounded down; positive: it makes the clock run faster."""
    maxerror_ns: int | None
    """0 to 16 s."""
    esterror_ns: int | None
    """0 to 16 s."""
    tai_offset_s: int
    """TAI minus UTC, 37 since 2017; 0 if the kernel does not know it, or has more than 100 s."""
    realtime_ns: int | None
    """CLOCK_REALTIME at this reading. Around a leap second this is right at once, while CLOCK_REALTIME itself is right
    only from the kernel's next tick on."""
    nonsense: str = ""
    """Names and values of fields that are unknown because they are out of range, for people; empty if all fit."""

    @property
    def unsynchronized(self) -> bool:
        """Whether the kernel says that its clock follows no source."""
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
        OSError: the call is refused (by a seccomp filter).
    """
    timex = _timex()
    state = _libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"adjtimex: {os.strerror(number)}")
    return _believed(timex, state)


def _believed(timex: _timex, state: int) -> Timex:
    """The fields of *timex* that are in range."""
    nonsense: list[str] = []

    def known(is_known: bool, **fields: int) -> bool:
        if not is_known:
            nonsense.extend(f"{name} {value}" for name, value in fields.items())
        return is_known

    status = ClockStatusBits(timex.status & _KERNEL_STATUS_BITS)
    unit_ns = 1 if status & ClockStatusBits.NANO else 1000
    offset_ns = timex.offset * unit_ns
    if unit_ns == 1000 and offset_ns > _MAX_PHASE_NS:
        offset_ns -= 2**32  # older kernels cut a negative offset to 32 bits before they divide it by 1000
    seconds, fraction = timex.time
    nominal = _NOMINAL_TICK_US
    frequency_ppb = (timex.freq * 1000 >> 16) + (timex.tick - nominal) * 10**9 // nominal
    has_frequency = known(abs(timex.freq) <= _MAX_FREQ, freq=timex.freq)
    has_frequency &= known(10 * abs(timex.tick - nominal) <= nominal, tick=timex.tick)
    has_time = 0 <= seconds <= _END_S and 0 <= fraction < 10**9 // unit_ns
    return Timex(
        state=state,
        status=status,
        offset_ns=offset_ns if known(abs(offset_ns) < _MAX_PHASE_NS + 1000, offset=timex.offset) else None,
        frequency_ppb=frequency_ppb if has_frequency else None,
        maxerror_ns=timex.maxerror * 1000 if known(_is_error(timex.maxerror), maxerror=timex.maxerror) else None,
        esterror_ns=timex.esterror * 1000 if known(_is_error(timex.esterror), esterror=timex.esterror) else None,
        tai_offset_s=timex.tai if known(timex.tai <= _MAX_TAI_OFFSET_S, tai=timex.tai) else 0,
        realtime_ns=seconds * 10**9 + fraction * unit_ns
        if known(has_time, time=seconds, fraction=fraction)
        else None,
        nonsense=", ".join(nonsense),
    )


def _is_error(us: int) -> bool:
    return 0 <= us <= _MAX_ERROR_US
