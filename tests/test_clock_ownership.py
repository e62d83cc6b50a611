"""Segments that others may write: a clock refuses them, a reader says whose they are."""

import json
import os
import subprocess
from pathlib import Path

import anyio
import pytest

from kit.commands import run_command
from vmclock_async import Clock, SegmentReader, SegmentWriter, open_clock
from vmclock_async.errors import SegmentError, SegmentMalformedError
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID

STRANGER = 54321
"""A user without a name, and not the one who runs the tests."""
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file to another user")
WRITABLE = r"is owned by .* \(uid \d+\), and others may write it too \(mode 0666\), .* give trust_writable=True"


@pytest.fixture
def timed(segment_path: Path) -> Path:
    """A segment that tells this machine's time."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(make_body(), counter_id=COUNTER_ID)
    return segment_path


def vmclock_async(*arguments: object) -> "subprocess.CompletedProcess[str]":
    """The command, run to its end."""
    return run_command(Path("/nowhere"), *arguments)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666, 0o622])
def test_clock_refuses_what_others_may_write(timed: Path, mode: int) -> None:
    """Unless it is told to trust them; a reader reads it all the same, because it only says what is there."""
    timed.chmod(mode)
    with pytest.raises(SegmentError, match=rf"others may write it too \(mode {mode:04o}\)"):
        Clock(timed, fence=None)
    with pytest.raises(SegmentError, match="others may write it too"):
        SegmentReader(timed, trust_writable=False)
    with Clock(timed, fence=None, trust_writable=True) as clock, SegmentReader(timed) as reader:
        assert clock.now().error_ns > 0
        assert reader.snapshot().size == 112


@pytest.mark.anyio
async def test_open_clock_refuses_what_others_may_write(timed: Path) -> None:
    """As Clock does, and with the same way to say otherwise."""
    timed.chmod(0o666)
    with pytest.raises(SegmentError, match=WRITABLE):
        async with open_clock(timed, fence=None):
            pass
    async with open_clock(timed, fence=None, trust_writable=True) as clock:
        assert clock.now().error_ns > 0


@only_root
def test_clock_reads_what_any_user_owns(timed: Path) -> None:
    """A publisher has a user of its own, and who names the path says whom to trust."""
    os.chown(timed, STRANGER, STRANGER)
    with Clock(timed, fence=None) as clock:
        assert clock.now().error_ns > 0


@pytest.mark.anyio
async def test_clock_does_not_go_over_to_what_others_may_write(timed: Path) -> None:
    """A file that takes the segment's place is asked the same."""
    theirs = timed.with_name("theirs")
    theirs.write_bytes(timed.read_bytes())
    theirs.chmod(0o666)
    with anyio.fail_after(10):
        async with open_clock(timed, fence=None) as clock, clock.events() as events:
            before = clock.now()
            theirs.rename(timed)
            with pytest.raises(SegmentError, match=WRITABLE):
                await events.receive()
            assert before.latest_ns <= clock.now().latest_ns  # what it had holds on


def test_fence_that_others_may_write_is_refused(timed: Path) -> None:
    """They could hide a disruption. A device is not asked: its node's mode lets nobody write its page."""
    device = timed.with_name("vmclock0")
    device.write_bytes(timed.read_bytes())
    device.chmod(0o666)
    with pytest.raises(SegmentError, match=WRITABLE) as caught:
        Clock(timed, fence=device)
    assert caught.value.path == str(device)
    with pytest.raises(SegmentMalformedError, match="magic"):
        SegmentReader("/dev/zero", trust_writable=False)


@pytest.mark.parametrize(
    ("mode", "others_may_write"), [(0o644, False), (0o600, False), (0o664, True), (0o666, True)]
)
def test_show_says_who_owns_a_segment_and_whether_others_may_write_it(
    timed: Path, mode: int, others_may_write: bool
) -> None:
    """In a line for people, and in fields of the JSON object."""
    timed.chmod(mode)
    (line,) = [line for line in vmclock_async("show", timed).stdout.splitlines() if line.startswith("owner ")]
    assert f"(uid {os.geteuid()})" in line
    assert f"mode {mode:04o}: " in line
    assert ("OTHERS MAY WRITE IT TOO" in line) is others_may_write
    shown = json.loads(vmclock_async("show", "--json", timed).stdout)
    assert (shown["owner_uid"], shown["others_may_write"]) == (os.geteuid(), others_may_write)


def test_now_refuses_what_others_may_write(timed: Path) -> None:
    """Exit code 1 and one line that says why and what to do."""
    timed.chmod(0o666)
    result = vmclock_async("now", timed)
    assert (result.returncode, result.stdout) == (1, "")
    assert "others may write it too (mode 0666)" in result.stderr
    assert "chmod go-w" in result.stderr
