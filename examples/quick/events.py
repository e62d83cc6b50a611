"""Print seven things that happen to the machine: python examples/quick/events.py"""

import anyio

from vmclock_async import open_clock


async def main() -> None:
    async with open_clock() as clock, clock.events() as events:
        for _ in range(7):
            print(await events.receive(), flush=True)  # Disrupted, Restored, StatusChanged, ...


anyio.run(main)
