"""Runs an ntp source in a test, at another pace than with servers that are not the test's own."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import vmclock_ntp.server
import vmclock_ntp.source
from kit.notes import Notes, bounds
from kit.ntp import NtpResponder, Truth
from kit.waits import BOUND_S
from vmclock_async import BodyUpdate
from vmclock_async.timebase import pair
from vmclock_ntp import NtpSettings, NtpSource

LEAST_PAUSE_S = 0.02


def quicken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses of hundredths of a second in place of seconds."""
    monkeypatch.setattr(vmclock_ntp.server, "LEAST_PAUSE_S", LEAST_PAUSE_S)
    monkeypatch.setattr(vmclock_ntp.server, "_PAUSE_S", 0.03)
    monkeypatch.setattr(vmclock_ntp.server, "_LONGEST_PAUSE_S", 0.05)
    monkeypatch.setattr(vmclock_ntp.source, "_SAY_EVERY_S", 0.01)


def source_of(*servers: NtpResponder, **options: Any) -> NtpSource:
    """A source that asks *servers*."""
    return NtpSource(NtpSettings(servers=tuple(server.name for server in servers), **options))


@asynccontextmanager
async def running(source: NtpSource, notes: Notes) -> AsyncIterator[None]:
    """*source* running, and cancelled at the end of the block."""
    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.run, notes)
            yield
            tasks.cancel_scope.cancel()


def contains_truth(update: BodyUpdate, truth: Truth) -> bool:
    """Whether *update*'s interval contains true time now."""
    now = pair(time.CLOCK_REALTIME)
    found = bounds(update, now.counter_ticks)
    return found.earliest_ns <= truth(now.clock_ns) + now.window_ticks and (
        truth(now.clock_ns) - now.window_ticks <= found.latest_ns
    )
