"""Fork a process with a reader that waits, and wait in both."""

import asyncio
import os
import sys
import warnings
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from vmclock_async import SegmentReader, SegmentWriter, VMClockBody

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from 3.12 on
reader, writer = SegmentReader(sys.argv[1]), SegmentWriter(sys.argv[1])
how = sys.argv[2]
loop = asyncio.new_event_loop() if how == "same" else None


def run(call: Callable[..., Awaitable[int | None]], *args: int) -> int | None:
    if loop:
        return loop.run_until_complete(call(*args))
    return anyio.run(call, *args, backend="trio" if how == "trio" else "asyncio")


async def follow(number: int, tell: int) -> int:
    with anyio.fail_after(20):
        waits = reader.statistics().waits

        async def told() -> None:
            while reader.statistics().waits == waits:
                await anyio.sleep(0.001)
            os.write(tell, b".")

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(told)
            snapshot = await reader.wait_changed(number, poll_interval=3600)
        assert reader.statistics().watching, reader.statistics()
        return snapshot.seq_count


async def give_up() -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(reader.wait_changed, 2, poll_interval=3600))
        while not reader.statistics().waits:
            await anyio.sleep(0.001)
        tasks.cancel_scope.cancel()


run(give_up)
assert reader.statistics().watching or not loop  # a loop that is gone has no watch
told, tell = os.pipe()
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        assert not reader.statistics().watching  # nobody has waited in this process
        os._exit(0 if run(follow, 2, tell) == 4 else 1)
    children.append(child)
    os.read(told, 1)
writer.write(VMClockBody(counter_value=1))  # the children wait, and the parent has waited
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
child = os.fork()
if not child:
    reader.close()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0


async def both() -> int:  # what the child closed was its own
    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.wait_changed, 4)
            await anyio.sleep(0.01)
            writer.write(VMClockBody(counter_value=2))
    return (await reader.wait_changed(4)).seq_count


assert run(both) == 6
if loop:
    loop.close()
