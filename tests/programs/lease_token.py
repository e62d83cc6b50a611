"""Print the token of a lease."""

import sys

import anyio

from vmclock_async import open_clock


async def main() -> None:
    async with open_clock(sys.argv[1], fence=None) as clock, clock.lease(30) as lease:
        print(lease.token)


anyio.run(main)
