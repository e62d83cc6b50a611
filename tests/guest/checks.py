"""What is checked in the guest, as root, with a real ``/dev/vmclock0``; each check's docstring is what it says.

A line that begins with ``@`` asks the host for something: ``@migrate`` this machine, or ``@write OFFSET HEX`` into
the page, as a hypervisor would.
"""

import asyncio
import json
import multiprocessing
import os
import platform
import select
import selectors
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, final

import anyio

from guest.an_hour_on import HOUR_S, AnHourOn
from vmclock_async import (
    ClockStatus,
    CounterId,
    Flags,
    Publisher,
    SegmentReader,
    Snapshot,
    Source,
    TimeType,
    VMClockError,
)
from vmclock_async.timebase import counter_unfit_because
from vmclock_device import DeviceSettings, DeviceSource

DEVICE: Final = Path("/dev/vmclock0")
SEGMENT: Final = Path("/run/segment")
LIMIT_S: Final = 90.0
SEQ_COUNT, FLAGS = 0x0C, 0x18
BOUNDS: Final = (
    Flags.TIME_MAXERROR_VALID
    | Flags.TIME_ESTERROR_VALID
    | Flags.PERIOD_MAXERROR_VALID
    | Flags.PERIOD_ESTERROR_VALID
)
POLLABLE: Final = int(platform.release().split(".")[0]) >= 7
"""Whether the driver has a poll operation: since Linux 7.0."""


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def write(offset: int, value: int, size: int) -> None:
    """Have the hypervisor write *value* into the page."""
    say(f"@write {offset:#x} {value.to_bytes(size, 'little').hex()}")


def until(condition: Callable[[], object]) -> None:
    give_up = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < give_up, "it did not come about"
        time.sleep(0.01)


def error_of(call: Callable[[], object]) -> str:
    """How *call* fails, as it has to."""
    try:
        call()
    except VMClockError as exc:
        return f"{type(exc).__name__}: {exc}"
    raise AssertionError(f"{call} did not fail")


def contents(snapshot: Snapshot) -> tuple[bytes, int, int]:
    return snapshot.body.pack(), snapshot.counter_id, snapshot.time_type


@contextmanager
def publishing(**sources: Source) -> Iterator[SegmentReader]:
    """A reader of the segment that another process publishes from *sources*, once something is committed."""
    run = Publisher(SEGMENT, sources).run
    process = multiprocessing.get_context("fork").Process(target=anyio.run, args=(run,))
    process.start()
    try:
        until(lambda: not process.is_alive() or (SEGMENT.exists() and SEGMENT.read_bytes()[8:10] == b"\1\0"))
        with SegmentReader(SEGMENT) as reader:
            yield reader
        assert process.is_alive(), "the publisher has ended"
    finally:
        process.terminate()
        process.join()
        SEGMENT.unlink(missing_ok=True)


async def page_as_read() -> str:
    """The device's page is read as the driver gives it, and vmclock-async show decodes it"""
    fd = os.open(DEVICE, os.O_RDONLY)
    page = os.pread(fd, 8192, 0)
    os.close(fd)
    with SegmentReader(DEVICE) as reader:
        found = reader.snapshot()
    assert found.body.pack() == page[0x10:0x68], (found, page[:0x70].hex())
    assert len(page) == 4096, len(page)
    assert not any(page[0x70:]), "something lies behind the fields that are known"
    assert (found.size, found.version, found.seq_count % 2) == (4096, 1, 0), found
    assert (found.counter_id, found.time_type) == (CounterId.INVALID, TimeType.UTC), found
    assert (found.body.flags, found.body.clock_status) == (0, ClockStatus.UNKNOWN), found
    shown = await anyio.run_process([sys.executable, "-m", "vmclock_async", "show", "--json", str(DEVICE)])
    assert f'"disruption_marker": {found.body.disruption_marker},' in json.dumps(json.loads(shown.stdout)), shown
    return f"marker {found.body.disruption_marker}, seq_count {found.seq_count}, no time, no NOTIFICATION_PRESENT"


async def unprivileged() -> str:
    """Who may not read it is told the remedy"""
    os.seteuid(65534)
    try:
        told = error_of(lambda: SegmentReader(DEVICE))
        assert told.startswith("SegmentError"), told
        assert "udev" in told, told
        told = error_of(DeviceSource(DeviceSettings()).probe)
    finally:
        os.seteuid(0)
    assert told.startswith("SourceUnavailableError"), told
    assert 'MODE="0444"' in told, told
    return told


@final
class CountingSelector(selectors.EpollSelector):
    """Counts how often the event loop asks the kernel for what is ready: as often as it goes round."""

    rounds = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        CountingSelector.rounds += 1
        return super().select(timeout)


def counting_loop() -> asyncio.AbstractEventLoop:
    return asyncio.SelectorEventLoop(CountingSelector())


async def wait_in_vain(reader: SegmentReader) -> str:
    """Wait for a second in which nothing changes; how often the reader looked, and the event loop went round.

    A loop that spins goes round 10,000 times and more. On a busy machine a quiet one goes round less often, and
    never more often, than on an idle one.
    """
    rounds = CountingSelector.rounds
    with anyio.move_on_after(1) as waited:
        await reader.wait_changed(reader.seq_count)
    rounds = CountingSelector.rounds - rounds
    assert waited.cancelled_caught, "nothing was to change"
    looks = reader.statistics().waits
    assert looks <= 25, looks
    assert 0 < rounds <= 200, f"the event loop went round {rounds} times in a second"
    return f"{looks} looks, {rounds} rounds of the event loop in a second"


async def waits_quietly() -> str:
    """A reader that waits polls by time, says why, and does not spin"""
    fd = os.open(DEVICE, os.O_RDONLY)
    try:
        with select.epoll() as epoll:
            epoll.register(fd, select.EPOLLIN)
            kernel = f"epoll of the device gives {epoll.poll(0)[0][1]:#x}"
    except PermissionError as exc:
        kernel = f"epoll of the device fails ({exc.strerror})"
    finally:
        os.close(fd)
    assert POLLABLE == ("gives 0x10" in kernel), kernel  # EPOLLHUP
    with SegmentReader(DEVICE) as reader:
        quiet = await wait_in_vain(reader)
        found = reader.statistics()
    assert not found.watching, found
    assert "NOTIFICATION_PRESENT" in (found.polling_because or ""), found
    return f"{kernel}; {quiet}"


async def relayed() -> str:
    """The device source alone is relayed bit for bit, and a migration wakes a reader in another process"""
    woken: dict[str, float] = {}

    async def wait(name: str, reader: SegmentReader, before: Snapshot, poll_interval: float) -> None:
        after = await reader.wait_changed(before, poll_interval=poll_interval)
        woken[name] = time.monotonic()
        assert after.body.disruption_marker != before.body.disruption_marker, (name, after)

    with SegmentReader(DEVICE) as device, publishing(device=DeviceSource(DeviceSettings())) as segment:
        before, marker = segment.snapshot(), device.disruption_marker
        assert contents(before) == contents(device.snapshot()), (before, device.snapshot())
        async with anyio.create_task_group() as tasks:
            # Nothing but the publisher's commit wakes this one: by itself it would look too late to pass.
            tasks.start_soon(wait, "segment", segment, before, 2 * LIMIT_S)
            tasks.start_soon(wait, "device", device, device.snapshot(), 0.005)
            await anyio.sleep(0.3)
            say("@migrate")
        after, found = segment.snapshot(), segment.statistics()
        assert contents(after) == contents(device.snapshot()), (after, device.snapshot())
    assert found.watching, found
    assert found.waits <= 3, found
    late_ms = (woken["segment"] - woken["device"]) * 1000
    return f"marker {marker} to {after.body.disruption_marker}, woken {late_ms:.0f} ms after the page changed"


async def never_an_old_time() -> str:
    """Device and time: in three migrations no read gave a new marker with an old time, and time returned"""
    told = []
    device_source, time_source = DeviceSource(DeviceSettings()), AnHourOn(DeviceSettings())
    with SegmentReader(DEVICE) as device, publishing(device=device_source, time=time_source) as segment:
        for hours in range(3):
            seen = segment.snapshot()
            while seen.body.clock_status != ClockStatus.SYNCHRONIZED:
                seen = await segment.wait_changed(seen)
            told.append(follow_a_migration(device, segment, hours))
    return "; ".join(told)


def hours_ahead(snapshot: Snapshot) -> int:
    return round((snapshot.body.time_sec - time.time()) / HOUR_S)


def follow_a_migration(device: SegmentReader, segment: SegmentReader, hours: int) -> str:
    """Read as fast as can be, from before a migration until after time has returned."""
    old = device.disruption_marker
    reads = {"before": 0, "void": 0, "after": 0}
    page_changed = segment_changed = 0.0
    time.sleep(0.2)
    say("@migrate")
    give_up = time.monotonic() + LIMIT_S
    while reads["after"] < 100:
        assert time.monotonic() < give_up, f"time did not return: {reads}"
        if not page_changed and device.disruption_marker != old:
            page_changed = time.monotonic()
        seen = segment.snapshot()
        if seen.body.disruption_marker == old:
            assert hours_ahead(seen) == hours, f"an old marker with a new time: {seen}"
            reads["before"] += 1
        elif seen.body.clock_status == ClockStatus.UNKNOWN and not seen.body.flags & BOUNDS:
            segment_changed = segment_changed or time.monotonic()
            reads["void"] += 1
        else:
            assert hours_ahead(seen) == hours + 1, f"a new marker with an old time: {seen}"
            assert seen.body.clock_status == ClockStatus.SYNCHRONIZED, seen
            assert reads["void"], "the commit with the new marker did not void the time"
            reads["after"] += 1
    assert seen.body.disruption_marker == device.disruption_marker, (seen, device.snapshot())
    assert reads["before"], reads
    late_ms = (segment_changed - page_changed) * 1000
    return f"{reads['before']} reads before, {reads['void']} void from {late_ms:.0f} ms after the page changed on"


async def unfinished() -> str:
    """An update that the hypervisor leaves unfinished: an error for who asks, patience for who waits"""
    with SegmentReader(DEVICE) as reader:
        before = reader.snapshot()
        write(SEQ_COUNT, before.seq_count + 1, 4)
        until(lambda: reader.seq_count != before.seq_count)
        told = [error_of(reader.snapshot), error_of(lambda: SegmentReader(DEVICE))]
        assert all(line.startswith("SegmentUnstableError") for line in told), told
        with anyio.move_on_after(0.5) as waited:
            await reader.wait_changed(before)
        assert waited.cancelled_caught, "an unfinished update was taken for a change"
        write(SEQ_COUNT, before.seq_count + 2, 4)
        after = await reader.wait_changed(before)
    assert after.seq_count == before.seq_count + 2, after
    return told[1]


async def never_notified() -> str:
    """NOTIFICATION_PRESENT without a notification: a change is seen all the same, and nothing spins"""
    with SegmentReader(DEVICE) as reader:
        before = reader.snapshot()
        write(FLAGS, before.body.flags | Flags.NOTIFICATION_PRESENT, 8)
        until(lambda: reader.snapshot().body.flags & Flags.NOTIFICATION_PRESENT)
    with SegmentReader(DEVICE) as reader:
        quiet = await wait_in_vain(reader)
        write(SEQ_COUNT, before.seq_count + 2, 4)
        await reader.wait_changed(before.seq_count)
        found = reader.statistics()
    assert found.watching == POLLABLE, found
    return f"{found.polling_because or 'the descriptor is waited on'}; {quiet}"


async def run(checks: Sequence[Callable[[], Awaitable[str]]]) -> int:
    """Run each of *checks* and say its docstring and its result; how many failed."""
    failed = 0
    for check in checks:
        began = time.monotonic()
        try:
            with anyio.fail_after(LIMIT_S):
                result, details = "ok  ", [await check()]
        except Exception as exc:
            failed += 1
            result, details = "FAIL", "".join(traceback.format_exception(exc)).splitlines()
        say("\n     ".join([f"{result} {check.__doc__} ({time.monotonic() - began:.1f} s)", *details]))
    return failed


async def main() -> int:
    """Run every check; how many failed."""
    say(f"guest: Linux {platform.release()}, Python {platform.python_version()}, {os.cpu_count()} processors")
    say(f"counter: {counter_unfit_because() or 'fit'}")
    return await run(
        (page_as_read, unprivileged, waits_quietly, relayed, never_an_old_time, unfinished, never_notified)
    )


if __name__ == "__main__":
    sys.exit(1 if anyio.run(main, backend_options={"loop_factory": counting_loop}) else 0)
