"""Test of a program that must step down on a migration: ``pytest examples/test_step_down.py``."""

import anyio
import trio.testing

from vmclock_async import Clock, LeaseLostError
from vmclock_async.testing import ManualClock


async def lead(clock: Clock, acts: list[float]) -> None:
    """The program: a leader who acts once a second, as long as its lease is held."""
    try:
        async with clock.lease(10) as lease:
            while True:
                await anyio.sleep(1)
                lease.renew()
                acts.append(anyio.current_time())
    except LeaseLostError as exc:
        print(exc)


def test_leader_steps_down_on_a_migration() -> None:
    """The leader acts for ten minutes, in no time. Then the machine is migrated while the publisher is stopped."""
    acts: list[float] = []

    async def main() -> None:
        with ManualClock() as clock:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(lead, clock, acts)
                await anyio.sleep(600.5)
                clock.freeze()
                clock.migrate()
            assert len(acts) == 600
            assert anyio.current_time() < 601

    anyio.run(main, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})
