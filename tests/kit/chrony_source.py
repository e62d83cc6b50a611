"""Runs a chrony source in a test, and keeps what it says."""

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from kit.adjtimex import AdjtimexStandIn
from kit.played_chronyd import PlayedChronyd
from vmclock_async import (
    BodyUpdate,
    CounterId,
    TimeType,
    VMClockBody,
)
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import COUNTER_ID, pair
from vmclock_chrony import ChronySettings, ChronySource

BOUND_S = 20.0
"""Longest time that a test may wait, on a machine that is busy with others."""


class Notes:
    """An ``Emit`` that keeps what it is given."""

    def __init__(self) -> None:
        self.epoch = 0
        self.updates: list[BodyUpdate] = []
        self.epochs: list[int | None] = []

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        self.updates.append(update)
        self.epochs.append(epoch)

    @property
    def statuses(self) -> list[int | None]:
        """Each status, but once where it stays the same."""
        told = [update.clock_status for update in self.updates]
        return [status for number, status in enumerate(told) if number == 0 or told[number - 1] != status]


def settings(address: object, **options: Any) -> ChronySettings:
    return ChronySettings(**{"address": str(address), "poll_interval": 0.005, **options})


@asynccontextmanager
async def running(source: ChronySource, notes: Notes) -> AsyncIterator[None]:
    """*source* running, and cancelled at the end of the block."""
    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.run, notes)
            yield
            tasks.cancel_scope.cancel()


async def until(holds: Callable[[], bool]) -> None:
    """Until it *holds*; other tasks make it so."""
    while not holds():
        await anyio.sleep(0.002)


def contains_realtime(update: BodyUpdate) -> bool:
    contents = Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC).updated(update)
    now = pair(time.CLOCK_REALTIME)
    found = bounds_at(contents, now.counter_ticks, counter_id=COUNTER_ID)
    return found.earliest_ns <= now.clock_ns <= found.latest_ns


UPDATES = """
import anyio, sys
from vmclock_chrony import ChronySettings, ChronySource

class Emit:
    epoch = 0
    left = int(sys.argv[2])
    async def __call__(self, update, *, epoch=None):
        print(update.model_dump_json(exclude_unset=True), flush=True)
        self.left -= 1
        if not self.left:
            tasks.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint()

async def main():
    global tasks
    async with anyio.create_task_group() as tasks:
        await ChronySource(ChronySettings(address=sys.argv[1], poll_interval=float(sys.argv[3]))).run(Emit())

anyio.run(main)
"""


def under(
    clock: AdjtimexStandIn,
    run_script: Callable[..., str],
    chronyd: PlayedChronyd,
    *,
    count: int = 1,
    interval: float = 1,
) -> list[dict[str, Any]]:
    """The first *count* updates of a source in a process whose kernel has that *clock*."""
    output = run_script(UPDATES, chronyd.address, count, interval, environment=clock.environment)
    return [json.loads(line) for line in output.splitlines()]
