"""Waiting in terms of a clock: until the next page, for a time, or until the device's marker moves."""

import time
from contextlib import closing

import anyio
import anyio.lowlevel
import pytest

from kit.told_world import World
from kit.waits import BOUND_S, until_waiting
from vmclock_async import Clock, SegmentError
from vmclock_async._reading.segment_feed import SegmentFeed
from vmclock_async.testing import ManualClock

pytestmark = pytest.mark.anyio


async def test_wait_for_a_time_sleeps_once(world: World) -> None:
    """A timer that fires a little early, as uvloop's do, is not set again and again until the time has come."""
    with closing(SegmentFeed(world.path, fence=None, trust_writable=False)) as feed:
        seen, _ = feed.sample(0)
        for _ in range(20):
            assert await feed.wait(seen, 0.0104) is None
        assert feed.statistics().waits <= 20 + 2  # a poll of 50 ms may come between


async def test_wait_with_a_fence_looks_at_it_at_intervals(world: World) -> None:
    """It sleeps for 50 ms at a time, and no more often."""
    with closing(SegmentFeed(world.path, fence=world.device, trust_writable=False)) as feed:
        seen, _ = feed.sample(0)
        assert await feed.wait(seen, 0.52, fence_seen=1) is None
        assert feed.statistics().waits <= 11
        world.device_says(2)
        assert await feed.wait(seen, BOUND_S, fence_seen=1) is None


@pytest.mark.parametrize("turns", range(6))
@pytest.mark.parametrize("played", [True, False])
async def test_task_that_is_cancelled_as_its_clock_is_closed_was_cancelled(
    world: World, turns: int, played: bool
) -> None:
    """Also where a commit has just woken it, so that it finds the clock closed before the cancellation reaches it."""
    outcome: list[str] = []

    async def wait(clock: Clock) -> None:
        try:
            async with clock.events() as events:
                await events.receive()
        except SegmentError as exc:
            outcome.append(str(exc))

    with ManualClock() if played else Clock(world.path, fence=None) as clock:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait, clock)
            await until_waiting(clock)
            clock.regain_sync() if isinstance(clock, ManualClock) else world.tell()
            time.sleep(0.005)  # noqa: ASYNC251 - the loop finds the task's descriptor ready when it looks next
            for _ in range(turns):
                await anyio.lowlevel.checkpoint()
            tasks.cancel_scope.cancel()
            clock.close()
    assert outcome == []
