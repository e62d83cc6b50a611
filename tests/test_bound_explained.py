"""What wait_bounded() says while there is no bound, on a clock that is played."""

import logging
from collections.abc import Callable

import anyio
import pytest
import trio
import trio.testing

from kit.told_world import World
from vmclock_async import Clock, ClockStatus


def said_in(seconds: float, world: World, caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the log says while a task waits *seconds* of played time for a bound."""

    async def main() -> None:
        with Clock(world.path, fence=None) as clock, anyio.move_on_after(seconds):
            await clock.wait_bounded()

    with caplog.at_level(logging.INFO, "vmclock_async.clock"):
        trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return [record.getMessage() for record in caplog.records if record.name == "vmclock_async.clock"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("happen", "reason"),
    [
        pytest.param(
            lambda world: world.tell(clock_status=ClockStatus.UNKNOWN), "clock_status is UNKNOWN", id="status"
        ),
        pytest.param(World.stop_in_mid_commit, "seq_count stayed odd", id="unreadable"),
    ],
)
def test_wait_bounded_says_once_why_it_waits(
    world: World, caplog: pytest.LogCaptureFixture, happen: Callable[[World], object], reason: str
) -> None:
    """Nothing in the first five seconds, and then one warning with the reason, however long the wait goes on."""
    happen(world)
    assert said_in(4.5, world, caplog) == []
    (said,) = said_in(8, world, caplog)
    assert said.startswith(f"{world.path}: no bounded time for 5 s, and the wait for it goes on: ")
    assert reason in said
