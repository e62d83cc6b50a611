"""How a reader waits for a change, on every event loop.

Where a test is about inotify, the poll interval is so long that only the watch can have woken the reader in time.
"""

import errno
import json
import os
import random
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from kit.forks import Started
from kit.mounts import in_own_mounts
from kit.programs import path_of
from kit.segment_files import BODY, PACKED
from kit.stand_ins import preloaded
from kit.told_world import open_descriptors
from kit.waits import BOUND_S, until_waits
from vmclock_async import SegmentReader, SegmentWriter, Snapshot, VMClockBody, _core

NEVER_S = 3600.0
"""A poll interval that ends no test's wait."""
MakePage = Callable[..., bytes]
RunScript = Callable[..., str]


@pytest.mark.anyio
async def test_commit_wakes_a_waiting_reader(writer: SegmentWriter) -> None:
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
                await until_waits(reader, waits + 1)
                assert seen == []
                assert reader.statistics().watching
                assert reader.statistics().polling_because is None
                writer.write(VMClockBody(disruption_marker=marker))
            assert [snapshot.body.disruption_marker for snapshot in seen] == [marker]
            assert seen[0].seq_count == writer.seq_count


@pytest.mark.anyio
async def test_commit_of_another_process_wakes(
    start_script: Callable[..., Started], segment_path: Path, make_page: MakePage
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
            await until_waits(reader, 1)
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
        assert not open_descriptors() - before
        assert threading.active_count() <= threads  # those of tests before may end meanwhile
        assert not reader.statistics().watching


def test_no_program_is_run_to_watch(run_script: RunScript, writer: SegmentWriter) -> None:
    """inotify is the loaded C library's: a root that is read-only, without ldconfig, compiler and /tmp, is enough."""
    assert run_script("audited_wait", writer.path) == "True\n"


def test_read_only_root_is_no_reason_to_poll(writer: SegmentWriter) -> None:
    """The same, seen: a root and a /tmp that nobody may write, and no program that could be found by its name."""
    bare = (
        "for place in / /tmp; do ! mountpoint -q $place || mount -o remount,bind,ro $place; done",
        "for place in / /tmp; do if touch $place/x 2>/dev/null; then exit 3; fi; done",
        "PATH=",
    )
    command = [*in_own_mounts(*bare), path_of("audited_wait"), str(writer.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


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
                    await until_waits(reader, 1)
                    before = open_descriptors()
                    for _ in range(3):
                        tasks.start_soon(follow, reader)
                    await until_waits(reader, 4)
                    first.cancel()
            await anyio.wait_all_tasks_blocked()  # one of them has taken its place
            assert seen == []
            assert not open_descriptors() - before
            writer.write(BODY)
    assert seen == [4, 4, 4]


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
                    await until_waits(reader, waits + 1)
                    assert seen == []
                    writer.write(BODY)
                assert seen == [after]


@pytest.mark.long
@pytest.mark.anyio
async def test_no_waking_is_lost(segment_path: Path) -> None:
    """Each commit wakes every task before the next, though tasks are cancelled at random and segments replaced."""
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
                if number % 10 == 0:
                    writer.close()
                    segment_path.unlink()
                    await anyio.sleep(chance.choice([0, 0.001]))
                    writer = stack.enter_context(SegmentWriter(segment_path))
                    await anyio.sleep(chance.choice([0, 0.001]))
                writer.write(VMClockBody(counter_value=number))
                while min(seen) < number:
                    await anyio.sleep(0.0002)
        assert reader.statistics().reopened == rounds // 10


@pytest.mark.anyio
async def test_commit_cut_short_is_waited_out(segment_path: Path, make_page: MakePage) -> None:
    """While seq_count is odd a waiter sleeps; the writer that repairs it wakes the waiter."""
    segment_path.write_bytes(make_page(seq_count=3))
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader) -> None:
        seen.append(await reader.wait_changed(2, poll_interval=NEVER_S))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, reader)
            await until_waits(reader, 1)
            with SegmentWriter(segment_path) as writer:
                assert seen == []
                writer.write(BODY)
    assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(4, BODY)]


@pytest.mark.anyio
async def test_cold_start_in_place_is_waited_out(segment_path: Path, make_page: MakePage) -> None:
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
                await until_waits(reader, 1)
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
                await until_waits(reader, 3)
                assert seen == []
                page.commit(PACKED, None, None)
    finally:
        page.close()
    assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(4, BODY)]


def test_without_an_inotify_instance_readers_poll(
    run_script: RunScript,
    segment_path: Path,
    make_page: MakePage,
    refusing: Path,
    anyio_backend: tuple[str, dict[str, object]],
) -> None:
    """A user whose instances are all taken waits by polling; statistics() say why, and the log does so once.

    Only this one process is refused, because other tests of this user need instances meanwhile.
    """
    segment_path.write_bytes(make_page(seq_count=2))
    environment = {**preloaded(refusing), "INOTIFY_ERRNO": str(errno.EMFILE)}
    printed = run_script("wait_without_inotify", segment_path, json.dumps(anyio_backend), environment=environment)
    reason = "no inotify watch: Too many open files"
    logged = ["WARNING", f"{segment_path}: a waiting reader looks for changes at intervals ({reason})"]
    assert json.loads(printed) == [[4, 4], False, reason, [logged]]
