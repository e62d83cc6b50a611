"""Waiting for a descriptor: woken, timed out, cancelled or closed, nothing stays in the loop; on every event loop."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from io import FileIO
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing
import uvloop

from kit.waits import until
from vmclock_async._segment.descriptor import Readable

LONG_S = 30.0
"""A wait that lasts so long has not been woken."""
ASYNCIO = [
    pytest.param(("asyncio", {"use_uvloop": use}), id="uvloop" if use else "asyncio") for use in (False, True)
]


class Waited:
    """What is waited for: an eventfd, and a count of how often it was found readable."""

    def __init__(self) -> None:
        self.file = FileIO(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))
        self.found = 0
        self.also: Callable[[], object] = lambda: None
        """Done when it is found."""
        self.readable = Readable(self.file, self.find)

    def find(self) -> None:
        self.found += 1
        self.also()

    def make_ready(self) -> None:
        os.eventfd_write(self.file.fileno(), 1)


@pytest.fixture
def waited() -> Iterator[Waited]:
    waited = Waited()
    yield waited
    waited.file.close()


def has_reader(fd: int) -> bool:
    """Whether asyncio's loop had *fd*; now it has it no more."""
    return asyncio.get_running_loop().remove_reader(fd)


@pytest.mark.anyio
async def test_wakes_and_reads_what_is_there(waited: Waited) -> None:
    """Each readiness wakes once: what has been told is not told again."""
    with anyio.fail_after(5):
        for times in range(1, 4):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(waited.readable.wait, LONG_S)
                await anyio.wait_all_tasks_blocked()
                waited.make_ready()
            assert waited.found == times
        assert not await waited.readable.wait(0.01)


@pytest.mark.anyio
async def test_ready_before_the_wait_is_found(waited: Waited) -> None:
    """Nothing is lost between two waits."""
    waited.make_ready()
    with anyio.fail_after(5):
        assert await waited.readable.wait(LONG_S)


@pytest.mark.anyio
async def test_waits_again_in_the_same_turn(waited: Waited) -> None:
    """A task that was woken for nothing waits on at once, and is woken by the next."""
    results: list[bool] = []

    async def wait_twice() -> None:
        results.append(await waited.readable.wait(LONG_S))
        results.append(await waited.readable.wait(LONG_S))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_twice)
            await anyio.wait_all_tasks_blocked()
            waited.make_ready()
            await until(lambda: len(results) == 1)
            await anyio.sleep(0.01)
            assert len(results) == 1
            waited.make_ready()
    assert results == [True, True]


@pytest.mark.anyio
async def test_time_out_of_one_wait_does_not_end_the_next(waited: Waited) -> None:
    """Though that begins in the same turn."""
    results: list[bool] = []

    async def wait_twice() -> None:
        results.append(await waited.readable.wait(0.05))
        results.append(await waited.readable.wait(LONG_S))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_twice)
            await anyio.wait_all_tasks_blocked()
            if not results:  # a machine that is slow may have let the time run out by now
                waited.make_ready()
            await anyio.sleep(0.1)
            assert len(results) == 1
            waited.make_ready()
    assert results[1]


@pytest.mark.anyio
async def test_ends_in_time(waited: Waited) -> None:
    """False after the time-out, not before, time and again."""
    begun = time.monotonic()
    for _ in range(3):
        assert not await waited.readable.wait(0.02)
    assert time.monotonic() - begun >= 0.055  # uvloop counts in milliseconds
    assert waited.found == 0


@pytest.mark.parametrize("anyio_backend", ASYNCIO)
@pytest.mark.anyio
async def test_loop_has_nothing_after_a_wait(waited: Waited) -> None:
    """However it ended: at the latest a turn later."""
    fd = waited.file.fileno()
    waited.make_ready()
    await waited.readable.wait(LONG_S)
    await asyncio.sleep(0)
    assert not has_reader(fd)
    await waited.readable.wait(0.001)
    await asyncio.sleep(0)
    assert not has_reader(fd)
    with anyio.move_on_after(0.001):
        await waited.readable.wait(LONG_S)
    assert not has_reader(fd)


@pytest.mark.parametrize("late", [False, True], ids=["at once", "a call later"])
@pytest.mark.parametrize("anyio_backend", ASYNCIO)
@pytest.mark.anyio
async def test_cancelled_in_the_turn_that_wakes(waited: Waited, *, late: bool) -> None:
    """Others have been told, the loop has nothing, and the next wait is a fresh one."""
    fd = waited.file.fileno()
    with anyio.CancelScope() as scope:
        waited.also = partial(asyncio.get_running_loop().call_soon, scope.cancel) if late else scope.cancel
        waited.make_ready()
        await waited.readable.wait(LONG_S)
        await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert waited.found == 1
    await asyncio.sleep(0)
    assert not has_reader(fd)
    waited.make_ready()
    with anyio.fail_after(5):
        assert await waited.readable.wait(LONG_S)


@pytest.mark.anyio
async def test_stopping_wakes_the_task(waited: Waited) -> None:
    """With an error; and then the file may be closed."""

    async def wait() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await waited.readable.wait(LONG_S)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            waited.readable.stop()
            waited.readable.close()
            assert waited.file.closed


@pytest.mark.parametrize("anyio_backend", ASYNCIO)
@pytest.mark.anyio
async def test_closed_by_another_thread_at_once(waited: Waited) -> None:
    """The loop has it still in that turn, and a number that is given out again meanwhile must not be taken out."""
    fd = waited.file.fileno()
    waited.make_ready()
    await waited.readable.wait(LONG_S)
    thread = threading.Thread(target=waited.readable.close)
    thread.start()
    thread.join()
    assert not waited.file.closed
    await asyncio.sleep(0)
    assert waited.file.closed
    assert not has_reader(fd)


@pytest.mark.parametrize("new_event_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_one_loop_after_another(waited: Waited, new_event_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """As a program that runs several, and one that leaves a task waiting in a loop that it closes."""

    async def wait() -> None:
        waited.make_ready()
        with anyio.fail_after(5):
            assert await waited.readable.wait(LONG_S)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(wait())
    loop = new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it would tell of the task that is left
    left = loop.create_task(waited.readable.wait(LONG_S))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    asyncio.run(wait())
    trio.run(wait)
    asyncio.run(wait())
    assert not left.done()
    left.get_coro().close()


def test_trio_as_a_guest_in_asyncio(waited: Waited) -> None:
    """asyncio's loop runs there, but the task is trio's."""

    async def wait() -> None:
        async with trio.open_nursery() as tasks:
            tasks.start_soon(waited.readable.wait, LONG_S)
            await trio.testing.wait_all_tasks_blocked()
            waited.make_ready()

    async def host() -> None:
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        trio.lowlevel.start_guest_run(
            wait,
            run_sync_soon_threadsafe=asyncio.get_running_loop().call_soon_threadsafe,
            done_callback=ended.set_result,
        )
        async with asyncio.timeout(5):
            (await ended).unwrap()

    asyncio.run(host())
    assert waited.found == 1
