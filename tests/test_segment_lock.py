"""One writer a segment: the lock."""

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.forks import Started
from kit.segment_files import BODY, lock_of, look, umask
from vmclock_async import (
    SegmentReader,
    SegmentWriter,
)
from vmclock_async.errors import SegmentError, SegmentInUseError

MakePage = Callable[..., bytes]


RunScript = Callable[..., str]


StartScript = Callable[..., Started]


# The lock.


def start_holder(start_script: StartScript, path: Path) -> Started:
    """Another process that has committed to the segment at *path*, and holds it."""
    holder = start_script("hold_segment", path)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "2\n"
    return holder


def test_segment_in_use_is_refused(start_script: StartScript, segment_path: Path) -> None:
    """SegmentInUseError names the path and the holder's pid, and neither segment nor lock is touched."""
    holder = start_holder(start_script, segment_path)
    before = look(segment_path), look(lock_of(segment_path))
    with pytest.raises(SegmentInUseError, match=rf"process {holder.pid} is writing to it") as caught:
        SegmentWriter(segment_path, size=112)
    assert str(caught.value).startswith(f"{segment_path}: ")
    assert (look(segment_path), look(lock_of(segment_path))) == before


def test_one_process_cannot_be_two_writers(segment_path: Path) -> None:
    """A second writer in the same process is refused like one in another, and the first goes on."""
    with SegmentWriter(segment_path) as writer:
        with pytest.raises(SegmentInUseError, match=f"process {os.getpid()} "):
            SegmentWriter(segment_path)
        assert writer.write(BODY) == 2
        assert lock_of(segment_path).exists()


def test_writer_that_was_killed_leaves_the_segment_free(start_script: StartScript, segment_path: Path) -> None:
    """After SIGKILL the next writer starts warm at once, over the lock's file that stayed."""
    holder = start_holder(start_script, segment_path)
    holder.kill()
    holder.wait(timeout=10)
    assert lock_of(segment_path).exists()
    with SegmentWriter(segment_path) as writer:
        assert (writer.seq_count, writer.body.disruption_marker) == (2, 77)
        assert lock_of(segment_path).read_text() == f"{os.getpid()}\n"


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_lock_is_for_its_owner_alone_and_goes_with_the_writer(segment_path: Path, mask: int) -> None:
    """Its file is 0600 whatever the umask, is not inherited by programs, and is removed on close."""
    with umask(mask), SegmentWriter(segment_path):
        status = lock_of(segment_path).stat()
        assert stat.S_IMODE(status.st_mode) == 0o600
        for entry in Path("/proc/self/fd").iterdir():
            if entry.is_symlink() and os.readlink(entry).startswith(str(segment_path)):
                assert not os.get_inheritable(int(entry.name))
    assert list(segment_path.parent.iterdir()) == [segment_path]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(lambda path: path.symlink_to("victim"), id="symlink"),
        pytest.param(os.mkfifo, id="fifo"),
        pytest.param(Path.mkdir, id="directory"),
    ],
)
def test_lock_that_is_no_regular_file_is_refused(segment_path: Path, make: Callable[[Path], object]) -> None:
    """A SegmentError that names the lock, at once; what it leads to is not opened, nothing is made or removed."""
    victim = segment_path.with_name("victim")
    victim.write_bytes(b"precious")
    make(lock_of(segment_path))
    before = lock_of(segment_path).lstat()
    with pytest.raises(SegmentError, match=r"shm0\.lock"):
        SegmentWriter(segment_path)
    assert victim.read_bytes() == b"precious"
    assert os.path.samestat(lock_of(segment_path).lstat(), before)
    assert not segment_path.exists()


def test_no_two_writers_hold_a_segment_at_once(start_script: StartScript, segment_path: Path) -> None:
    """Processes that open, add one and close as fast as they can lose no addition: each was alone."""
    contenders = [start_script("contend", segment_path) for _ in range(3)]
    for contender in contenders:
        assert contender.stdout is not None
        assert contender.stdout.readline() == "ready\n"
    for contender in contenders:
        assert contender.stdin is not None
        contender.stdin.write("go\n")
        contender.stdin.flush()
    outputs = [contender.communicate(timeout=30)[0] for contender in contenders]
    assert outputs == ["200\n"] * 3
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert (snapshot.body.counter_value, snapshot.seq_count) == (600, 1200)
    assert list(segment_path.parent.iterdir()) == [segment_path]
