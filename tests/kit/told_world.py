"""A world whose true time is known: a segment that tells it, and the page of a device beside.

True time goes by the counter, exactly: so many nanoseconds a tick, measured once so that it keeps step with sleeps.
The segment's bodies are a little wrong, within the bounds they give: every interval a clock makes of them has to
contain the truth.
"""

import gc
import math
import os
import struct
import time
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final, NamedTuple

from kit.earlier_boot import age_by_a_boot
from vmclock_async import ClockStatus, Flags, SegmentWriter, TimeInterval, VMClockBody, _core
from vmclock_async.timebase import COUNTER_ID, Calibration, fixed_point_period

BOUNDED: Final = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
PERIOD_WRONG: Final = Fraction(30, 10**6)
"""By so much the bodies' period is longer than a tick takes."""
PERIOD_BOUND: Final = Fraction(50, 10**6)
REFERENCE_WRONG_NS: Final = 700
REFERENCE_BOUND_NS: Final = 1000
_SEQ_COUNT_OFFSET: Final = 12
_COUNTER_VALUE_OFFSET: Final = 0x28


class Origin(NamedTuple):
    """Where the line is that true time goes along."""

    counter: int
    ns: int
    ns_per_tick: Fraction


@cache
def origin() -> Origin:
    """Measured at the first call."""
    calibration = Calibration()
    time.sleep(0.02)
    return Origin(_core.counter(), time.time_ns(), calibration.rate().ns_per_tick)


def true_ns(counter: int) -> Fraction:
    """True time at *counter*, nanoseconds of UTC since 1970; exact."""
    line = origin()
    return line.ns + (counter - line.counter) * line.ns_per_tick


def ticks(seconds: float) -> int:
    """How many ticks *seconds* of true time are."""
    return round(seconds * 10**9 / origin().ns_per_tick)


def contains(interval: TimeInterval, moment_ns: Fraction) -> bool:
    """Whether *interval* is right about *moment_ns*."""
    return interval.earliest_ns <= moment_ns <= interval.latest_ns


def body_at(counter: int, **changes: object) -> VMClockBody:
    """A sound body with its reference at *counter*, which may be negative: before the machine's boot."""
    sec, ns = divmod(true_ns(counter) + REFERENCE_WRONG_NS, 10**9)
    tick_ns = origin().ns_per_tick * (1 + PERIOD_WRONG)
    period = fixed_point_period(tick_ns.numerator, tick_ns.denominator)
    values = {
        "flags": BOUNDED,
        "clock_status": ClockStatus.SYNCHRONIZED,
        "counter_value": counter % 2**64,
        "counter_period_shift": period.shift,
        "counter_period_frac_sec": period.frac_sec,
        "counter_period_maxerror_rate_frac_sec": math.ceil(period.frac_sec * PERIOD_BOUND),
        "time_sec": sec,
        "time_frac_sec": math.floor(ns * 2**64 / 10**9),
        "time_maxerror_nanosec": REFERENCE_BOUND_NS,
    }
    return VMClockBody.model_validate({**values, **changes})


def body_now(age_s: float = 0, changes: Mapping[str, object] = MappingProxyType({})) -> VMClockBody:
    """A sound body whose reference was *age_s* ago, but for *changes*."""
    return body_at(_core.counter() - ticks(age_s), **changes)


def grow_old(page: BinaryIO, age_s: float) -> None:
    """As when *age_s* go by without a commit: the reference in the open file of a page lies that much further back."""
    counter = int.from_bytes(os.pread(page.fileno(), 8, _COUNTER_VALUE_OFFSET), "little")
    earlier = (counter - ticks(age_s)) % 2**64
    os.pwrite(page.fileno(), earlier.to_bytes(8, "little"), _COUNTER_VALUE_OFFSET)


def device_page(marker: int) -> bytes:
    """A device's page as QEMU makes it, of 4096 bytes: it has a marker, and no time."""
    head = struct.pack("<IIHBBIQ", 0x4B4C4356, 4096, 1, 255, 0, 2, marker)
    return head.ljust(4096, b"\0")


class World:
    """The segment at *path* and its writer; `device` is a file with a device's page."""

    def __init__(self, path: Path, *, size: int = 112, marker: int = 1) -> None:
        self.path: Final = path
        self.device: Final = path.with_name("vmclock0")
        self.device.write_bytes(device_page(marker))
        self.marker = marker
        self.writer = SegmentWriter(path, size=size)
        self.tell()

    def tell(
        self, *, age_s: float = 0, counter_id: int = COUNTER_ID, time_type: int = 0, **changes: object
    ) -> int:
        """Commit a sound body, but for *changes*."""
        return self._tell(age_s, counter_id, time_type, changes)

    def _tell(self, age_s: float, counter_id: int, time_type: int, changes: dict[str, object]) -> int:
        body = body_now(age_s, {"disruption_marker": self.marker, **changes})
        return self.writer.write(body, counter_id=counter_id, time_type=time_type)

    def device_says(self, marker: int) -> None:
        """The hypervisor changes the device's page, and nobody has told the segment yet."""
        with self.device.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), struct.pack("<Q", marker), 0x10)

    def stop_in_mid_commit(self) -> None:
        """As a writer that was stopped, or killed, between its first store and its last."""
        with self.path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), struct.pack("<I", self.writer.seq_count | 1), _SEQ_COUNT_OFFSET)

    def replace(self, *, age_s: float = 0, **changes: object) -> None:
        """Another segment in another file at the path, as after the directory was cleared."""
        self.remove()
        self.writer = SegmentWriter(self.path, size=112)
        self._tell(age_s, COUNTER_ID, 0, changes)

    def restart_publisher(self) -> None:
        """As when it was stopped, or the machine booted, and it is started again."""
        self.writer.close()
        self.writer = SegmentWriter(self.path, size=112)

    def remove(self) -> None:
        """Close the writer and unlink the segment."""
        self.writer.close()
        self.path.unlink(missing_ok=True)

    def begin_afresh(self) -> None:
        """A cold start in place, and nothing committed yet."""
        self.writer.close()
        age_by_a_boot(self.path)
        self.writer = SegmentWriter(self.path, size=112)

    def close(self) -> None:
        """Close the writer."""
        self.writer.close()


def open_descriptors(but: Sequence[str] = ()) -> set[str]:
    """The numbers of this process's open descriptors, and what they lead to; without those of what is garbage.

    What another test left open may be closed between two calls: compare by what is new in the second.
    """
    gc.collect()  # an event loop of an earlier test may have been left to that
    entries = [entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    found = {f"{entry.name} {os.readlink(entry)}" for entry in entries}
    return {entry for entry in found if not entry.endswith(tuple(but))} if but else found
