"""Print a clock's first status and its events, as the user whose number is the argument; see ``open_clock()``."""

import sys

import anyio
import anyio.to_thread

from nobody import become_nobody
from vmclock_async import open_clock
from vmclock_async.abi import name_of
from vmclock_async.events import StatusChanged


async def main() -> None:
    await anyio.to_thread.run_sync(int)  # imports what opening a clock needs
    become_nobody(int(sys.argv[1]))
    async with open_clock() as clock, clock.events() as events:
        print(name_of((await clock.wait_bounded()).status), clock.path, flush=True)
        while True:
            event = await events.receive()
            print(name_of(event.after) if isinstance(event, StatusChanged) else type(event).__name__, flush=True)


anyio.run(main)
