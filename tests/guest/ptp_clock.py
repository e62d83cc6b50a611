"""What is checked in the guest about the source ptp: the page tells the time, and the driver makes a PTP clock of it.

QEMU's page tells none, so the host writes one into it (``@write``), and the driver is bound to the device again,
because it looks only once whether there is a time. The processor's counter is unfit under emulation by the flags of the
processor alone: ``tsc=reliable`` among the kernel's arguments makes the kernel and the driver use it all the same.
"""

import errno
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Final

import anyio

from guest.checks import run, say, until
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    Publisher,
    SourceUnavailableError,
    TimeType,
    VMClockBody,
    open_clock,
)
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import COUNTER_ID, Calibration, Pairing, counter_ticks
from vmclock_ptp import PtpSettings, PtpSource
from vmclock_ptp.choice import OpenClock, chosen
from vmclock_ptp.machine import Machine
from vmclock_ptp.reading import read
from vmclock_ptp.remedies import failed
from vmclock_ptp.uapi import Crossing

DEVICE: Final = Path("/dev/vmclock0")
SEGMENT: Final = Path("/run/ptp/segment")
DRIVER: Final = Path("/sys/bus/platform/drivers/vmclock")
UTC_NS: Final = 1_890_000_000 * 10**9
"""What the page says: 2029, so that nothing else can have it from elsewhere."""
TAI_OFFSET_S: Final = -37
COUNTS_TAI: Final = int(platform.release().split(".")[0]) >= 7
ASSUMED_NS: Final = 1000


class Guest(Machine):
    """This guest, with a counter that is fit for the purpose; *allowed* are the ways in which clocks may be read."""

    def __init__(self, *allowed: str) -> None:
        super().__init__()
        self._allowed = allowed

    def counter_unfit_because(self) -> str | None:
        return None

    def precise(self, descriptor: int) -> list[Crossing]:
        self._check("PTP_SYS_OFFSET_PRECISE")
        return list(super().precise(descriptor))

    def extended(self, descriptor: int) -> list[Crossing]:
        self._check("PTP_SYS_OFFSET_EXTENDED")
        return list(super().extended(descriptor))

    def _check(self, way: str) -> None:
        if self._allowed and way not in self._allowed:
            raise OSError(errno.EOPNOTSUPP, "not asked")


class Page:
    """The page as the hypervisor has it, with a time."""

    def __init__(self) -> None:
        calibration = Calibration()
        time.sleep(2)
        update = BodyUpdate.measured(
            counter_ticks=counter_ticks(),
            utc_ns=UTC_NS,
            error_ns=0,
            rate=calibration.rate()._replace(error=Fraction(0)),
            drift=0,
            tai_offset_sec=TAI_OFFSET_S,
        )
        self.contents = Contents(VMClockBody(), COUNTER_ID, TimeType.TAI).updated(update)
        self._seq_count = 100
        self.write(self.contents.body)

    def write(self, body: VMClockBody) -> None:
        """Have the hypervisor write *body*, as an update that ends."""
        data = body.pack()
        self._seq_count += 2
        writes = [(0x0C, (self._seq_count - 1).to_bytes(4, "little"))]
        writes += [(0x0A, bytes([self.contents.counter_id, self.contents.time_type]))]
        writes += [(0x10 + at, data[at : at + 8]) for at in range(0, len(data), 8)]
        for offset, part in [*writes, (0x0C, self._seq_count.to_bytes(4, "little"))]:
            say(f"@write {offset:#x} {part.hex()}")
        until(lambda: seq_count() == self._seq_count)

    def utc_ns(self, counter: int) -> int:
        """UTC at *counter*, by the page."""
        found = bounds_at(self.contents, counter, counter_id=COUNTER_ID)
        return (found.earliest_ns + found.latest_ns) // 2


def seq_count() -> int:
    with DEVICE.open("rb") as file:
        return int.from_bytes(os.pread(file.fileno(), 16, 0)[12:16], "little")


def bind(what: str) -> None:
    """``bind`` the driver to the device, or ``unbind`` it."""
    (name,) = (
        link.name for link in Path("/sys/bus/platform/devices").iterdir() if link.name.startswith("AMZNC10C")
    )
    (DRIVER / what).write_text(name)


@contextmanager
def opened(machine: Machine) -> Iterator[OpenClock]:
    clock = chosen(machine, "auto", None)
    try:
        yield clock
    finally:
        machine.close(clock.descriptor)


def refusal(machine: Guest) -> str:
    """Why the source has no time, as it has to."""
    try:
        PtpSource(PtpSettings(tai_offset=TAI_OFFSET_S), machine=machine).probe()
    except SourceUnavailableError as exc:
        return str(exc)
    raise AssertionError("the source has a time")


class Checks:
    """Checks of the PTP clock over *page*."""

    def __init__(self, page: Page) -> None:
        self._page = page

    def _off_ns(self, pairing: Pairing) -> tuple[int, float]:
        """How far a reading is off the page's time, and how far its window lets it be."""
        page_ns = self._page.utc_ns(pairing.counter_ticks)
        ns_per_tick = (self._page.utc_ns(pairing.counter_ticks + 10**9) - page_ns) / 10**9
        offset_s = TAI_OFFSET_S if COUNTS_TAI else 0
        return pairing.clock_ns + offset_s * 10**9 - page_ns, (pairing.window_ticks / 2 + 2) * ns_per_tick + 2

    async def every_way(self) -> str:
        """A page with a time makes a PTP clock: however that is read, it shows the page's time, within the window"""
        said = []
        for way in ("PTP_SYS_OFFSET_PRECISE", "PTP_SYS_OFFSET_EXTENDED", "clock_gettime"):
            machine = Guest(way)
            with opened(machine) as clock:
                assert clock.clock.name == "vmclock0", clock
                assert clock.time_type == (TimeType.TAI if COUNTS_TAI else TimeType.UTC), clock
                readings = [read(machine, clock.descriptor) for _ in range(20)]
            off = [self._off_ns(reading.pairing) for reading in readings]
            for reading, (off_ns, allowed_ns) in zip(readings, off, strict=True):
                assert abs(off_ns) <= allowed_ns, (reading, off_ns, allowed_ns)
            taken = " and ".join(sorted({reading.way for reading in readings}))
            widths = sorted(allowed_ns for _, allowed_ns in off)
            said.append(f"{way}: by {taken}, +/- {widths[0]:.0f} to {widths[-1]:.0f} ns")
        return "\n     ".join(said)

    async def published(self) -> str:
        """The source ptp publishes that clock's time, and every reading contains the page's"""
        settings = PtpSettings(
            poll_interval=0.2, assumed_error=Decimal(ASSUMED_NS) / 10**9, tai_offset=TAI_OFFSET_S
        )
        widths_ns = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Publisher(SEGMENT, {"ptp": PtpSource(settings, machine=Guest())}).run)
            async with open_clock(SEGMENT, fence=None, wait=True) as clock:
                await clock.wait_status(ClockStatus.SYNCHRONIZED)
                for _ in range(100):
                    before_ns = self._page.utc_ns(counter_ticks())
                    interval = clock.now()
                    after_ns = self._page.utc_ns(counter_ticks())
                    assert before_ns <= interval.latest_ns, (before_ns, interval)
                    assert interval.earliest_ns <= after_ns, (interval, after_ns)
                    widths_ns.append(interval.error_ns)
                    await anyio.sleep(0.02)
            tasks.cancel_scope.cancel()
        widths_ns.sort()
        return f"100 readings, +/- {widths_ns[0] / 1000:.1f} to {widths_ns[-1] / 1000:.1f} us"

    async def fails(self) -> str:
        """A page whose time is unreliable, and a driver that goes away: each is one line with the remedy"""
        machine, body = Guest(), self._page.contents.body
        self._page.write(body.model_copy(update={"clock_status": ClockStatus.UNRELIABLE}))
        said = [refusal(machine)]
        self._page.write(body)
        with opened(machine) as clock:
            read(machine, clock.descriptor)
            bind("unbind")
            try:
                reading = read(machine, clock.descriptor)
            except OSError as exc:
                said.append(failed(clock.clock, exc))
            else:
                raise AssertionError(f"a clock without a driver was read: {reading}")
        said.append(refusal(machine))
        assert "(Invalid argument): " in said[0], said
        assert "(No such device): the clock is gone" in said[1], said
        assert "no PTP clock" in said[2], said
        return "\n     ".join(said)


async def main() -> int:
    """Run every check; how many failed."""
    say(f"ptp: Linux {platform.release()}")
    page = Page()
    bind("unbind")
    bind("bind")
    until(lambda: Path("/dev/ptp0").exists() and DEVICE.exists())
    checks = Checks(page)
    return await run((checks.every_way, checks.published, checks.fails))


if __name__ == "__main__":
    sys.exit(1 if anyio.run(main) else 0)
