"""The programs of a few lines that README and the tutorial show, beside a machine to which things happen."""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from vmclock_async.testing import PlayedSegment

QUICK = Path(__file__).parent.parent / "examples/quick"


def started(name: str, segment: Path) -> "subprocess.Popen[str]":
    """The program called *name*, which reads *segment* because that is where the publisher puts it."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", str(QUICK / name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "VMCLOCK_ASYNC_SEGMENT": str(segment)},
    )


def ended(process: "subprocess.Popen[str]") -> str:
    """What *process* printed; it must succeed, and have nothing to complain of."""
    try:
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert (process.returncode, errors) == (0, "")
    return output


def waits_for_a_commit(process: "subprocess.Popen[str]") -> bool:
    """Whether *process* watches a file."""
    for descriptor in Path(f"/proc/{process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it was closed meanwhile
            if os.readlink(descriptor) == "anon_inode:inotify":
                return True
    return False


@pytest.mark.parametrize("path", sorted(QUICK.iterdir()), ids=lambda path: path.stem)
def test_program_is_short(path: Path) -> None:
    """A program that people read before they know anything fits on their first screen."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 17


def test_now_prints_both_ends_of_the_interval(segment: PlayedSegment) -> None:
    """The smallest program prints when it is, at the earliest and at the latest."""
    earliest, latest = ended(started("now.py", segment.path)).splitlines()
    assert earliest.startswith("not before 20")
    assert latest.startswith("not after  20")
    assert earliest.split()[2:] < latest.split()[2:]


def test_now_says_why_there_is_no_time(segment: PlayedSegment) -> None:
    """On a machine whose clock nobody synchronizes the program prints the reason and the remedy, and no traceback."""
    segment.lose_sync(void=True)
    assert ended(started("now.py", segment.path)).startswith(
        "no bounded time: clock_status is UNKNOWN; wait until"
    )


def test_now_says_that_nothing_is_published(tmp_path: Path) -> None:
    """Without a publisher the program prints the reason and the remedy, too."""
    printed = ended(started("now.py", tmp_path / "shm0"))
    assert (
        printed
        == f"no bounded time: {tmp_path / 'shm0'}: nothing is there; start a publisher, or check the path\n"
    )


def test_wait_until_bounded_acts_once_there_is_a_bound(segment: PlayedSegment) -> None:
    """The program waits while there is no time, and acts once there is one."""
    segment.lose_sync(void=True)
    process = started("wait_until_bounded.py", segment.path)
    while not waits_for_a_commit(process):
        assert process.poll() is None, ended(process)
    segment.regain_sync()
    assert ended(process).startswith("acted with token 1")


def test_events_prints_what_happens(segment: PlayedSegment) -> None:
    """The program prints seven things that happen to the machine, and ends."""
    process = started("events.py", segment.path)
    while process.poll() is None:
        segment.restore()
    printed = [line.partition("(")[0] for line in ended(process).splitlines()]
    assert len(printed) == 7
    assert {"Disrupted", "Restored"} <= set(printed)
