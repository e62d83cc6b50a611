"""Read a clock, hold a lease, and see both refused once the kernel no longer trusts the counter."""

import sys
import time
from pathlib import Path

import anyio

from vmclock_async import Clock, CounterNotSupportedError, LeaseLostError


async def main(path: str, clocksource: Path) -> None:
    """Print what was given, and then what refused."""
    with Clock(path, fence=None) as clock:
        clock.now()
        print("told")
        try:
            async with clock.lease(100) as lease:
                clocksource.write_text("hpet\n")
                give_up = time.monotonic() + 20
                while time.monotonic() < give_up:
                    lease.check()
                    await anyio.sleep(0.01)
        except LeaseLostError:
            print("lost")
        give_up = time.monotonic() + 20
        try:
            while time.monotonic() < give_up:
                clock.now()
        except CounterNotSupportedError:
            print("refused")


anyio.run(main, sys.argv[1], Path(sys.argv[2]))
