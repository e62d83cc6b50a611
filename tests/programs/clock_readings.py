"""Ask a clock for a time in each way, and print what it says."""

import sys
import time
from collections.abc import Callable, Iterator

import anyio

from vmclock_async import Clock, CounterNotSupportedError


def ways(clock: Clock) -> Iterator[Callable[[], object]]:
    async def wait() -> None:
        with anyio.fail_after(10):
            await clock.wait_bounded()

    yield clock.now
    yield lambda: clock.at(counter)
    yield lambda: clock.at_monotonic(ns)
    yield lambda: anyio.run(wait)


segment, fence = sys.argv[1:3]
with Clock(segment, fence=fence or None) as clock:
    counter, ns = clock.counter_ticks(), time.monotonic_ns()
    for way in ways(clock):
        try:
            way()
            print("told")
        except CounterNotSupportedError as exc:
            print(exc)
