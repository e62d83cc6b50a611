"""Runs a chrony source in a test, and keeps what it says."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from kit.adjtimex import AdjtimexStandIn
from kit.notes import Notes
from kit.played_chronyd import PlayedChronyd
from kit.waits import BOUND_S
from vmclock_chrony import ChronySettings, ChronySource


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


def under(
    clock: AdjtimexStandIn,
    run_script: Callable[..., str],
    chronyd: PlayedChronyd,
    *,
    count: int = 1,
    interval: float = 1,
) -> list[dict[str, Any]]:
    """The first *count* updates of a source in a process whose kernel has that *clock*."""
    output = run_script("chrony_updates", chronyd.address, count, interval, environment=clock.environment)
    return [json.loads(line) for line in output.splitlines()]
