"""Writing and closing."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.forks import Started
from kit.programs import path_of
from kit.segment_files import BODY, EARLIER_BOOT_NS, PACKED, U64_MAX, header_of, lock_of, look
from vmclock_async import (
    Flags,
    SegmentReader,
    SegmentWriter,
    VMClockBody,
)
from vmclock_async.errors import SegmentError, SegmentInUseError

MakePage = Callable[..., bytes]


RunScript = Callable[..., str]


StartScript = Callable[..., Started]


# Writing and closing.


def test_generation_counter_needs_112_bytes(segment_path: Path) -> None:
    """On 104 bytes it is refused with the remedy and nothing is written; on 112 it is kept."""
    body = VMClockBody(disruption_marker=1, vm_generation_counter=U64_MAX)
    with SegmentWriter(segment_path) as writer:
        writer.write(BODY)
        before = look(segment_path)
        with pytest.raises(SegmentError, match="size=112"):
            writer.write(body)
        assert look(segment_path) == before
        assert writer.body == BODY
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(body)
        assert writer.body == body
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().body == body


def test_generation_counter_that_is_given_up_leaves_no_trace(segment_path: Path) -> None:
    """A body without one, after a body with one, leaves zeros in its place and the flag unset."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(VMClockBody(vm_generation_counter=U64_MAX))
        writer.write(BODY)
    assert segment_path.read_bytes()[16:] == PACKED + bytes(8)


@pytest.mark.parametrize("constants", [{"counter_id": 256}, {"time_type": -1}, {"counter_id": 2**70}])
def test_constant_out_of_range_is_refused(segment_path: Path, constants: dict[str, int]) -> None:
    """A ValueError that names it, and nothing is written."""
    with SegmentWriter(segment_path) as writer:
        writer.write(BODY)
        before = look(segment_path)
        with pytest.raises(ValueError, match=next(iter(constants))):
            writer.write(VMClockBody(), **constants)
        assert look(segment_path) == before
        assert writer.body == BODY


def test_constants_stay_until_they_are_changed(segment_path: Path) -> None:
    """counter_id and time_type of one commit hold for the next, also by the next writer."""
    with SegmentWriter(segment_path) as writer:
        writer.write(BODY, counter_id=1, time_type=2)
    with SegmentWriter(segment_path) as writer:
        writer.write(BODY)
        assert header_of(segment_path)[3:5] == (1, 2)
        writer.write(BODY, time_type=0)
        assert header_of(segment_path)[3:5] == (1, 0)


def test_mtime_tells_when_the_last_commit_was(segment_path: Path) -> None:
    """The first commit has set the file's mtime once it returns; that of the last is set once the writer is closed."""
    # The kernel stamps files with the time of its last tick, some milliseconds ago.
    before_ns = time.clock_gettime_ns(time.CLOCK_REALTIME) - 10**9
    with SegmentWriter(segment_path) as writer:
        os.utime(segment_path, ns=(EARLIER_BOOT_NS, EARLIER_BOOT_NS))
        writer.write(BODY)
        assert segment_path.stat().st_mtime_ns >= before_ns
        os.utime(segment_path, ns=(EARLIER_BOOT_NS, EARLIER_BOOT_NS))
        writer.write(BODY)
    assert segment_path.stat().st_mtime_ns >= before_ns


def test_writer_that_two_threads_close_keeps_its_lock_until_its_file_is_gone(
    segment_path: Path, run_script: RunScript
) -> None:
    """The second returns at once: did it release the lock, the first would remove the file of the next writer's."""
    run_script("close_twice", segment_path)


def test_closing_leaves_the_last_body(segment_path: Path) -> None:
    """After close, once or twice, the file is there with an even seq_count, and free for the next writer."""
    writer = SegmentWriter(segment_path)
    writer.write(BODY)
    writer.close()
    before = look(segment_path)
    writer.close()
    assert look(segment_path) == before
    assert header_of(segment_path) == (0x4B4C4356, 104, 1, 0, 0, 2)
    assert list(segment_path.parent.iterdir()) == [segment_path]
    with SegmentWriter(segment_path) as following:
        writer.close()  # must not remove the lock of the one that follows
        assert lock_of(segment_path).exists()
        assert following.write(BODY) == 4


def test_closed_writer_refuses_to_write(segment_path: Path) -> None:
    """write() and seq_count raise SegmentError, and the file stays as it is."""
    with SegmentWriter(segment_path) as writer:
        writer.write(BODY)
    before = look(segment_path)
    with pytest.raises(SegmentError, match="the writer is closed"):
        writer.write(BODY)
    with pytest.raises(SegmentError, match="the writer is closed"):
        _ = writer.seq_count
    assert look(segment_path) == before


def test_leaving_the_block_by_an_error_closes(segment_path: Path) -> None:
    """An exception inside the block passes through, and the segment is free."""
    with pytest.raises(ZeroDivisionError), SegmentWriter(segment_path):
        _ = 1 // 0
    assert not lock_of(segment_path).exists()


def test_writer_does_not_follow_into_a_forked_child(run_script: RunScript, segment_path: Path) -> None:
    """In the child it is closed, with an error that says why; closing it there leaves the parent its lock."""
    pid, found, lock_is_there, seq_count = json.loads(run_script("fork_writer", segment_path))
    for use in ("write", "seq_count"):
        name, message = found[use]
        assert name == "SegmentError"
        assert "the child of a fork has to open one of its own" in message
    name, message = found["open"]
    assert name == "SegmentInUseError"
    assert f"process {pid} " in message
    assert lock_is_there
    assert seq_count == 4


def test_closing_leaves_the_lock_of_another_directory_alone(
    segment_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path means the segment that it meant at opening, whatever the working directory is by now."""
    monkeypatch.chdir(tmp_path)
    here = SegmentWriter("shm0")
    monkeypatch.chdir(segment_path.parent)
    with SegmentWriter("shm0") as there:
        here.close()
        assert not (tmp_path / "shm0.lock").exists()
        with pytest.raises(SegmentInUseError):
            SegmentWriter(there.path)


def test_closing_leaves_a_lock_that_is_not_its_own_alone(segment_path: Path) -> None:
    """If somebody removed the lock's file and another writer made one, that one stays."""
    first = SegmentWriter(segment_path)
    Path(f"{segment_path}.lock").unlink()
    with SegmentWriter(segment_path):
        first.close()
        with pytest.raises(SegmentInUseError):
            SegmentWriter(segment_path)


def test_commits_end_before_the_lock_does(segment_path: Path) -> None:
    """While one thread writes at full speed another closes: the lock is free only after the last commit."""
    for _ in range(20):
        first = SegmentWriter(segment_path)
        seq_counts: list[int] = []
        begun = threading.Event()

        def write(writer: SegmentWriter, seen: list[int], start: threading.Event) -> None:
            try:
                while True:
                    seen.append(writer.write(VMClockBody(disruption_marker=1)))
                    start.set()
            except SegmentError:
                return  # closed

        thread = threading.Thread(target=write, args=(first, seq_counts, begun))
        thread.start()
        begun.wait()
        first.close()
        with SegmentWriter(segment_path) as second:
            before = second.seq_count
            thread.join()
            assert second.seq_count == before
        # The last commit may have ended without its writer being told the number.
        assert before - seq_counts[-1] in (0, 2)


def test_sparse_file_on_a_full_filesystem_is_an_error_not_a_signal(segment_path: Path) -> None:
    """A hole that cannot be filled is found before the first store, which would raise SIGBUS."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system of one page")
    folder = segment_path.parent / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", folder], check=True)
    try:
        (folder / "filler").write_bytes(bytes(4096))
        segment = folder / "shm0"
        segment.touch()
        os.truncate(segment, 4096)
        result = subprocess.run(
            [sys.executable, path_of("try_commit"), segment],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
        assert (result.returncode, result.stderr) == (0, "")
        assert "No space left on device" in result.stdout
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("path", ["nul\0", "surrogate\ud800"])
def test_what_can_be_no_path_is_a_segment_error(path: str) -> None:
    """Neither writer nor reader raises what open() raises for it."""
    with pytest.raises(SegmentError, match="can be no path"):
        SegmentWriter(path)
    with pytest.raises(SegmentError, match="can be no path"):
        SegmentReader(path)


def test_values_let_in_by_model_copy_are_refused(segment_path: Path) -> None:
    """model_copy() validates nothing; what it let in is named before it reaches the page."""
    with SegmentWriter(segment_path, size=112) as writer:
        with pytest.raises(ValueError, match="time_sec"):
            writer.write(VMClockBody().model_copy(update={"time_sec": -1}))
        with pytest.raises(ValueError, match="VM_GEN_COUNTER_PRESENT is set"):
            writer.write(VMClockBody(flags=Flags.VM_GEN_COUNTER_PRESENT))
        writer.write(VMClockBody().model_copy(update={"vm_generation_counter": 7}))
        with SegmentReader(segment_path) as reader:
            assert reader.snapshot().body.vm_generation_counter == 7
