"""What a writer makes of whatever is at its path when it opens: a cold or a warm start, or a refusal."""

import json
import os
import socket
import stat
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.segment_files import BODY, EARLIER_BOOT_NS, PACKED, U64_MAX, header_of, lock_of, look, mapped, umask
from vmclock_async import (
    ClockStatus,
    LeapIndicator,
    SegmentReader,
    SegmentWriter,
    SmearingHint,
    VMClockBody,
)
from vmclock_async.errors import SegmentError, SegmentNotInitializedError

MakePage = Callable[..., bytes]


RunScript = Callable[..., str]


# Nothing there: a cold start.


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_new_segment_can_be_read_by_all_whatever_the_umask(segment_path: Path, mask: int) -> None:
    """The file is 0644 and the parents it needed are 0755: no umask hides them or opens them to writers."""
    path = segment_path.parent / "run" / "vmclock" / "shm0"
    with umask(mask), SegmentWriter(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o755
        assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o755


def test_parents_that_are_there_keep_their_mode(segment_path: Path) -> None:
    """Only directories that the writer creates get a mode from it."""
    parent = segment_path.parent / "private"
    parent.mkdir(mode=0o700)
    with SegmentWriter(parent / "shm0"):
        assert stat.S_IMODE(parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("size", [104, 112, 4096])
def test_new_segment_is_not_usable_before_the_first_commit(segment_path: Path, size: int) -> None:
    """It is *size* bytes with version 0, seq_count 0 and zeros: readers are told that nothing is committed."""
    with SegmentWriter(segment_path, size=size) as writer:
        assert segment_path.read_bytes() == struct.pack("<II", 0x4B4C4356, size).ljust(size, b"\0")
        assert (writer.size, writer.seq_count, writer.interrupted) == (size, 0, False)
        assert writer.body == VMClockBody()
        with pytest.raises(SegmentNotInitializedError, match="version is 0"):
            SegmentReader(segment_path)
        assert writer.write(BODY) == 2
        with SegmentReader(segment_path) as reader:
            assert reader.snapshot().body == BODY


def test_bytes_are_those_of_clockbound(segment_path: Path, vectors: Path) -> None:
    """A cold start and three bodies, each by another writer, are byte for byte what ClockBound's writer left."""
    folder = vectors / "clockbound-writer"
    extremes = VMClockBody(
        disruption_marker=U64_MAX,
        clock_status=ClockStatus.UNRELIABLE,
        leap_second_smearing_hint=SmearingHint.UTC_SLS,
        tai_offset_sec=-32768,
        leap_indicator=LeapIndicator.POST_NEG,
        counter_period_shift=255,
        counter_value=U64_MAX,
        counter_period_frac_sec=U64_MAX,
        counter_period_esterror_rate_frac_sec=U64_MAX,
        counter_period_maxerror_rate_frac_sec=U64_MAX,
        time_sec=U64_MAX,
        time_frac_sec=U64_MAX,
        time_esterror_nanosec=U64_MAX,
        time_maxerror_nanosec=U64_MAX,
    )
    synchronized = VMClockBody(disruption_marker=2, clock_status=ClockStatus.SYNCHRONIZED, tai_offset_sec=37)
    for body, seq_count, name in (
        (VMClockBody(disruption_marker=1), 2, "updater-01-cold-start-marker-1.bin"),
        (synchronized, 4, "updater-02-warm-restart-marker-2-synchronized-tai-37.bin"),
        (extremes, 6, "updater-03-extremes.bin"),
    ):
        with SegmentWriter(segment_path) as writer:
            assert writer.write(body) == seq_count
            assert segment_path.read_bytes() == (folder / name).read_bytes()
        assert segment_path.read_bytes() == (folder / name).read_bytes()


# A usable segment: a warm start.


@pytest.mark.parametrize(
    ("size", "asked"),
    [
        pytest.param(104, 104, id="104"),
        pytest.param(112, 112, id="112"),
        pytest.param(112, 104, id="larger-than-asked"),
        pytest.param(4096, 112, id="whole-page"),
    ],
)
def test_usable_segment_is_continued(segment_path: Path, make_page: MakePage, size: int, asked: int) -> None:
    """Nothing in the file changes when it is opened: body, constants, seq_count, size and mode stay."""
    content = make_page(seq_count=8, size=size, counter_id=1, time_type=1, body=PACKED).ljust(size, b"\0")
    segment_path.write_bytes(content)
    segment_path.chmod(0o640)
    before = look(segment_path)
    with SegmentReader(segment_path) as reader, SegmentWriter(segment_path, size=asked) as writer:
        assert look(segment_path) == before
        assert (writer.body, writer.seq_count, writer.size, writer.interrupted) == (BODY, 8, size, False)
        assert reader.snapshot().body == BODY
        assert writer.write(VMClockBody(disruption_marker=6)) == 10
        snapshot = reader.snapshot()
    assert (snapshot.seq_count, snapshot.body.disruption_marker) == (10, 6)
    assert (snapshot.counter_id, snapshot.time_type, snapshot.size) == (1, 1, size)
    assert snapshot.inode == before.inode == segment_path.stat().st_ino
    assert stat.S_IMODE(segment_path.stat().st_mode) == 0o640


def test_commit_that_was_cut_short_is_repaired_by_the_next(segment_path: Path, make_page: MakePage) -> None:
    """An odd seq_count stays on opening, is reported as interrupted, and becomes even with the first write."""
    segment_path.write_bytes(make_page(seq_count=9, body=PACKED))
    before = look(segment_path)
    with SegmentWriter(segment_path) as writer:
        assert look(segment_path) == before
        assert (writer.interrupted, writer.seq_count) == (True, 9)
        assert writer.write(BODY) == 10
        assert writer.write(BODY) == 12
    assert header_of(segment_path)[-1] == 12


def test_seq_count_wraps(segment_path: Path, make_page: MakePage) -> None:
    """After 0xFFFFFFFE comes 0, which is a number like any other."""
    segment_path.write_bytes(make_page(seq_count=0xFFFFFFFC))
    with SegmentWriter(segment_path) as writer, SegmentReader(segment_path) as reader:
        seen = []
        for _ in range(4):
            seen.append(writer.write(BODY))
            assert reader.snapshot().seq_count == seen[-1]
    assert seen == [0xFFFFFFFE, 0, 2, 4]


# Anything else in a regular file: a cold start in place.


@pytest.mark.parametrize(
    ("header", "length", "asked", "old_boot"),
    [
        pytest.param({"version": 0}, 104, 104, False, id="version-0"),
        pytest.param({"version": 9}, 104, 104, False, id="version-9"),
        pytest.param({"version": 9, "size": 112}, 112, 104, False, id="version-9-larger"),
        pytest.param({}, 104, 104, True, id="earlier-boot"),
        pytest.param({"size": 4096}, 4096, 112, True, id="earlier-boot-whole-page"),
        pytest.param({}, 104, 112, False, id="grown-to-112"),
        pytest.param({}, 4096, 112, False, id="larger-file-than-its-size"),
        pytest.param({"size": 4096}, 104, 104, False, id="size-past-the-end"),
        pytest.param({"size": 64}, 104, 104, False, id="size-below-104"),
        pytest.param({"magic": 0xDEADBEEF}, 104, 104, False, id="garbage"),
        pytest.param({"magic": 0xDEADBEEF}, 9000, 112, False, id="long-garbage"),
    ],
)
@pytest.mark.parametrize("seq_count", [40, 41])
def test_segment_that_cannot_be_continued_is_begun_afresh_in_place(
    segment_path: Path,
    make_page: MakePage,
    header: dict[str, int],
    length: int,
    asked: int,
    old_boot: bool,
    seq_count: int,
) -> None:
    """The same inode gets a new header, a zero body and the next even seq_count; it grows, and is never cut.

    The bytes behind the region survive, which they would not if the file had been cut and grown again.
    """
    segment_path.write_bytes(make_page(seq_count=seq_count, body=PACKED, **header).ljust(length, b"\xaa"))
    if old_boot:
        os.utime(segment_path, ns=(EARLIER_BOOT_NS, EARLIER_BOOT_NS))
    before = look(segment_path)
    with mapped(segment_path) as earlier, SegmentWriter(segment_path, size=asked) as writer:
        after = look(segment_path)
        assert (after.inode, after.mode) == (before.inode, before.mode)
        assert after.size == max(length, asked)
        assert header_of(segment_path) == (0x4B4C4356, asked, 0, 0, 0, 42)
        assert after.content[16:asked] == bytes(asked - 16)
        assert after.content[asked:] == before.content[asked:]
        assert (writer.size, writer.seq_count, writer.interrupted) == (asked, 42, False)
        assert writer.body == VMClockBody()
        with pytest.raises(SegmentNotInitializedError):
            SegmentReader(segment_path)
        assert writer.write(BODY, counter_id=1, time_type=1) == 44
        copy = earlier.read()
    assert copy is not None
    assert copy[:104] == make_page(seq_count=44, size=asked, counter_id=1, time_type=1, body=PACKED)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 103])
@pytest.mark.parametrize("asked", [104, 112])
def test_file_too_short_for_a_segment_is_grown(segment_path: Path, length: int, asked: int) -> None:
    """A file that nobody can have mapped begins at seq_count 0, in the same inode."""
    segment_path.write_bytes(b"\xaa" * length)
    inode = segment_path.stat().st_ino
    with SegmentWriter(segment_path, size=asked) as writer:
        assert segment_path.read_bytes() == struct.pack("<II", 0x4B4C4356, asked).ljust(asked, b"\0")
        assert writer.write(BODY) == 2
    assert segment_path.stat().st_ino == inode


def test_reader_that_was_there_goes_on_through_a_cold_start(segment_path: Path, make_page: MakePage) -> None:
    """It hears that nothing is committed, then gets the new body under a higher number, without opening again."""
    segment_path.write_bytes(make_page(seq_count=6, body=PACKED))
    os.utime(segment_path, ns=(EARLIER_BOOT_NS, EARLIER_BOOT_NS))
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().seq_count == 6
        with SegmentWriter(segment_path, size=112) as writer:
            with pytest.raises(SegmentNotInitializedError):
                reader.snapshot()
            writer.write(VMClockBody(vm_generation_counter=3))
        snapshot = reader.snapshot()
    assert (snapshot.seq_count, snapshot.size, snapshot.body.vm_generation_counter) == (10, 112, 3)


def test_segment_of_this_boot_is_not_taken_for_an_earlier_one(segment_path: Path, make_page: MakePage) -> None:
    """A file last written a second after boot is continued; one last written before, or later than now, is not."""
    content = make_page(seq_count=6, body=PACKED)
    boot_ns = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    later_ns = time.time_ns() + 3600 * 10**9  # by the clock of an earlier boot
    for mtime_ns, body in ((boot_ns + 10**9, BODY), (boot_ns - 10**9, VMClockBody()), (later_ns, VMClockBody())):
        segment_path.write_bytes(content)
        os.utime(segment_path, ns=(mtime_ns, mtime_ns))
        with SegmentWriter(segment_path) as writer:
            assert writer.body == body


# What is refused, without a trace.


def make_symlink(path: Path) -> None:
    """A link to a segment that could be continued."""
    target = path.with_name("target")
    target.write_bytes(struct.pack("<IIHBBI", 0x4B4C4356, 104, 1, 0, 0, 2) + PACKED)
    path.symlink_to(target)


def make_socket(path: Path) -> None:
    """A socket, bound there."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        pytest.param(make_symlink, "symbolic link", id="symlink"),
        pytest.param(lambda path: path.symlink_to("nowhere"), "symbolic link", id="dangling-symlink"),
        pytest.param(Path.mkdir, "directory", id="directory"),
        pytest.param(os.mkfifo, "FIFO", id="fifo"),
        pytest.param(make_socket, "socket", id="socket"),
    ],
)
def test_what_is_not_a_regular_file_is_refused(
    segment_path: Path, make: Callable[[Path], object], named: str
) -> None:
    """The error names the path and what is there; no lock is left, nothing is made, followed or changed."""
    make(segment_path)

    def state() -> dict[str, tuple[int, ...]]:
        statuses = {entry.name: entry.lstat() for entry in segment_path.parent.iterdir()}
        return {name: (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns) for name, s in statuses.items()}

    before = state()
    with pytest.raises(SegmentError, match=named) as caught:
        SegmentWriter(segment_path)
    assert str(segment_path) in str(caught.value)
    assert state() == before


def test_device_is_refused() -> None:
    """A character device is not a segment to write, and gets no lock beside it."""
    with pytest.raises(SegmentError, match="/dev/null: is a character device"):
        SegmentWriter("/dev/null")
    assert not os.path.lexists("/dev/null.lock")


def test_root_directory_is_refused() -> None:
    """It is a directory like any, though its path ends with no name."""
    with pytest.raises(SegmentError, match="/: is a directory"):
        SegmentWriter("/")
    assert not os.path.lexists("/.lock")


def test_path_below_a_file_is_refused(segment_path: Path) -> None:
    """A parent that is a file is a SegmentError, not a bare OSError."""
    segment_path.write_bytes(b"file")
    with pytest.raises(SegmentError, match="Not a directory"):
        SegmentWriter(segment_path / "shm0")


@pytest.mark.parametrize("size", [-104, 0, 96, 103, 105, 108, 4097, 4104, 2**32])
def test_size_that_no_segment_has_is_refused(segment_path: Path, size: int) -> None:
    """A multiple of 8 from 104 to 4096, or a ValueError before anything is looked at."""
    with pytest.raises(ValueError, match=f"from 104 to 4096, not {size}"):
        SegmentWriter(segment_path, size=size)
    assert list(segment_path.parent.iterdir()) == []


def test_segment_that_may_not_be_written_is_refused(
    run_script: RunScript, segment_path: Path, make_page: MakePage
) -> None:
    """No write access to the file: a SegmentError that says so, the file as it was, and no lock left behind."""
    segment_path.write_bytes(make_page(body=PACKED))
    segment_path.chmod(0o444)
    segment_path.parent.chmod(0o777)
    before = look(segment_path)
    name, message = json.loads(run_script("denied_writer", segment_path))
    assert name == "SegmentError"
    assert message.startswith(f"{segment_path}: ")
    assert "Permission denied" in message
    assert look(segment_path) == before
    assert list(segment_path.parent.iterdir()) == [segment_path]


@pytest.mark.parametrize("below", ["shm0", "new/deeper/shm0"])
def test_directory_that_may_not_be_written_is_refused(
    run_script: RunScript, segment_path: Path, below: str
) -> None:
    """No write access to the directory: a SegmentError that says so, and nothing is created, parents neither."""
    segment_path.parent.chmod(0o555)
    try:
        path = segment_path.parent / below
        name, message = json.loads(run_script("denied_writer", path))
        assert name == "SegmentError"
        assert message.startswith(f"{path}: ")
        assert "Permission denied" in message
        assert list(segment_path.parent.iterdir()) == []
    finally:
        segment_path.parent.chmod(0o755)


def test_files_prepared_in_a_directory_that_may_not_be_written_will_do(
    run_script: RunScript, segment_path: Path, make_page: MakePage
) -> None:
    """A writer that cannot remove its lock's file leaves it, closes all the same, and can be opened again."""
    segment_path.write_bytes(make_page(seq_count=6, body=PACKED))
    lock_of(segment_path).touch()
    if os.geteuid() == 0:
        for path in (segment_path, lock_of(segment_path)):
            os.chown(path, 65534, 65534)
    segment_path.parent.chmod(0o555)
    try:
        assert run_script("write_twice_as_nobody", segment_path) == "10\n"
        assert lock_of(segment_path).exists()
    finally:
        segment_path.parent.chmod(0o755)
