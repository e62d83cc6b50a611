"""What a reader makes of whatever is at its path: opening, and snapshots, which are synchronous."""

import json
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from kit.calls import builtin_calls
from kit.segment_files import BODY, PACKED, restart_of_clockbound
from kit.told_world import open_descriptors
from vmclock_async import (
    ClockStatus,
    CounterId,
    SegmentReader,
    SegmentWriter,
    TimeType,
    VMClockBody,
    _core,
)
from vmclock_async.errors import (
    SegmentError,
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentUnstableError,
    SegmentVersionNotSupportedError,
)

MakePage = Callable[..., bytes]


RunScript = Callable[..., str]


# Opening.


def make_socket(path: Path) -> None:
    """A socket, bound there."""
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(path))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        pytest.param(lambda path: None, SegmentNotInitializedError, "nothing is there", id="nothing"),
        pytest.param(Path.touch, SegmentNotInitializedError, "empty", id="empty"),
        pytest.param(
            lambda path: path.symlink_to("nowhere"), SegmentNotInitializedError, "nothing is there", id="dangling"
        ),
        pytest.param(lambda path: path.write_bytes(b"VCLK"), SegmentMalformedError, "4 bytes", id="4-bytes"),
        pytest.param(lambda path: path.write_bytes(bytes(15)), SegmentMalformedError, "15 bytes", id="15-bytes"),
        pytest.param(Path.mkdir, SegmentMalformedError, "directory", id="directory"),
        pytest.param(os.mkfifo, SegmentMalformedError, "FIFO", id="fifo"),
        pytest.param(make_socket, SegmentMalformedError, "socket", id="socket"),
    ],
)
def test_what_holds_no_header_is_refused(
    segment_path: Path, make: Callable[[Path], object], error: type[SegmentError], message: str
) -> None:
    """The error tells nothing-yet from not-a-segment, names path and cause, does not block, and leaks nothing."""
    make(segment_path)
    before = open_descriptors()
    with pytest.raises(SegmentError, match=message) as caught:
        SegmentReader(segment_path)
    assert type(caught.value) is error
    assert str(caught.value).startswith(f"{segment_path}: ")
    assert not open_descriptors() - before


@pytest.mark.parametrize(
    ("header", "error", "message"),
    [
        pytest.param({"magic": 0x4B4C4355}, SegmentMalformedError, "0x4B4C4355", id="magic"),
        pytest.param({"version": 0}, SegmentNotInitializedError, "version is 0", id="version-0"),
        pytest.param({"version": 2}, SegmentVersionNotSupportedError, "version is 2", id="version-2"),
        pytest.param({"version": 0xFFFF}, SegmentVersionNotSupportedError, "65535", id="version-65535"),
        pytest.param({"size": 103}, SegmentMalformedError, "size is 103", id="size-below-104"),
        pytest.param({"size": 0}, SegmentMalformedError, "size is 0", id="size-0"),
        pytest.param({"size": 105}, SegmentMalformedError, "ends after 104", id="size-past-the-end"),
        pytest.param({"size": 2**32 - 1}, SegmentMalformedError, "ends after 104", id="size-largest"),
        pytest.param({"magic": 1, "version": 0, "size": 0}, SegmentMalformedError, "magic", id="magic-before-all"),
        pytest.param({"magic": 1, "version": 9}, SegmentMalformedError, "magic", id="magic-before-version"),
        pytest.param({"version": 9, "size": 0}, SegmentVersionNotSupportedError, "9", id="version-before-size"),
        pytest.param({"version": 0, "size": 0}, SegmentNotInitializedError, "0", id="version-0-before-size"),
    ],
)
def test_header_that_is_not_usable_is_refused(
    segment_path: Path, make_page: MakePage, header: dict[str, int], error: type[SegmentError], message: str
) -> None:
    """Checked in the order magic, version, size; the error names what was seen, and leaks nothing."""
    segment_path.write_bytes(make_page(**header))
    before = open_descriptors()
    with pytest.raises(SegmentError, match=message) as caught:
        SegmentReader(segment_path)
    assert type(caught.value) is error
    assert not open_descriptors() - before


@pytest.mark.parametrize("length", [16, 50, 103])
def test_header_alone_is_not_enough(segment_path: Path, make_page: MakePage, length: int) -> None:
    """A file that ends inside the body its header promises is malformed."""
    segment_path.write_bytes(make_page()[:length])
    with pytest.raises(SegmentMalformedError, match=f"ends after {length} bytes"):
        SegmentReader(segment_path)


@pytest.mark.parametrize(
    ("device", "error"),
    [("/dev/null", SegmentNotInitializedError), ("/dev/zero", SegmentMalformedError)],
)
def test_other_devices_are_refused(device: str, error: type[SegmentError]) -> None:
    """A device is read like a file: one that gives nothing is empty, one that gives zeros has no magic."""
    with pytest.raises(SegmentError, match=device) as caught:
        SegmentReader(device)
    assert type(caught.value) is error


def test_segment_that_may_not_be_read_is_refused(
    run_script: RunScript, segment_path: Path, make_page: MakePage
) -> None:
    """No permission: a SegmentError, not one that speaks of the content, with the remedy."""
    segment_path.write_bytes(make_page())
    segment_path.chmod(0)
    name, message = json.loads(run_script("denied_reader", segment_path))
    assert name == "SegmentError"
    assert message.startswith(f"{segment_path}: may not be read by this user; ")
    assert "udev" in message


def test_lack_of_descriptors_is_not_blamed_on_the_segment(segment_path: Path, make_page: MakePage) -> None:
    """What fails for the process's own reasons is a plain SegmentError with that reason."""
    segment_path.write_bytes(make_page())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        with pytest.raises(SegmentError) as caught:
            SegmentReader(segment_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert type(caught.value) is SegmentError
    assert "Too many open files" in str(caught.value)


def test_readers_follow_links(segment_path: Path, make_page: MakePage) -> None:
    """A symbolic link to a segment is a segment; the inode is that of the file."""
    target = segment_path.with_name("target")
    target.write_bytes(make_page(body=PACKED))
    segment_path.symlink_to(target)
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().inode == target.stat().st_ino


def made_by_us(path: Path) -> None:
    """A new segment, and its first commit."""
    with SegmentWriter(path, size=112) as writer:
        writer.write(BODY)


def made_elsewhere(path: Path) -> None:
    """What ClockBound's writer does where nothing usable is: cut, lay out with version 0, commit."""
    restart_of_clockbound(path, struct.pack("<IIHBBI", 0x4B4C4356, 104, 0, 0, 0, 0), PACKED)


CALLS_OF_OPENING = ("open", "fstat", "pread", "fstat")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(len(CALLS_OF_OPENING)))
@pytest.mark.parametrize("made", [made_by_us, made_elsewhere])
@pytest.mark.parametrize("begun", ["nothing", "empty", "104 bytes"])
def test_segment_may_be_made_or_grown_while_it_is_opened(
    segment_path: Path,
    make_page: MakePage,
    monkeypatch: pytest.MonkeyPatch,
    begun: str,
    made: Callable[[Path], None],
    call: int,
    late: bool,
) -> None:
    """Whichever of the reader's system calls the writer comes before or after: it is not there yet, or it is whole."""
    if begun != "nothing":
        segment_path.write_bytes(make_page() if begun == "104 bytes" else b"")
    calls: list[str] = []
    real = {name: getattr(os, name) for name in CALLS_OF_OPENING}

    def interposed(name: str, *args: object) -> object:
        calls.append(name)
        if len(calls) != call + 1:
            return real[name](*args)
        monkeypatch.undo()  # so that the writer's own calls are not counted
        try:
            if not late:
                made(segment_path)
            return real[name](*args)
        finally:
            if late:
                made(segment_path)
            for each in real:
                monkeypatch.setattr(os, each, partial(interposed, each))

    for name in real:
        monkeypatch.setattr(os, name, partial(interposed, name))
    try:
        reader = SegmentReader(segment_path)
    except SegmentNotInitializedError:
        assert begun != "104 bytes"
    else:
        assert reader.snapshot().body == (BODY if len(calls) > call else VMClockBody())
        assert len(calls) <= len(CALLS_OF_OPENING), "there are more places to come between"
        reader.close()
    finally:
        monkeypatch.undo()


# Snapshots.


@pytest.mark.parametrize(
    ("name", "seq_count", "marker"),
    [
        ("boot-q10-k73-read.bin", 2, 1),
        ("boot-q11-k616-mmap.bin", 2, 1),
        ("run-q10-k73-g01-migrate-before.bin", 2, 1),
        ("run-q10-k73-g01-migrate-after.bin", 4, 2),
        ("run-q11-k73-g02-live-after.bin", 6, 3),
        ("run-q11-k73-g04-loadvm-after.bin", 8, 4),
    ],
)
def test_captured_page_is_read_like_a_segment(vectors: Path, name: str, seq_count: int, marker: int) -> None:
    """A page saved from a device, of whatever boot, gives its header and body."""
    path = vectors / "linux-device" / name
    with SegmentReader(path) as reader:
        snapshot = reader.snapshot()
        assert reader.seq_count == seq_count
    assert (snapshot.magic, snapshot.size, snapshot.version) == (0x4B4C4356, 4096, 1)
    assert (snapshot.counter_id, snapshot.time_type) == (CounterId.INVALID, TimeType.UTC)
    assert (snapshot.seq_count, snapshot.inode) == (seq_count, path.stat().st_ino)
    assert snapshot.body == VMClockBody(disruption_marker=marker)


@pytest.mark.parametrize(
    ("name", "seq_count", "body"),
    [
        ("updater-01-cold-start-marker-1.bin", 2, VMClockBody(disruption_marker=1)),
        (
            "updater-02-warm-restart-marker-2-synchronized-tai-37.bin",
            4,
            VMClockBody(disruption_marker=2, clock_status=ClockStatus.SYNCHRONIZED, tai_offset_sec=37),
        ),
    ],
)
def test_segment_of_clockbound_is_read(vectors: Path, name: str, seq_count: int, body: VMClockBody) -> None:
    """What ClockBound's writer left gives the body that it was given."""
    with SegmentReader(vectors / "clockbound-writer" / name) as reader:
        snapshot = reader.snapshot()
    assert (snapshot.seq_count, snapshot.size, snapshot.body) == (seq_count, 104, body)


def test_snapshot_is_of_this_moment(segment_path: Path) -> None:
    """Each snapshot shows the last commit, and earlier snapshots do not change."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody(disruption_marker=1))
        with SegmentReader(segment_path) as reader:
            first = reader.snapshot()
            writer.write(VMClockBody(disruption_marker=2))
            second = reader.snapshot()
    assert (first.seq_count, first.body.disruption_marker) == (2, 1)
    assert (second.seq_count, second.body.disruption_marker) == (4, 2)


def test_seq_count_0_is_a_number(segment_path: Path, make_page: MakePage) -> None:
    """A device may begin at seq_count 0 with version 1: that is a snapshot, not an empty page."""
    segment_path.write_bytes(make_page(seq_count=0, body=PACKED))
    with SegmentReader(segment_path) as reader:
        assert (reader.seq_count, reader.snapshot().seq_count, reader.snapshot().body) == (0, 0, BODY)


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ({"version": 0}, SegmentNotInitializedError),
        ({"version": 7}, SegmentVersionNotSupportedError),
        ({"magic": 7}, SegmentMalformedError),
        ({"size": 7}, SegmentMalformedError),
        ({"size": 5000}, SegmentMalformedError),
    ],
)
def test_header_is_checked_again_on_every_read(
    segment_path: Path, make_page: MakePage, header: dict[str, int], error: type[SegmentError]
) -> None:
    """A page that changes under a reader into something else is refused as it would be on opening."""
    segment_path.write_bytes(make_page())
    with SegmentReader(segment_path) as reader, segment_path.open("r+b", buffering=0) as file:
        reader.snapshot()
        file.write(make_page(seq_count=4, **header))
        with pytest.raises(error):
            reader.snapshot()
        file.seek(0)
        file.write(make_page(seq_count=6, body=PACKED))
        assert reader.snapshot().body == BODY


def test_page_that_stays_odd_is_given_up_in_time(segment_path: Path, make_page: MakePage) -> None:
    """After 100 ms SegmentUnstableError says that seq_count stayed odd; no earlier body is served."""
    segment_path.write_bytes(make_page(seq_count=2, body=PACKED))
    with SegmentReader(segment_path) as reader, segment_path.open("r+b", buffering=0) as file:
        assert reader.snapshot().body == BODY
        file.write(make_page(seq_count=3, body=PACKED))
        start = time.monotonic()
        given_up = pytest.raises(SegmentUnstableError, match="stayed odd at 3")
        with builtin_calls() as called, given_up as caught:
            reader.snapshot()
        taken = time.monotonic() - start
    assert caught.value.seq_count == 3
    assert caught.value.path == str(segment_path)
    assert taken >= 0.1
    assert called.count(time.sleep) <= 501  # 0.2 ms each, however long others had the processor


@contextmanager
def restless(path: Path) -> Iterator[None]:
    """A thread that moves seq_count from one odd number to the next, for the length of the block."""
    stop = threading.Event()

    def move() -> None:
        with path.open("r+b", buffering=0) as file:
            seq_count = 3
            while not stop.is_set():
                os.pwrite(file.fileno(), struct.pack("<I", seq_count), 12)
                seq_count = (seq_count + 2) % 2**32

    thread = threading.Thread(target=move)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_page_that_keeps_moving_is_given_up_in_time(segment_path: Path, make_page: MakePage) -> None:
    """After 100 ms of a writer that is never at rest the error says that seq_count kept moving."""
    segment_path.write_bytes(make_page(seq_count=1))
    with SegmentReader(segment_path) as reader, restless(segment_path):
        start = time.monotonic()
        with builtin_calls() as called, pytest.raises(SegmentUnstableError, match="kept moving"):
            reader.snapshot()
        taken = time.monotonic() - start
    assert taken >= 0.1
    assert called.count(time.sleep) <= 501


def test_closed_reader_refuses_to_read(segment_path: Path, make_page: MakePage) -> None:
    """snapshot() and seq_count raise SegmentError after close, which may be called again."""
    segment_path.write_bytes(make_page())
    before = open_descriptors()
    with SegmentReader(segment_path) as reader:
        pass
    reader.close()
    assert not open_descriptors() - before
    with pytest.raises(SegmentError, match="the reader is closed"):
        reader.snapshot()
    with pytest.raises(SegmentError, match="the reader is closed"):
        _ = reader.seq_count


def test_sample_is_a_snapshot_and_the_counter_then(segment_path: Path, make_page: MakePage) -> None:
    """sample() gives what snapshot() gives, and a raw counter value from between its beginning and its end."""
    segment_path.write_bytes(make_page(body=PACKED))
    allowed = os.sched_getaffinity(0)
    with SegmentReader(segment_path) as reader:
        os.sched_setaffinity(0, {min(allowed)})  # counters of two processors may be some ticks apart
        try:
            before = _core.counter()
            snapshot, ticks = reader.sample()
            after = _core.counter()
        finally:
            os.sched_setaffinity(0, allowed)
        assert snapshot == reader.snapshot()
    assert before <= ticks <= after
