"""The kernel's interface to a PTP clock: two requests of ``ioctl(2)``, and the clock id of a descriptor.

Each asks the device, which takes from a microsecond to milliseconds, so none is for the event loop. All of them need
no more than read access. Layouts and numbers: ``include/uapi/linux/ptp_clock.h``; how it behaves:
``drivers/ptp/ptp_chardev.c``; clock ids: clock_getres(2), "Dynamic clocks".

PTP_SYS_OFFSET, and PTP_SYS_OFFSET_EXTENDED with CLOCK_REALTIME, are not used. They bracket the device by a clock that
a daemon may slew or step at any moment, and to bracket it by the counter itself takes only a system call longer.
"""

import fcntl
import struct
import time
from typing import Final, NamedTuple

__all__ = (
    "CLOCK_TIME",
    "EXTENDED",
    "EXTENDED_HEADER",
    "MAX_SAMPLES",
    "PRECISE",
    "SYS_OFFSET_EXTENDED",
    "SYS_OFFSET_PRECISE",
    "Crossing",
    "clock_id_of",
    "extended",
    "precise",
)

MAX_SAMPLES: Final = 25
"""PTP_MAX_SAMPLES"""
CLOCK_TIME: Final = struct.Struct("=qII")
"""``struct ptp_clock_time``: sec, nsec, reserved. nsec always counts forward."""
EXTENDED_HEADER: Final = struct.Struct("=IiII")
"""``struct ptp_sys_offset_extended`` before its times: n_samples, clockid (reserved before Linux 6.12), rsv[2]."""
EXTENDED: Final = EXTENDED_HEADER.size + 3 * MAX_SAMPLES * CLOCK_TIME.size
"""Bytes of ``struct ptp_sys_offset_extended``."""
PRECISE: Final = 3 * CLOCK_TIME.size + 16
"""Bytes of ``struct ptp_sys_offset_precise``: device, sys_realtime, sys_monoraw, rsv[4]."""


def _iowr(number: int, size: int) -> int:
    """``_IOWR(PTP_CLK_MAGIC, number, ...)``, as ``asm-generic/ioctl.h`` makes it: x86 and Arm have no other."""
    return 3 << 30 | size << 16 | ord("=") << 8 | number


SYS_OFFSET_PRECISE: Final = _iowr(8, PRECISE)
SYS_OFFSET_EXTENDED: Final = _iowr(9, EXTENDED)


class Crossing(NamedTuple):
    """A reading of a PTP clock between two readings of CLOCK_MONOTONIC_RAW, nanoseconds each."""

    device_ns: int
    raw_before_ns: int
    raw_after_ns: int
    """The same as before where hardware or hypervisor read both clocks at one instant."""


def precise(descriptor: int) -> Crossing:
    """The PTP clock and CLOCK_MONOTONIC_RAW at one instant: PTP_SYS_OFFSET_PRECISE.

    Raises:
        OSError: EOPNOTSUPP: the clock cannot; ENODEV: nor can the kernel with the clocksource of this moment, or the
            clock is gone; EINVAL: the kernel's timekeeping had moved on meanwhile. Others are the driver's.
    """
    data = bytearray(PRECISE)
    fcntl.ioctl(descriptor, SYS_OFFSET_PRECISE, data, True)
    device_ns, _, raw_ns = _times_ns(data, 0, 3)
    return Crossing(device_ns, raw_ns, raw_ns)


def extended(descriptor: int, samples: int) -> list[Crossing]:
    """*samples* readings of the PTP clock (at most ``MAX_SAMPLES``), each between two of CLOCK_MONOTONIC_RAW.

    A driver may disregard which clock is wanted, and give CLOCK_REALTIME: see ``pairing.paired``.

    Raises:
        OSError: EINVAL: a Linux before 6.12, which knows CLOCK_REALTIME alone; EOPNOTSUPP: the clock cannot. Others
            are the driver's.
    """
    data = bytearray(EXTENDED)
    EXTENDED_HEADER.pack_into(data, 0, samples, time.CLOCK_MONOTONIC_RAW, 0, 0)
    fcntl.ioctl(descriptor, SYS_OFFSET_EXTENDED, data, True)
    times_ns = _times_ns(data, EXTENDED_HEADER.size, 3 * samples)
    before, devices, after = times_ns[::3], times_ns[1::3], times_ns[2::3]
    return [Crossing(*crossing) for crossing in zip(devices, before, after, strict=True)]


def clock_id_of(descriptor: int) -> int:
    """The clock id with which ``clock_gettime(2)`` reads the PTP clock that is open as *descriptor*."""
    return ~descriptor << 3 | 3


def _times_ns(data: bytearray, offset: int, count: int) -> list[int]:
    times = CLOCK_TIME.iter_unpack(data[offset : offset + count * CLOCK_TIME.size])
    return [seconds * 10**9 + nanoseconds for seconds, nanoseconds, _ in times]
