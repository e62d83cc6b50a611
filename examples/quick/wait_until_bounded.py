"""Act under a lease, once the time is good enough: python examples/quick/wait_until_bounded.py"""

import anyio

from vmclock_async import open_clock


async def main() -> None:
    async with open_clock() as clock:
        now = await clock.wait_bounded(max_error_ns=10**9)  # known to a second, or better
        await clock.wait_past(now)  # now that moment is certainly over
        async with clock.lease(10) as lease:  # ends after 10 s, or when the machine is migrated
            lease.check()  # before each act that others see
            print("acted with token", lease.token)


anyio.run(main)  # or asyncio.run(main()), or trio.run(main)
