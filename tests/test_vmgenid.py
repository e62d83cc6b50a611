"""The source vmgenid: restores that the kernel's log reports. A FIFO plays the log, and a directory sysfs."""

import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from kit.waits import settled, until
from vmclock_async import Publisher, SegmentReader, SourceUnavailableError
from vmclock_async.abi import OWN_DISRUPTION
from vmclock_async.testing import Heard, check_source
from vmclock_vmgenid import VmgenidSettings, VmgenidSource
from vmclock_vmgenid.kernel_log import KernelLog, ReseedLine
from vmclock_vmgenid.memory import Memory

RESEEDED = "random: crng reseeded due to virtual machine fork"


class Kernel:
    """A log and a sysfs, as the kernel gives them to whoever opens the log now."""

    def __init__(self, directory: Path) -> None:
        self.sysfs = directory / "sys"
        driver = self.sysfs / "bus/platform/drivers/vmgenid"
        driver.mkdir(parents=True)
        (driver / "bind").touch()
        (driver / "VMGENCTR:00").symlink_to("/")
        self.kmsg = directory / "kmsg"
        os.mkfifo(self.kmsg)
        self.fd = os.open(self.kmsg, os.O_RDWR | os.O_NONBLOCK)
        self.sequence = 300

    def say(self, message: str, *, stamp_us: int = 0) -> None:
        """Add a record to the log."""
        self.sequence += 1
        record = f"5,{self.sequence},{stamp_us or self.sequence * 1000},-;{message}\n SUBSYSTEM=random\n"
        os.write(self.fd, record.encode())

    def source(self) -> VmgenidSource:
        """A source that reads them."""
        return VmgenidSource(VmgenidSettings(kmsg=self.kmsg, sysfs=self.sysfs))


@pytest.fixture
def kernel(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel whose log is empty so far."""
    kernel = Kernel(tmp_path)
    try:
        yield kernel
    finally:
        os.close(kernel.fd)


@asynccontextmanager
async def publishing(path: Path, kernel: Kernel) -> AsyncIterator[SegmentReader]:
    """A reader of what a publisher of this source commits, once the source has announced that it sees restores."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Publisher(path, {"vmgenid": kernel.source()}).run)
        await until(path.exists)
        await until(lambda: path.read_bytes()[8:10] == b"\1\0")
        with SegmentReader(path) as reader:
            await until(lambda: reader.snapshot().body.vm_generation_counter)
            yield reader
        tasks.cancel_scope.cancel()


def restores(reader: SegmentReader) -> int:
    """Number of restores that were published."""
    return reader.snapshot().body.disruption_marker // OWN_DISRUPTION


async def restored(reader: SegmentReader, number: int) -> None:
    """Wait until *number* restores were published."""
    await until(lambda: restores(reader) == number)


@pytest.mark.long
@pytest.mark.anyio
async def test_each_line_of_the_log_is_a_restore(segment_path: Path, kernel: Kernel) -> None:
    """A new marker and a new generation for each; other lines are none."""
    async with publishing(segment_path, kernel) as reader:
        seen = {reader.snapshot().body.vm_generation_counter}
        for number in range(1, 4):
            kernel.say("usb 1-1: new device")
            kernel.say(RESEEDED)
            await restored(reader, number)
            seen.add(reader.snapshot().body.vm_generation_counter)
        kernel.say(f"a program says: {RESEEDED}")
        kernel.say("random: crng init done")
        kernel.say(RESEEDED)
        await until(lambda: restores(reader) == 4)
    assert len(seen) == 4


@pytest.mark.anyio
async def test_restore_before_the_publisher_began_is_not_missed(segment_path: Path, kernel: Kernel) -> None:
    """What the log still holds counts, once: the next publisher knows which restore was published."""
    kernel.say("Linux version 6.1")
    kernel.say(RESEEDED, stamp_us=1_827_317)
    async with publishing(segment_path, kernel) as reader:
        await until(lambda: restores(reader) == 1)
        await until(Path(f"{segment_path}.vmgenid").exists)
    kernel.sequence -= 1
    kernel.say(RESEEDED, stamp_us=1_827_317)  # each reader of the log begins with its oldest record
    async with publishing(segment_path, kernel) as reader:
        assert restores(reader) == 1
        kernel.say(RESEEDED)
        await until(lambda: restores(reader) == 2)


@pytest.mark.anyio
async def test_restore_while_no_publisher_runs_is_not_missed(segment_path: Path, kernel: Kernel) -> None:
    """The log shows the next publisher a restore that nobody published, even if it has the number of an earlier one."""
    kernel.say(RESEEDED, stamp_us=1_000_000)
    async with publishing(segment_path, kernel) as reader:
        await until(lambda: restores(reader) == 1)
        await until(Path(f"{segment_path}.vmgenid").exists)
        before = reader.snapshot().body.vm_generation_counter
    kernel.sequence -= 1
    kernel.say(RESEEDED, stamp_us=2_000_000)  # the snapshot was older than the last restore
    async with publishing(segment_path, kernel) as reader:
        await until(lambda: restores(reader) == 2)
        assert reader.snapshot().body.vm_generation_counter != before


@pytest.mark.anyio
async def test_machine_without_the_device_is_told_apart(kernel: Kernel) -> None:
    """The source is unavailable, and the message says who has to offer the device."""
    (kernel.sysfs / "bus/platform/drivers/vmgenid/VMGENCTR:00").unlink()
    with pytest.raises(SourceUnavailableError, match=r"QEMU: -device vmgenid"):
        kernel.source().probe()
    with pytest.raises(SourceUnavailableError, match=r"Linux 5\.18"):
        await kernel.source().run(Heard())


@pytest.mark.anyio
async def test_older_driver_is_found(kernel: Kernel) -> None:
    """Before Linux 6.10 the driver is one of the ACPI bus."""
    (kernel.sysfs / "bus/platform").rename(kernel.sysfs / "bus/acpi")
    assert kernel.source().probe() == f"VMGENCTR:00, read from {kernel.kmsg}"


@pytest.mark.anyio
async def test_log_that_may_not_be_read(kernel: Kernel, caplog: pytest.LogCaptureFixture) -> None:
    """Then uevents are waited for; nothing is announced, because nothing shows that any will come."""
    source = VmgenidSource(VmgenidSettings(kmsg=kernel.kmsg.with_name("none"), sysfs=kernel.sysfs))
    heard = Heard()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, heard)
        await until(lambda: "CAP_SYSLOG" in caplog.text)
        await settled()
        tasks.cancel_scope.cancel()
    assert (heard.announces_restores, heard.disruptions) == (False, [])
    (said,) = [record.getMessage() for record in caplog.records if "CAP_SYSLOG" in record.getMessage()]
    assert "No such file or directory" in said
    assert "by uevents alone" in source.probe()


@pytest.mark.anyio
async def test_log_that_ends_is_opened_again(segment_path: Path, kernel: Kernel) -> None:
    """An error of the log makes the source unavailable, and its next run reads on."""
    heard = Heard(segment_path)
    kernel.kmsg.unlink()
    kernel.kmsg.write_bytes(b"")  # it ends at once, which the kernel's log never does
    with pytest.raises(SourceUnavailableError, match="has ended"):
        await kernel.source().run(heard)


@pytest.mark.anyio
async def test_long_log_lets_others_run(kernel: Kernel) -> None:
    """Reading what is there takes a checkpoint now and then."""
    with KernelLog(kernel.kmsg) as log:
        for _ in range(500):
            kernel.say("a line")
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await anyio.lowlevel.checkpoint()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(others)
            assert await log.latest() is None
            tasks.cancel_scope.cancel()
    assert turns >= 1


@pytest.mark.anyio
async def test_lines_that_were_overwritten_are_named(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The kernel says EPIPE once where lines are gone: the log says that a restore may be missed, and reads on."""
    kernel.say(RESEEDED, stamp_us=7)
    read, gone = os.read, [BrokenPipeError()]

    def read_on(fd: int, size: int) -> bytes:
        if gone:
            raise gone.pop()
        return read(fd, size)

    with KernelLog(kernel.kmsg) as log:
        monkeypatch.setattr(os, "read", read_on)
        line = await log.latest()
    assert line is not None
    assert line.stamp_us == 7
    assert "a restore may be missed" in caplog.text


def test_memory_is_of_one_boot(tmp_path: Path) -> None:
    """It holds the last line alone, and nothing that another file says."""
    memory = Memory(str(tmp_path / "memory"))
    line = ReseedLine(4, 1_000_000)
    assert not memory.holds(line)
    memory.keep(line)
    assert memory.holds(line)
    assert not memory.holds(line._replace(stamp_us=2_000_000))
    memory.keep(line._replace(sequence=5))
    assert not memory.holds(line)
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        Memory(str(tmp_path / "nowhere/memory")).keep(line)


@pytest.mark.anyio
async def test_promises_of_a_source_are_kept(kernel: Kernel) -> None:
    """It may be cancelled at each await, leaves nothing behind, and runs again."""
    assert len(await check_source(kernel.source)) == 1
