"""Waiting in tests, for a bounded time: for other tasks, for what they or other processes do, for a clock."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.lowlevel

from vmclock_async import Clock, SegmentError, SegmentReader, VMClockError
from vmclock_async.events import Bounded, Disrupted, EventStream, Unbounded

BOUND_S: Final = 20.0
"""Longest time that a test may wait, on a machine that is busy with others."""


async def settled() -> None:
    """Let the other tasks go on until they wait.

    Not ``wait_all_tasks_blocked()``: on asyncio that looks every 100 ms, and who polls every 50 ms may be awake each
    time, for seconds.
    """
    for _ in range(50):
        await anyio.lowlevel.checkpoint()


async def until(holds: Callable[[], object]) -> None:
    """Return once it *holds*: another task, thread or process makes it so."""
    with anyio.fail_after(BOUND_S):
        while not holds():
            await anyio.sleep(0.001)


def eventually(found: Callable[[], Any], *, pause_s: float = 0.001) -> Any:
    """What *found* returns once that is true: another thread or process makes it so; *pause_s* is between two looks."""
    end = time.monotonic() + BOUND_S
    while not (result := found()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(pause_s)
    return result


def is_committed(path: Path, commits: int = 1) -> bool:
    """Whether *commits* have been made at *path*, where there may be no segment yet."""
    try:
        with SegmentReader(path) as reader:
            return reader.snapshot().seq_count >= 2 * commits
    except SegmentError:
        return False


async def until_waiting(clock: Clock, tasks: int = 1) -> None:
    """Return once *tasks* more have gone to sleep on the segment."""
    waits = clock.statistics().waits
    while clock.statistics().waits < waits + tasks:
        await anyio.lowlevel.checkpoint()


async def until_waits(reader: SegmentReader, waits: int) -> None:
    """Return once tasks have gone to sleep on *reader* as often as *waits*."""
    await until(lambda: reader.statistics().waits >= waits)  # counted in the step that goes to sleep


@asynccontextmanager
async def meanwhile(clock: Clock, wait: Callable[[], Awaitable[object]]) -> AsyncIterator[list[object]]:
    """Runs *wait* beside the block, which begins once it sleeps; at the block's end it must return in time.

    What it returned, or raised, is in the list then.
    """
    outcome: list[object] = []

    async def run() -> None:
        try:
            outcome.append(await wait())
        except VMClockError as exc:
            outcome.append(exc)

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until_waiting(clock)
            yield outcome


async def disruption(events: EventStream) -> Disrupted:
    """The next event other than those of the bound, which must be a disruption."""
    while isinstance(event := await events.receive(), Unbounded | Bounded):
        continue
    assert isinstance(event, Disrupted)
    return event
