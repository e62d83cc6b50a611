"""The fence: no time from before a disruption that the device has seen."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.forks import Started
from kit.mounts import in_own_mounts
from kit.programs import path_of
from kit.readings import readings
from kit.told_world import (
    World,
    device_page,
    open_descriptors,
)
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockError,
    SegmentError,
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentReader,
    SegmentUnstableError,
    _core,
)

RunScript = Callable[..., str]


StartScript = Callable[..., Started]


# The fence.


def test_fence_is_what_one_asks_for(world: World) -> None:
    """A path: that; None: none; "auto": none where there is no device. `fenced` says whether there is one."""
    with Clock(world.path, fence=world.device) as clock:
        assert clock.fenced
        readings(clock)
    with Clock(world.path, fence=None) as clock:
        assert not clock.fenced
    if not os.path.exists("/dev/vmclock0"):
        with Clock(world.path) as clock:
            assert not clock.fenced


PASSED_OVER = (
    "vmclock_async.clock WARNING /dev/vmclock0: {}; passed over: the clock of {} has no fence\nFalse told"
)


@pytest.mark.parametrize(
    ("device", "verdict"),
    [
        (device_page(1), "True told"),
        (device_page(2), "True refused"),
        (b"garbage", "7 bytes are too few for a header of 16"),
        (bytes(4096), "magic is 0x00000000, not 0x4B4C4356"),
        (device_page(1)[:8] + bytes(4088), "version is 0"),
        (device_page(1)[:64], "size is 4096, but the file ends after 64 bytes"),
        # No time in it, and no counter, as with QEMU and Firecracker: a marker is all that a fence needs.
        (device_page(1)[:104].ljust(4096, b"\0"), "True told"),
    ],
)
def test_machines_device_is_the_fence_where_it_can_be_read(world: World, device: bytes, verdict: str) -> None:
    """fence="auto" finds /dev/vmclock0; what is no page there costs the fence alone, and the log says why."""
    world.device.write_bytes(device)
    command = in_own_mounts(
        f"exec 3<{world.device}",
        "mount -t tmpfs none /dev",
        "cat <&3 >/dev/vmclock0",
        "exec 3<&-",
    )
    moved = world.path.parent.name if world.path.is_relative_to("/dev") else None
    if moved:  # /dev is another one there
        segment = Path("/tmp") / moved
        shutil.copyfile(world.path, segment)
    else:
        segment = world.path
    try:
        output = subprocess.check_output([*command, path_of("clock_with_device"), str(segment)], text=True)
    finally:
        if moved:
            segment.unlink()
    if verdict.startswith("True"):
        assert output == verdict + "\n"
    else:
        assert re.fullmatch(PASSED_OVER.format(f"{verdict}.*", re.escape(str(segment))), output.rstrip("\n"))


def test_fence_that_cannot_be_read_is_an_error(world: World, tmp_path: Path) -> None:
    """A path that was asked for is not left out quietly; nothing stays open."""
    before = open_descriptors()
    with pytest.raises(
        SegmentNotInitializedError, match=r"nothing is there that could be the fence; .* leave it out"
    ):
        Clock(world.path, fence=tmp_path / "none")
    (tmp_path / "garbage").write_bytes(b"x" * 4096)
    with pytest.raises(SegmentMalformedError, match="garbage"):
        Clock(world.path, fence=tmp_path / "garbage")
    assert not open_descriptors() - before


def test_no_reading_once_the_device_tells_of_a_disruption(world: World, fenced: Clock) -> None:
    """With the publisher stopped, now() gives no interval again until the segment has the device's marker."""
    for marker in (2, 3, 2**32 - 1):
        readings(fenced)
        stamp = _core.counter()
        fenced.at(stamp)
        world.device_says(marker)
        for _ in range(20):
            with pytest.raises(
                ClockDisruptedError, match=f"marker is {marker}, .* its publisher has not published"
            ):
                fenced.now()
            with pytest.raises(
                ClockDisruptedError, match=f"marker is {marker}, .* its publisher has not published"
            ):
                fenced.at(stamp)
            with pytest.raises(
                ClockDisruptedError, match=f"marker is {marker}, .* its publisher has not published"
            ):
                fenced.now(max_error_ns=10**9)
            world.tell()  # a commit that has not seen it yet
        with pytest.raises(ClockDisruptedError):
            _ = fenced.incarnation
        world.marker = marker
        world.tell()
        readings(fenced)


def test_segment_ahead_of_the_device_is_as_bad(world: World, fenced: Clock) -> None:
    """Any difference of the low 32 bits will do; the publisher's own disruptions are above those."""
    for marker, told in ((2, False), (1 + 2**32, True), (1 + 7 * 2**32, True), (2 + 2**32, False), (1, True)):
        world.marker = marker
        world.tell()
        if told:
            readings(fenced)
        else:
            with pytest.raises(ClockDisruptedError, match="the device's disruption marker is 1"):
                fenced.now()


def test_stopped_publisher_cannot_make_a_reading_pass_the_fence(
    segment_path: Path, start_script: StartScript
) -> None:
    """A process that publishes is stopped (SIGSTOP) and the machine migrated: no reading until it goes on."""
    device = segment_path.with_name("vmclock0")
    device.write_bytes(device_page(1))
    here = {"PYTHONPATH": str(Path(__file__).parent)}
    publisher = start_script("follow_device", segment_path, device, environment=here, own_interpreter=True)
    assert publisher.stdout is not None
    assert publisher.stdout.readline() == "ready\n"
    for marker in range(2, 6):
        with until_told(Clock, segment_path, device) as clock:
            publisher.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, publisher.pid, os.WSTOPPED)
            with device.open("r+b", buffering=0) as file:
                os.pwrite(file.fileno(), marker.to_bytes(8, "little"), 0x10)
            for _ in range(200):
                # Stopped wherever it was, between two commits or in one.
                with pytest.raises((ClockDisruptedError, SegmentUnstableError)):
                    clock.now()
            publisher.send_signal(signal.SIGCONT)
            give_up = time.monotonic() + 10
            while time.monotonic() < give_up:
                try:
                    clock.now()
                    break
                except (ClockDisruptedError, SegmentUnstableError):
                    continue
            assert clock.snapshot().body.disruption_marker == marker


def until_told(clock_type: type[Clock], segment: Path, device: Path) -> Clock:
    """A clock of *segment*, once it has given a reading."""
    give_up = time.monotonic() + 10
    while True:
        try:
            clock = clock_type(segment, fence=device)
            clock.now()
            return clock
        except (ClockError, SegmentError):
            assert time.monotonic() < give_up


def test_no_reading_is_older_than_a_disruption_that_was_seen_before_it(
    world: World, start_script: StartScript
) -> None:
    """Beside a publisher at full speed: whoever has seen the device's new marker gets no reading of the old body."""
    world.writer.close()
    told = refused = 0
    with (
        Clock(world.path, fence=world.device) as clock,
        SegmentReader(world.device) as device,
        SegmentReader(world.path) as page,
    ):
        here = {"PYTHONPATH": str(Path(__file__).parent)}
        process = start_script("disrupt", world.path, world.device, environment=here)
        while told < 10_000 or refused < 100:
            seen = device.disruption_marker
            try:
                clock.now()
            except (ClockDisruptedError, SegmentUnstableError):
                refused += 1
                continue
            # The segment had caught up with what was seen before the reading, or there would have been none.
            assert page.disruption_marker >= seen
            told += 1
        assert process.poll() is None
