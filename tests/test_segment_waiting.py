"""How a reader waits for a change, on every event loop.

Where a test is about inotify, the poll interval is so long that only the watch can have woken the reader in time.
"""

import asyncio
import json
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from kit.segment_files import BODY, PACKED
from kit.told_world import open_descriptors
from kit.waits import BOUND_S, until_waits
from vmclock_async import (
    SegmentReader,
    SegmentWriter,
    Snapshot,
    VMClockBody,
    _core,
)
from vmclock_async.errors import (
    SegmentError,
    SegmentMalformedError,
)

NEVER_S = 3600.0
"""A poll interval that ends no test's wait."""


MakePage = Callable[..., bytes]


RunScript = Callable[..., str]


# Waiting.


@pytest.fixture
def writer(segment_path: Path) -> Iterator[SegmentWriter]:
    """A writer that has committed once: seq_count is 2."""
    with SegmentWriter(segment_path) as opened:
        opened.write(VMClockBody(disruption_marker=1))
        yield opened


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
                    await until_waits(reader, waits + 1)
                    assert seen == []
                    writer.write(BODY)
                assert seen == [after]


@pytest.mark.anyio
@pytest.mark.parametrize("poll_interval", [0.05, NEVER_S])
@pytest.mark.parametrize("waiters", [1, 3])
async def test_path_made_anew_is_a_change_whatever_its_number(
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
            await until_waits(reader, waiters)
            segment_path.unlink()
            # While there is nothing, or nothing committed, it goes on waiting.
            await until_waits(reader, reader.statistics().waits + 2 * waiters)
            with SegmentWriter(segment_path) as writer:
                await until_waits(reader, reader.statistics().waits + 2 * waiters)
                assert seen == []
                assert writer.write(BODY) == 2
        assert reader.statistics().reopened >= 1
        assert reader.snapshot().inode == segment_path.stat().st_ino
    assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(2, BODY)] * waiters
    assert {snapshot.inode for snapshot in seen} == {segment_path.stat().st_ino}
    assert old_inode != segment_path.stat().st_ino


@pytest.mark.anyio
@pytest.mark.parametrize("waiters", [1, 3])
async def test_path_renamed_over_is_a_change_at_once(
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
            await until_waits(reader, waiters)
            replacement.rename(segment_path)
        assert [(snapshot.seq_count, snapshot.body) for snapshot in seen] == [(2, BODY)] * waiters
        with SegmentWriter(segment_path) as writer:
            async with anyio.create_task_group() as tasks:
                seen.clear()
                waits = reader.statistics().waits
                tasks.start_soon(follow, reader)
                await until_waits(reader, waits + 1)
                writer.write(VMClockBody())
        assert [snapshot.seq_count for snapshot in seen] == [4]
        assert reader.statistics().watching


@pytest.mark.anyio
async def test_replacement_that_one_waiter_finds_is_a_change_for_all(
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
            await until_waits(reader, 1)
            tasks.start_soon(follow, reader, 0.01)
            await until_waits(reader, 3)
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
async def test_path_replaced_by_no_segment_is_an_error(segment_path: Path, make_page: MakePage) -> None:
    """Waiting does not hide that the path now leads to something that is no segment."""
    segment_path.write_bytes(make_page(seq_count=2))
    garbage = segment_path.with_name("garbage")
    garbage.write_bytes(b"x" * 200)
    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        garbage.rename(segment_path)
        with pytest.raises(SegmentMalformedError, match="magic"):
            await reader.wait_changed(2)


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


@pytest.mark.anyio
async def test_path_that_leads_away_for_a_moment_is_no_change(
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
            await until_waits(reader, 2)
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
            await until_waits(reader, 1)
            await anyio.to_thread.run_sync(anyio.run, close, reader)
            writer.write(BODY)
    assert [snapshot.seq_count for snapshot in seen] == [4]


@pytest.mark.anyio
async def test_cancelled_wait_leaves_nothing_behind(writer: SegmentWriter) -> None:
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
                    await until_waits(reader, cancelled + 1)
                    watching = watching or open_descriptors()
                    tasks.cancel_scope.cancel()
                assert open_descriptors() == watching
            assert seen == []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, reader)
                await until_waits(reader, 11)
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
                await until_waits(reader, 3)
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
async def test_time_limit_of_asyncio_ends_a_wait(writer: SegmentWriter) -> None:
    """asyncio's own time-out and cancellation work on a wait, and the next wait is as good as new."""
    with SegmentReader(writer.path) as reader:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await reader.wait_changed(2, poll_interval=NEVER_S)
        waits = reader.statistics().waits  # none, where the time was over before it went to sleep
        task = asyncio.create_task(reader.wait_changed(2, poll_interval=NEVER_S))
        async with asyncio.timeout(BOUND_S):
            await until_waits(reader, waits + 1)
            writer.write(BODY)
            assert (await task).seq_count == 4


@pytest.mark.anyio
async def test_snapshot_says_of_which_file_the_number_is(segment_path: Path) -> None:
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
