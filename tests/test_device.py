"""The device source: a page in a file stands in for the device, which wakes otherwise (see tests/guest)."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from kit.stand_ins import preloaded
from kit.told_world import open_descriptors
from vmclock_async import (
    BodyUpdate,
    CounterId,
    Flags,
    Publisher,
    SegmentReader,
    SegmentWriter,
    SourceUnavailableError,
    TimeType,
    VMClockBody,
)
from vmclock_async.testing import Heard, PlayedSegment, check_source
from vmclock_async.timebase import COUNTER_ID
from vmclock_device import DeviceSettings, DeviceSource


class Followed(Heard):
    """What a source says, and an event at each update."""

    def __init__(self) -> None:
        super().__init__()
        self.changed = anyio.Event()

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        self.updates.append(update)
        self.changed.set()
        self.changed = anyio.Event()


def source(path: Path, **settings: float) -> DeviceSource:
    return DeviceSource(DeviceSettings.model_validate({"path": path} | settings))


def body_of(path: Path) -> bytes:
    return path.read_bytes()[0x10:0x68]


async def relay(page: Path, segment: Path, until: Callable[[SegmentReader], bool]) -> None:
    """Publish *page* alone until *until* holds for a reader of the segment."""
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Publisher(segment, {"device": source(page)}).run)
            while not segment.exists() or segment.read_bytes()[8:10] != b"\1\0":
                await anyio.sleep(0.01)
            with SegmentReader(segment) as reader:
                while not until(reader):
                    await reader.wait_changed(reader.seq_count)
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.parametrize("folder", ["linux-device", "clockbound-writer"])
async def test_captured_pages_are_relayed_bit_for_bit(folder: str, vectors: Path, segment_path: Path) -> None:
    """Body, counter_id and time_type of every page that other programs wrote arrive as they were."""
    pages = sorted((vectors / folder).glob("*.bin"))
    assert pages
    for page in pages:
        if page.read_bytes()[8:10] != b"\1\0":
            continue  # nothing committed there
        await relay(page, segment_path, lambda _: True)
        assert body_of(segment_path) == body_of(page)
        assert segment_path.read_bytes()[10:12] == page.read_bytes()[10:12]
        segment_path.unlink()


@pytest.mark.anyio
async def test_unknown_values_are_relayed(
    tmp_path: Path, segment_path: Path, make_page: Callable[..., bytes]
) -> None:
    """Bits and enum values without a name, and NOTIFICATION_PRESENT, are the device's business, and kept."""
    body = bytearray(range(1, 89))
    body[16:18] = bytes(2)  # the ABI's padding
    body[8:16] = ((1 << 63) | (1 << 9) | (1 << 40) | 0b111).to_bytes(8, "little")
    page = tmp_path / "page"
    page.write_bytes(make_page(body=bytes(body), counter_id=77, time_type=99))
    await relay(page, segment_path, lambda _: True)
    assert body_of(segment_path) == bytes(body)
    assert segment_path.read_bytes()[10:12] == bytes([77, 99])


@pytest.mark.anyio
async def test_changes_are_followed(tmp_path: Path, segment_path: Path) -> None:
    """Each commit of a writer that wakes its readers arrives, and so does that of one that replaced the file."""
    page = tmp_path / "page"
    with SegmentWriter(page) as writer:
        writer.write(VMClockBody(disruption_marker=1))
        heard = Followed()
        device = source(page)
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(device.run, heard)
                while not heard.updates:
                    await heard.changed.wait()
                assert device.disruption_marker() == 1
                writer.write(VMClockBody(disruption_marker=2))
                assert device.disruption_marker() == 2  # known before it is told
                while heard.updates[-1].disruption_marker != 2:
                    await heard.changed.wait()
                writer.close()
                page.unlink()
                with SegmentWriter(page) as other:
                    other.write(VMClockBody(disruption_marker=3))
                    while heard.updates[-1].disruption_marker != 3:
                        await heard.changed.wait()
                tasks.cancel_scope.cancel()
    assert device.disruption_marker() is None


@pytest.mark.anyio
async def test_writer_that_wakes_nobody_is_polled(tmp_path: Path, make_page: Callable[..., bytes]) -> None:
    """As a hypervisor does, and ClockBound: a store through a mapping alone is found by time."""
    import mmap

    page = tmp_path / "page"
    page.write_bytes(make_page(body=(1).to_bytes(8, "little") + bytes(80)).ljust(4096, b"\0"))
    heard = Followed()
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source(page, poll_interval=0.02).run, heard)
            while not heard.updates:
                await heard.changed.wait()
            with page.open("r+b") as file, mmap.mmap(file.fileno(), 4096) as mapping:
                mapping[0x0C:0x18] = (4).to_bytes(4, "little") + (2).to_bytes(8, "little")
                while heard.updates[-1].disruption_marker != 2:
                    await heard.changed.wait()
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_device_that_comes_later_is_found(tmp_path: Path, segment_path: Path) -> None:
    """Nothing there: unavailable, and tried again; the publisher goes on with it once it is there."""
    page = tmp_path / "page"
    publisher = Publisher(segment_path, {"device": source(page)})
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            while publisher.statistics().sources["device"].restarts == 0:
                await anyio.sleep(0.01)
            assert "nothing is there" in (publisher.statistics().sources["device"].last_error or "")
            with SegmentWriter(page) as writer:
                writer.write(VMClockBody(disruption_marker=5))
            while publisher.statistics().commits == 0:
                await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().body.disruption_marker == 5


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content", "may_come", "message"),
    [
        (None, False, "nothing is there"),
        (b"", True, "the file is empty"),
        ({"version": 0}, True, "version is 0"),
        ({"seq_count": 3}, True, "stayed odd at 3"),
        ({"magic": 1}, False, "magic is 0x00000001, not 0x4B4C4356"),
        ({"version": 2}, False, "version is 2, and only 1 is known"),
        (b"short", False, "5 bytes are too few"),
    ],
)
async def test_what_is_no_page_says_so(
    content: bytes | dict[str, int] | None,
    may_come: bool,
    message: str,
    tmp_path: Path,
    make_page: Callable[..., bytes],
) -> None:
    """Whatever is at the path, the source is unavailable for now, and says what was seen."""
    page = tmp_path / "page"
    if content is not None:
        page.write_bytes(content if isinstance(content, bytes) else make_page(**content))
    with pytest.raises(SourceUnavailableError, match=message):
        await source(page).run(Followed())
    if may_come:
        # It is there, and perhaps in the middle of an update: to be picked, and tried again.
        assert source(page).probe() == f"{page}, not readable at this moment"
    else:
        with pytest.raises(SourceUnavailableError, match=message):
            source(page).probe()


@pytest.mark.anyio
async def test_page_that_turns_into_nonsense_ends_no_other_source(
    tmp_path: Path, segment_path: Path, make_page: Callable[..., bytes]
) -> None:
    """Beside another source: that one goes on while the page is none, and the page comes back."""
    broken, good = tmp_path / "broken", tmp_path / "good"

    def replace(path: Path, content: bytes) -> None:
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").rename(path)

    replace(broken, make_page(body=(7).to_bytes(8, "little") + bytes(80)))
    with SegmentWriter(good) as writer:
        writer.write(VMClockBody(leap_second_smearing_hint=1, tai_offset_sec=-37, flags=Flags.TAI_OFFSET_VALID))
        publisher = Publisher(segment_path, {"broken": source(broken, poll_interval=0.01), "good": source(good)})

        def told(name: str) -> int:
            return publisher.statistics().sources[name].updates

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publisher.run)
                while not (publisher.statistics().commits and told("broken") and told("good")):
                    await anyio.sleep(0.01)
                for nonsense in (b"x" * 200, make_page(version=9), b"short"):
                    replace(broken, nonsense)
                    while publisher.statistics().sources["broken"].state != "unavailable":
                        await anyio.sleep(0.01)
                    before = told("good")
                    writer.write(VMClockBody(leap_second_smearing_hint=2, tai_offset_sec=-37))
                    while told("good") == before:
                        await anyio.sleep(0.01)
                before = told("broken")
                replace(broken, make_page(body=(8).to_bytes(8, "little") + bytes(80)))
                while told("broken") == before:
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().body.disruption_marker & 2**32 - 1 == 8


@pytest.mark.anyio
@pytest.mark.skipif(Path("/dev/vmclock0").exists(), reason="this machine has a device")
async def test_missing_device_names_the_remedy() -> None:
    """The default path: which kernels have the driver, and who has to offer the device."""
    with pytest.raises(SourceUnavailableError, match=r"Linux 6\.13 and later .* hypervisor has to offer"):
        await DeviceSource(DeviceSettings()).run(Followed())


def test_forbidden_page_names_who_may_read_it(tmp_path: Path, run_script: Callable[..., str]) -> None:
    """The device's node is root's alone by default: the error says so, and gives the udev rule."""
    page = tmp_path / "page"
    with SegmentWriter(page) as writer:
        writer.write(VMClockBody())
    page.chmod(0)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o711)
    said = run_script("denied_device", page)
    assert f"may be read by user {os.getuid()} (mode 0000) alone" in said
    assert 'KERNEL=="vmclock[0-9]*", MODE="0444"' in said


def test_device_that_a_control_group_refuses_is_no_matter_of_its_mode(
    tmp_path: Path, refusing: Path, run_script: Callable[..., str]
) -> None:
    """A container that has the device's file and not the device gets EPERM: it is told to get the device."""
    page = tmp_path / "page"
    with SegmentWriter(page) as writer:
        writer.write(VMClockBody())
    environment = {**preloaded(refusing), "OPEN_ERRNO": str(errno.EPERM), "REFUSED_PATH": str(page)}
    said = run_script("denied_device", page, environment=environment)
    assert "(Operation not permitted); give the container the device itself (--device)" in said
    assert "udev" not in said


@pytest.mark.anyio
async def test_cancelling_leaves_nothing_open(tmp_path: Path) -> None:
    """Wherever it is, cancelling closes the page, the mapping and the watch."""
    page = tmp_path / "page"
    with SegmentWriter(page) as writer:
        writer.write(VMClockBody())
    before = open_descriptors()
    for checkpoints in range(12):
        heard = Followed()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source(page).run, heard)
            for _ in range(checkpoints):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
    assert not open_descriptors() - before


@pytest.mark.anyio
async def test_beside_a_time_the_marker_comes_with_the_void(tmp_path: Path, segment_path: Path) -> None:
    """publish device with a source of time: no commit has the page's new marker and an old time."""
    page = tmp_path / "page"
    command = [
        sys.executable,
        "-m",
        "vmclock_async",
        "publish",
        "device",
        "kernel",
        "--segment",
        str(segment_path),
    ]
    options = ["--set", f"device.path={page}", "--set", "kernel.assumed_error=0.01", "--json"]
    with SegmentWriter(page) as writer:
        device = VMClockBody(disruption_marker=1)
        writer.write(device, counter_id=CounterId.INVALID)
        process = await anyio.to_thread.run_sync(
            lambda: subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        )
        try:
            with anyio.fail_after(20):
                while not segment_path.exists() or segment_path.read_bytes()[0x10:0x11] != b"\1":
                    await anyio.sleep(0.02)
                writer.write(VMClockBody(disruption_marker=2))
                while segment_path.read_bytes()[0x10:0x11] != b"\2":
                    await anyio.sleep(0.02)
        finally:
            process.terminate()
            out, _ = await anyio.to_thread.run_sync(process.communicate)
    statistics = json.loads(out)
    assert statistics["groups"]["disruption"] == "device"
    assert statistics["sources"]["device"]["updates"] == 2


@pytest.mark.anyio
async def test_promises_are_kept(segment: PlayedSegment) -> None:
    """Every promise of ``Source``, on a page that a publisher keeps, and on one that is not there."""
    updates = await check_source(lambda: source(segment.path))
    assert updates == (BodyUpdate.from_body(segment.body, counter_id=COUNTER_ID, time_type=TimeType.UTC),)
    assert await check_source(lambda: source(segment.path.with_name("nothing"))) == ()
