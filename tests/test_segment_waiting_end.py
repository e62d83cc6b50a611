"""How a wait ends without a change: given up, cancelled, or its reader closed; on every event loop."""

import asyncio

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from kit.segment_files import BODY
from kit.told_world import open_descriptors
from kit.waits import BOUND_S, until_waits
from vmclock_async import SegmentReader, SegmentWriter, Snapshot
from vmclock_async.errors import SegmentError

NEVER_S = 3600.0
"""A poll interval that ends no test's wait."""


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
                assert not open_descriptors() - watching
            assert seen == []
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(follow, reader)
                await until_waits(reader, 11)
                writer.write(BODY)
            assert seen == [4]
        assert not open_descriptors() - before


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
    assert not open_descriptors() - before


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
            assert not open_descriptors() - before


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
