"""What a reader makes of whatever is at its path, and how it waits for a change.

Opening and snapshots are synchronous. Waiting is tested on every event loop; where a test is about inotify, the
poll interval is so long that only the watch can have woken the reader in time.
"""

import asyncio
import json
import os
import random
import resource
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from kit.calls import builtin_calls
from kit.told_world import open_descriptors
from kit.waits import BOUND_S
from vmclock_async import (
    ClockStatus,
    CounterId,
    SegmentReader,
    SegmentWriter,
    Snapshot,
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

NEVER_S = 3600.0
"""A poll interval that ends no test's wait."""
BODY = VMClockBody(disruption_marker=5, clock_status=ClockStatus.SYNCHRONIZED, time_sec=1_700_000_000)
PACKED = BODY.pack()

MakePage = Callable[..., bytes]
RunScript = Callable[..., str]


async def until_waiting(reader: SegmentReader, waits: int) -> None:
    """Return once tasks have gone to sleep on *reader* as often as *waits*."""
    while reader.statistics().waits < waits:  # counted in the step that goes to sleep
        await anyio.sleep(0.001)


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
    assert open_descriptors() == before


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
def test_a_header_that_is_not_usable_is_refused(
    segment_path: Path, make_page: MakePage, header: dict[str, int], error: type[SegmentError], message: str
) -> None:
    """Checked in the order magic, version, size; the error names what was seen, and leaks nothing."""
    segment_path.write_bytes(make_page(**header))
    before = open_descriptors()
    with pytest.raises(SegmentError, match=message) as caught:
        SegmentReader(segment_path)
    assert type(caught.value) is error
    assert open_descriptors() == before


@pytest.mark.parametrize("length", [16, 50, 103])
def test_a_header_alone_is_not_enough(segment_path: Path, make_page: MakePage, length: int) -> None:
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


def test_a_segment_that_may_not_be_read_is_refused(
    run_script: RunScript, segment_path: Path, make_page: MakePage
) -> None:
    """No permission: a SegmentError, not one that speaks of the content, with the remedy."""
    segment_path.write_bytes(make_page())
    segment_path.chmod(0)
    name, message = json.loads(run_script("denied_reader", segment_path))
    assert name == "SegmentError"
    assert message.startswith(f"{segment_path}: may not be read by this user; ")
    assert "udev" in message


def test_a_lack_of_descriptors_is_not_blamed_on_the_segment(segment_path: Path, make_page: MakePage) -> None:
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


def restart_of_clockbound(path: Path, header: bytes, body: bytes) -> None:
    """Its cold start, in the same file: cut, lay out by one write, then commit as seq_count 2."""
    with path.open("wb", buffering=0) as file:
        file.write(header + bytes(88))
    with path.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), body, 16)
        os.pwrite(file.fileno(), struct.pack("<HBBI", 1, *header[10:12], 2), 8)


CALLS_OF_OPENING = ("open", "fstat", "pread", "fstat")


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", range(len(CALLS_OF_OPENING)))
@pytest.mark.parametrize("made", [made_by_us, made_elsewhere])
@pytest.mark.parametrize("begun", ["nothing", "empty", "104 bytes"])
def test_a_segment_may_be_made_or_grown_while_it_is_opened(
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
def test_a_captured_page_is_read_like_a_segment(vectors: Path, name: str, seq_count: int, marker: int) -> None:
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
def test_a_segment_of_clockbound_is_read(vectors: Path, name: str, seq_count: int, body: VMClockBody) -> None:
    """What ClockBound's writer left gives the body that it was given."""
    with SegmentReader(vectors / "clockbound-writer" / name) as reader:
        snapshot = reader.snapshot()
    assert (snapshot.seq_count, snapshot.size, snapshot.body) == (seq_count, 104, body)


def test_a_snapshot_is_of_this_moment(segment_path: Path) -> None:
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
def test_the_header_is_checked_again_on_every_read(
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


def test_a_page_that_stays_odd_is_given_up_in_time(segment_path: Path, make_page: MakePage) -> None:
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


def test_a_page_that_keeps_moving_is_given_up_in_time(segment_path: Path, make_page: MakePage) -> None:
    """After 100 ms of a writer that is never at rest the error says that seq_count kept moving."""
    segment_path.write_bytes(make_page(seq_count=1))
    with SegmentReader(segment_path) as reader, restless(segment_path):
        start = time.monotonic()
        with builtin_calls() as called, pytest.raises(SegmentUnstableError, match="kept moving"):
            reader.snapshot()
        taken = time.monotonic() - start
    assert taken >= 0.1
    assert called.count(time.sleep) <= 501


def test_a_closed_reader_refuses_to_read(segment_path: Path, make_page: MakePage) -> None:
    """snapshot() and seq_count raise SegmentError after close, which may be called again."""
    segment_path.write_bytes(make_page())
    before = open_descriptors()
    with SegmentReader(segment_path) as reader:
        pass
    reader.close()
    assert open_descriptors() == before
    with pytest.raises(SegmentError, match="the reader is closed"):
        reader.snapshot()
    with pytest.raises(SegmentError, match="the reader is closed"):
        _ = reader.seq_count


def test_a_sample_is_a_snapshot_and_the_counter_then(segment_path: Path, make_page: MakePage) -> None:
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


# Waiting.


@pytest.fixture
def writer(segment_path: Path) -> Iterator[SegmentWriter]:
    """A writer that has committed once: seq_count is 2."""
    with SegmentWriter(segment_path) as opened:
        opened.write(VMClockBody(disruption_marker=1))
        yield opened


@pytest.mark.anyio
async def test_a_commit_wakes_a_waiting_reader(writer: SegmentWriter) -> None:
    """A reader that has seen seq_count N gets nothing until N + 2 is committed, and then at once, by inotify."""
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader, seq_count: int) -> None:
        seen.append(await reader.wait_changed(seq_count, poll_interval=NEVER_S))

    with SegmentReader(writer.path) as reader, anyio.fail_after(BOUND_S):
        assert not reader.statistics().watching
        for marker in (2, 3, 4):
            seen.clear()
            async with anyio.create_task_group() as tasks:
                waits = reader.statistics().waits
                tasks.start_soon(follow, reader, writer.seq_count)
                await until_waiting(reader, waits + 1)
                assert seen == []
                assert reader.statistics().watching
                assert reader.statistics().polling_because is None
                writer.write(VMClockBody(disruption_marker=marker))
            assert [snapshot.body.disruption_marker for snapshot in seen] == [marker]
            assert seen[0].seq_count == writer.seq_count


@pytest.mark.anyio
async def test_a_commit_of_another_process_wakes(
    start_script: Callable[..., "subprocess.Popen[str]"], segment_path: Path, make_page: MakePage
) -> None:
    """The watch hears of commits through another process's mapping."""
    segment_path.write_bytes(make_page(seq_count=2))
    other = start_script("write_markers", segment_path)
    assert other.stdout is not None
    assert other.stdin is not None
    assert other.stdout.readline() == "open\n"
    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            seen: list[Snapshot] = []

            async def follow() -> None:
                seen.append(await reader.wait_changed(2, poll_interval=NEVER_S))

            tasks.start_soon(follow)
            await until_waiting(reader, 1)
            other.stdin.write("9\n")
            other.stdin.flush()
    assert [(snapshot.seq_count, snapshot.body.disruption_marker) for snapshot in seen] == [(4, 9)]


@pytest.mark.anyio
async def test_another_number_returns_without_waiting(writer: SegmentWriter) -> None:
    """A commit that is already there is returned, whether its number is above or below the one given."""
    with SegmentReader(writer.path) as reader, anyio.fail_after(BOUND_S):
        for seen in (0, 4, 3, 0xFFFFFFFE):
            assert (await reader.wait_changed(seen, poll_interval=NEVER_S)).seq_count == 2
        assert reader.statistics().waits == 0


@pytest.mark.anyio
async def test_what_is_there_already_needs_no_watch(writer: SegmentWriter) -> None:
    """A commit that came before the wait is returned without a watch, a thread or a descriptor."""
    with SegmentReader(writer.path) as reader:
        before, threads = open_descriptors(), threading.active_count()
        await reader.wait_changed(0, poll_interval=NEVER_S)
        assert (open_descriptors(), threading.active_count()) == (before, threads)
        assert not reader.statistics().watching


def test_no_program_is_run_to_watch(run_script: RunScript, writer: SegmentWriter) -> None:
    """inotify is the loaded C library's: a root that is read-only, without ldconfig, compiler and /tmp, is enough."""
    assert run_script("audited_wait", writer.path) == "True\n"


@pytest.mark.anyio
async def test_waiting_is_always_a_checkpoint(writer: SegmentWriter) -> None:
    """A cancelled task is stopped in wait_changed even where there is something to return."""
    with SegmentReader(writer.path) as reader:
        await reader.wait_changed(0)  # the first call also sets up the watch, which is a checkpoint of its own
        for seen in (0, 2):
            returned = False
            with anyio.CancelScope() as scope:
                scope.cancel()
                await reader.wait_changed(seen)
                returned = True
            assert scope.cancelled_caught
            assert not returned


@pytest.mark.anyio
async def test_every_waiter_is_woken(writer: SegmentWriter) -> None:
    """One watch serves all tasks that wait on one reader, those too that remain when the first has given up."""
    seen: list[int] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append((await reader.wait_changed(2, poll_interval=NEVER_S)).seq_count)

    with SegmentReader(writer.path) as reader, anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            with anyio.CancelScope() as first:
                async with anyio.create_task_group() as leaving:
                    leaving.start_soon(follow, reader)
                    await until_waiting(reader, 1)
                    before = open_descriptors()
                    for _ in range(3):
                        tasks.start_soon(follow, reader)
                    await until_waiting(reader, 4)
                    first.cancel()
            await anyio.wait_all_tasks_blocked()  # one of them has taken its place
            assert seen == []
            assert open_descriptors() == before
            writer.write(BODY)
    assert seen == [4, 4, 4]


@pytest.mark.anyio
async def test_who_gives_up_wakes_one_and_not_all(writer: SegmentWriter) -> None:
    """Of many that wait, each with a time of its own, none looks more often for there being others."""
    waiters, rounds, patience_s = 30, 15, 0.02
    gave_up = 0

    async def wait(reader: SegmentReader) -> None:
        nonlocal gave_up
        while True:
            with anyio.move_on_after(patience_s):
                await reader.wait_changed(2, poll_interval=NEVER_S)
            gave_up += 1

    with SegmentReader(writer.path) as reader:
        async with anyio.create_task_group() as tasks:
            for _ in range(waiters):
                tasks.start_soon(wait, reader)
                await anyio.sleep(patience_s / waiters)
            while gave_up < waiters * rounds:
                await anyio.sleep(patience_s)
            tasks.cancel_scope.cancel()
        # Each looks when it begins, and at most one more for each that gives up.
        assert reader.statistics().waits <= 2 * gave_up + waiters


@pytest.mark.anyio
async def test_seq_count_0_may_have_been_seen(segment_path: Path, make_page: MakePage) -> None:
    """0 is waited on like any number, and returned like any number, across the wrap too."""
    segment_path.write_bytes(make_page(seq_count=0xFFFFFFFE))
    with SegmentWriter(segment_path) as writer, SegmentReader(segment_path) as reader:
        with anyio.fail_after(BOUND_S):
            for before, after in ((0xFFFFFFFE, 0), (0, 2)):
                async with anyio.create_task_group() as tasks:
                    seen: list[int] = []

                    async def follow(number: int, found: list[int] = seen) -> None:
                        found.append((await reader.wait_changed(number, poll_interval=NEVER_S)).seq_count)

                    waits = reader.statistics().waits
                    tasks.start_soon(follow, before)
                    await until_waiting(reader, waits + 1)
                    assert seen == []
                    writer.write(BODY)
                assert seen == [after]


@pytest.mark.anyio
@pytest.mark.parametrize("poll_interval", [0.05, NEVER_S])
@pytest.mark.parametrize("waiters", [1, 3])
async def test_a_path_made_anew_is_a_change_whatever_its_number(
    segment_path: Path, make_page: MakePage, waiters: int, poll_interval: float
) -> None:
    """Every waiter gets the segment of the new inode, though it has the number they have all seen, and soon."""
    segment_path.write_bytes(make_page(seq_count=2))
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=poll_interval))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        old_inode = reader.snapshot().inode
        async with anyio.create_task_group() as tasks:
            for _ in range(waiters):
                tasks.start_soon(follow, reader)
            await until_waiting(reader, waiters)
            segment_path.unlink()
            # While there is nothing, or nothing committed, it goes on waiting.
            await until_waiting(reader, reader.statistics().waits + 2 * waiters)
            with SegmentWriter(segment_path) as writer:
                await until_waiting(reader, reader.statistics().waits + 2 * waiters)
                assert seen == []
                assert writer.write(BODY) == 2
        assert reader.statistics().reopened >= 1
        assert reader.snapshot().inode == segment_path.stat().st_ino
    assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(2, BODY)] * waiters
    assert {snapshot.inode for snapshot in seen} == {segment_path.stat().st_ino}
    assert old_inode != segment_path.stat().st_ino


@pytest.mark.anyio
@pytest.mark.parametrize("waiters", [1, 3])
async def test_a_path_renamed_over_is_a_change_at_once(
    segment_path: Path, make_page: MakePage, waiters: int
) -> None:
    """Another segment moved over the path wakes every waiter by inotify, and later commits to it do so too."""
    segment_path.write_bytes(make_page(seq_count=2))
    replacement = segment_path.with_name("replacement")
    replacement.write_bytes(make_page(seq_count=2, body=PACKED))
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=NEVER_S))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(waiters):
                tasks.start_soon(follow, reader)
            await until_waiting(reader, waiters)
            replacement.rename(segment_path)
        assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(2, BODY)] * waiters
        with SegmentWriter(segment_path) as writer:
            async with anyio.create_task_group() as tasks:
                seen.clear()
                waits = reader.statistics().waits
                tasks.start_soon(follow, reader)
                await until_waiting(reader, waits + 1)
                writer.write(VMClockBody())
        assert [snapshot.seq_count for snapshot in seen] == [4]
        assert reader.statistics().watching


@pytest.mark.anyio
async def test_a_replacement_that_one_waiter_finds_is_a_change_for_all(
    segment_path: Path, make_page: MakePage
) -> None:
    """A task that slept while another opened the new file gets it too, whatever its number."""
    segment_path.write_bytes(make_page(seq_count=2))
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader, poll_interval: float) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=poll_interval))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        segment_path.unlink()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, reader, NEVER_S)
            await until_waiting(reader, 1)
            tasks.start_soon(follow, reader, 0.01)
            await until_waiting(reader, 3)
            replacement = segment_path.with_name("replacement")
            replacement.write_bytes(make_page(seq_count=2, body=PACKED))
            replacement.rename(segment_path)
        assert reader.statistics().reopened == 1
    assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(2, BODY)] * 2


@pytest.mark.long
@pytest.mark.anyio
async def test_no_waking_is_lost(segment_path: Path) -> None:
    """Each commit wakes every task before the next, though tasks are cancelled and segments replaced at random."""
    chance = random.Random(1)
    seen = [0] * 4
    rounds = 200

    async def follow(task: int, reader: SegmentReader) -> None:
        snapshot = reader.snapshot()
        while (number := snapshot.body.counter_value) < rounds:
            seen[task] = number
            with anyio.move_on_after(chance.choice([0, 0.001, NEVER_S, NEVER_S])):
                snapshot = await reader.wait_changed(snapshot, poll_interval=NEVER_S)
        seen[task] = number

    with ExitStack() as stack, anyio.fail_after(2 * BOUND_S):
        writer = stack.enter_context(SegmentWriter(segment_path))
        writer.write(VMClockBody())
        reader = stack.enter_context(SegmentReader(segment_path))
        async with anyio.create_task_group() as tasks:
            for task in range(len(seen)):
                tasks.start_soon(follow, task, reader)
            for number in range(1, rounds + 1):
                if chance.random() < 0.1:
                    writer.close()
                    segment_path.unlink()
                    await anyio.sleep(chance.choice([0, 0.001]))
                    writer = stack.enter_context(SegmentWriter(segment_path))
                    await anyio.sleep(chance.choice([0, 0.001]))
                writer.write(VMClockBody(counter_value=number))
                while min(seen) < number:
                    await anyio.sleep(0.0002)
        assert reader.statistics().reopened > 10


@pytest.mark.anyio
async def test_a_path_replaced_by_no_segment_is_an_error(segment_path: Path, make_page: MakePage) -> None:
    """Waiting does not hide that the path now leads to something that is no segment."""
    segment_path.write_bytes(make_page(seq_count=2))
    garbage = segment_path.with_name("garbage")
    garbage.write_bytes(b"x" * 200)
    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        garbage.rename(segment_path)
        with pytest.raises(SegmentMalformedError, match="magic"):
            await reader.wait_changed(2)


@pytest.mark.anyio
async def test_a_commit_cut_short_is_waited_out(segment_path: Path, make_page: MakePage) -> None:
    """While seq_count is odd a waiter sleeps; the writer that repairs it wakes the waiter."""
    segment_path.write_bytes(make_page(seq_count=3))
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=NEVER_S))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, reader)
            await until_waiting(reader, 1)
            with SegmentWriter(segment_path) as writer:
                assert seen == []
                writer.write(BODY)
    assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(4, BODY)]


@pytest.mark.anyio
async def test_a_cold_start_in_place_is_waited_out(segment_path: Path, make_page: MakePage) -> None:
    """While version is 0 a waiter sleeps, though seq_count has moved; the first commit wakes it."""
    segment_path.write_bytes(make_page(seq_count=2))
    os.utime(segment_path, ns=(0, 0))  # of an earlier boot
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=NEVER_S))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            with SegmentWriter(segment_path) as writer:
                assert writer.seq_count == 4
                tasks.start_soon(follow, reader)
                await until_waiting(reader, 1)
                assert seen == []
                writer.write(BODY)
    assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(6, BODY)]


@pytest.mark.anyio
async def test_writers_that_wake_nobody_are_polled(segment_path: Path, make_page: MakePage) -> None:
    """A commit without a sign, as ClockBound's writer makes it, is found at the next look."""
    segment_path.write_bytes(make_page(seq_count=2))
    fd = os.open(segment_path, os.O_RDWR | os.O_CLOEXEC)
    page = _core.Page(fd, writable=True)
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=0.01))

    try:
        with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, reader)
                await until_waiting(reader, 3)
                assert seen == []
                page.commit(PACKED, None, None)
    finally:
        page.close()
    assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(4, BODY)]


@pytest.mark.anyio
async def test_a_path_that_leads_away_for_a_moment_is_no_change(
    writer: SegmentWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found to lead elsewhere, opened again, and it is the same file: then the wait goes on."""
    monkeypatch.setattr(SegmentReader, "is_replaced", lambda reader: True)
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2))

    with SegmentReader(writer.path) as reader, anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, reader)
            await until_waiting(reader, 2)
            writer.write(BODY)
    assert [snapshot.seq_count for snapshot in seen] == [4]


@pytest.mark.anyio
async def test_closing_from_another_threads_loop_is_refused(writer: SegmentWriter) -> None:
    """Its loop knows nothing of who waits: nothing is closed, and the waiter is woken as ever."""
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=NEVER_S))

    async def close(reader: SegmentReader) -> None:
        with pytest.raises(RuntimeError, match="another thread"):
            reader.close()

    with SegmentReader(writer.path) as reader, anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, reader)
            await until_waiting(reader, 1)
            await anyio.to_thread.run_sync(anyio.run, close, reader)
            writer.write(BODY)
    assert [snapshot.seq_count for snapshot in seen] == [4]


@pytest.mark.anyio
async def test_a_cancelled_wait_leaves_nothing_behind(writer: SegmentWriter) -> None:
    """No descriptor stays for it, and the next wait is woken as if it had never been."""
    seen: list[int] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append((await reader.wait_changed(2, poll_interval=NEVER_S)).seq_count)

    before = open_descriptors()
    with anyio.fail_after(BOUND_S):
        with SegmentReader(writer.path) as reader:
            watching: set[str] = set()
            for cancelled in range(10):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(follow, reader)
                    await until_waiting(reader, cancelled + 1)
                    watching = watching or open_descriptors()
                    tasks.cancel_scope.cancel()
                assert open_descriptors() == watching
            assert seen == []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, reader)
                await until_waiting(reader, 11)
                writer.write(BODY)
            assert seen == [4]
        assert open_descriptors() == before


@pytest.mark.anyio
@pytest.mark.parametrize("poll_interval", [NEVER_S, 0.01])
async def test_closing_ends_every_wait(writer: SegmentWriter, poll_interval: float) -> None:
    """Tasks that wait on a reader that is closed get a SegmentError, and the watch goes."""
    reasons: list[str] = []

    async def follow(reader: SegmentReader) -> None:
        with pytest.raises(SegmentError, match="the reader is closed") as caught:
            await reader.wait_changed(2, poll_interval=poll_interval)
        reasons.append(caught.value.reason)

    before = open_descriptors()
    reader = SegmentReader(writer.path)
    try:
        with anyio.fail_after(BOUND_S):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(follow, reader)
                await until_waiting(reader, 3)
                reader.close()
            assert len(reasons) == 3
            with pytest.raises(SegmentError, match="the reader is closed"):
                await reader.wait_changed(0)
    finally:
        reader.close()
    assert open_descriptors() == before


@pytest.mark.anyio
async def test_closing_while_the_watch_is_set_up_ends_the_wait(writer: SegmentWriter) -> None:
    """A reader may be closed at any moment of a wait's beginning: a SegmentError, and no descriptor stays."""

    async def follow(reader: SegmentReader) -> None:
        with pytest.raises(SegmentError, match="the reader is closed"):
            await reader.wait_changed(2, poll_interval=NEVER_S)

    before = open_descriptors()
    with anyio.fail_after(BOUND_S):
        for steps in range(12):
            async with anyio.create_task_group() as tasks:
                reader = SegmentReader(writer.path)
                tasks.start_soon(follow, reader)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                reader.close()
            assert open_descriptors() == before


def test_without_an_inotify_instance_readers_poll(
    run_script: RunScript, segment_path: Path, make_page: MakePage, anyio_backend: tuple[str, dict[str, object]]
) -> None:
    """A user whose instances are all taken waits by polling; statistics() say why, and the log does so once."""
    segment_path.write_bytes(make_page(seq_count=2))
    segment_path.parent.chmod(0o777)
    if os.geteuid() == 0:
        os.chown(segment_path, 65534, 65534)
    printed = run_script("wait_without_inotify", segment_path, json.dumps(anyio_backend))
    reason = "no inotify watch: Too many open files"
    logged = ["WARNING", f"{segment_path}: a waiting reader looks for changes at intervals ({reason})"]
    assert json.loads(printed) == [[4, 4], False, reason, [logged]]


@pytest.mark.asyncio
async def test_a_time_limit_of_asyncio_ends_a_wait(writer: SegmentWriter) -> None:
    """asyncio's own time-out and cancellation work on a wait, and the next wait is as good as new."""
    with SegmentReader(writer.path) as reader:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await reader.wait_changed(2, poll_interval=NEVER_S)
        waits = reader.statistics().waits  # none, where the time was over before it went to sleep
        task = asyncio.create_task(reader.wait_changed(2, poll_interval=NEVER_S))
        async with asyncio.timeout(BOUND_S):
            await until_waiting(reader, waits + 1)
            writer.write(BODY)
            assert (await task).seq_count == 4


@pytest.mark.anyio
async def test_a_snapshot_says_of_which_file_the_number_is(segment_path: Path) -> None:
    """A task that was busy while another opened the new file learns of it, though the number is the same."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody(disruption_marker=1))
    with SegmentReader(segment_path) as reader, anyio.fail_after(5):
        seen = reader.snapshot()
        segment_path.unlink()
        with SegmentWriter(segment_path) as writer:
            writer.write(VMClockBody(disruption_marker=2))
        first = await reader.wait_changed(seen)
        second = await reader.wait_changed(seen)
    assert first == second
    assert (first.seq_count, first.body.disruption_marker) == (seen.seq_count, 2)


def commit_of(body: VMClockBody, **constants: int) -> Callable[[Path, bytes], None]:
    """A new writer of ours, whatever is there."""

    def commit(path: Path, page: bytes) -> None:
        with SegmentWriter(path) as writer:
            writer.write(body, **constants)

    return commit


def after(prepare: Callable[[Path, bytes], object]) -> Callable[[Path, bytes], None]:
    """A new writer of ours, where *prepare* was done to the path before."""

    def commit(path: Path, page: bytes) -> None:
        prepare(path, page)
        commit_of(VMClockBody(counter_value=1))(path, page)

    return commit


def overwrite(**header: int) -> Callable[[Path, bytes], None]:
    """The page's header becomes another's, in place."""
    base = {"seq_count": 2, "version": 1, "size": 104, "magic": 0x4B4C4356} | header

    def write(path: Path, page: bytes) -> None:
        head = struct.pack("<IIHxxI", base["magic"], base["size"], base["version"], base["seq_count"])
        with path.open("r+b", buffering=0) as file:
            file.write(head)

    return write


def clockbound(body: bytes, constants: bytes = bytes(2)) -> Callable[[Path, bytes], None]:
    """A cold start of ClockBound's writer in the same file, with the number that was there."""
    header = struct.pack("<IIH", 0x4B4C4356, 104, 0) + constants + bytes(4)
    return lambda path, page: restart_of_clockbound(path, header, body)


OTHER = VMClockBody(counter_value=1)
ROWS = {
    "nothing there": after(lambda path, page: path.unlink()),
    "usable": commit_of(OTHER),
    "usable, the same body": commit_of(VMClockBody()),
    "usable, other constants": commit_of(VMClockBody(), counter_id=1),
    "left odd": after(overwrite(seq_count=3)),
    "left odd before": after(overwrite(seq_count=1)),
    "another version": after(overwrite(version=2)),
    "version 0": after(overwrite(version=0)),
    "version 0, begun again": after(overwrite(version=0, seq_count=0)),
    "an earlier boot": after(lambda path, page: os.utime(path, ns=(0, 0))),
    "smaller than asked for": after(lambda path, page: SegmentWriter(path, size=112).close()),
    "garbage": after(overwrite(magic=7, seq_count=2)),
    "ClockBound's, another body": clockbound(OTHER.pack()),
    "ClockBound's, another marker": clockbound(VMClockBody(disruption_marker=1).pack()),
    "ClockBound's, other constants": clockbound(bytes(88), b"\1\0"),
    "ClockBound's, another timescale": clockbound(bytes(88), b"\0\1"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("waits", [False, True], ids=["before", "during"])
@pytest.mark.parametrize("row", ROWS)
async def test_a_start_of_a_writer_is_a_change_whatever_its_number(
    segment_path: Path, make_page: MakePage, row: str, waits: bool
) -> None:
    """However the next writer begins: who has the snapshot from before gets the first commit that differs, and soon."""
    page = make_page(seq_count=2)
    segment_path.write_bytes(page)
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader, snapshot: Snapshot) -> None:
        seen.append(await reader.wait_changed(snapshot, poll_interval=0.01))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        snapshot = reader.snapshot()
        async with anyio.create_task_group() as tasks:
            if waits:
                tasks.start_soon(follow, reader, snapshot)
                await until_waiting(reader, 1)
            ROWS[row](segment_path, page)
            tasks.start_soon(follow, reader, snapshot)
    with SegmentReader(segment_path) as fresh:
        now = fresh.snapshot()
    assert seen == [now.model_copy(update={"opened": seen[0].opened})] * (1 + waits)
    assert seen[0] != snapshot


@pytest.mark.anyio
async def test_the_same_page_again_is_no_change(segment_path: Path, make_page: MakePage) -> None:
    """A file written over with what it holds, and a snapshot that another reader took, are what was seen."""
    segment_path.write_bytes(make_page(seq_count=2, body=PACKED))
    with SegmentReader(segment_path) as other:
        snapshot = other.snapshot()
    with SegmentReader(segment_path) as reader:
        with segment_path.open("r+b") as file:
            file.write(make_page(seq_count=2, body=PACKED))
        with anyio.move_on_after(0.05) as scope:
            await reader.wait_changed(snapshot, poll_interval=0.01)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_cancelling_never_loses_a_replacement(segment_path: Path) -> None:
    """Cancelled anywhere in opening the new file: the next wait returns it, though the number is the same."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody(disruption_marker=1))
    with SegmentReader(segment_path) as reader:
        for marker in range(2, 60):
            seen = reader.snapshot()
            segment_path.unlink()
            with SegmentWriter(segment_path) as writer:
                writer.write(VMClockBody(disruption_marker=marker))
            snapshot = None
            with anyio.move_on_after(marker * 1e-5):
                snapshot = await reader.wait_changed(seen.seq_count)
            if snapshot is None:
                with anyio.fail_after(5):
                    snapshot = await reader.wait_changed(seen.seq_count)
            assert snapshot.body.disruption_marker == marker


@pytest.mark.anyio
@pytest.mark.parametrize("poll_interval", [0, -1, float("nan")])
async def test_poll_interval_must_be_positive(segment_path: Path, poll_interval: float) -> None:
    """Anything else would spin."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody())
    with SegmentReader(segment_path) as reader, pytest.raises(ValueError, match="poll_interval"):
        await reader.wait_changed(2, poll_interval=poll_interval)
