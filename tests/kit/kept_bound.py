"""A follower of ClockBound's segment in a world whose true time is known, and its clients' view.

CLOCK_REALTIME is a test's where it has to be wrong or set; all else is real.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio

from kit.clockbound import FREERUNNING, SYNCHRONIZED, Client
from kit.told_world import World, true_ns
from kit.waits import BOUND_S, until
from vmclock_async import Clock, _core
from vmclock_async.clockbound import ErrorBoundFollower, Followed
from vmclock_async.clockbound._following import SystemClocks

_SLEW_PPM: Final = 500


class PlayedClocks(SystemClocks):
    """The machine's clocks, with CLOCK_REALTIME off by ``off_ns``."""

    off_ns = 0

    def realtime_ns(self) -> int:
        return super().realtime_ns() + self.off_ns


class Kept:
    """A follower that runs, its clients' view, and what it reported."""

    def __init__(self, segment_path: Path, clock: Clock, **options: Any) -> None:
        self.clocks = PlayedClocks()
        self.directory = segment_path.parent / "clockbound"
        self.path = self.directory / "shm0"
        self.told: list[Followed] = []
        options = {"max_slew_ppm": _SLEW_PPM, "clocks": self.clocks, "on_change": self.told.append, **options}
        self.follower = ErrorBoundFollower(clock, self.directory, **options)

    @property
    def statuses(self) -> list[str]:
        return [followed.bound.status.name for followed in self.told]

    def answer_is_right(self, client: Client) -> bool:
        """Whether a client's answer contains the truth; it must be bounded."""
        before = _core.counter()
        answer = client.now(realtime_ns=self.clocks.realtime_ns())
        after = _core.counter()
        assert answer.status in (SYNCHRONIZED, FREERUNNING)
        return answer.earliest <= true_ns(after) and true_ns(before) <= answer.latest

    def is_off_ns(self) -> float:
        """How far the clock is off, or a little more."""
        before_ns, realtime_ns = true_ns(_core.counter()), self.clocks.realtime_ns()
        return float(max(realtime_ns - before_ns, true_ns(_core.counter()) - realtime_ns))


@asynccontextmanager
async def keeping(
    world: World, *, fence: Path | None = None, **options: Any
) -> AsyncIterator[tuple[Kept, Client]]:
    """A follower of *world*, once a client can read a time from it."""
    with Clock(world.path, fence=fence) as clock:
        kept = Kept(world.path, clock, **options)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.follower.run)
            await until(lambda: kept.told)
            client = Client(kept.path, device=fence)
            yield kept, client
            client.close()
            tasks.cancel_scope.cancel()


async def error_of(run: Callable[[], Awaitable[None]]) -> Exception:
    """What *run* raises, out of the groups around it."""
    try:
        with anyio.fail_after(BOUND_S):
            await run()
    except Exception as exc:
        error = exc
        while isinstance(error, ExceptionGroup):
            (error,) = error.exceptions
        return error
    raise AssertionError("it raised nothing")
