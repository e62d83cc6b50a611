"""What waits while the fence's device is in mid-update, longer than a synchronous method would wait."""

import os
import struct
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from kit.calls import builtin_calls
from kit.told_world import World
from vmclock_async import Clock, LeaseLostError, SegmentUnstableError, Snapshot

_SEQ_COUNT_OFFSET = 12


def set_device_seq_count(world: World, seq_count: int) -> None:
    """Let the device's page say *seq_count*, which is odd in mid-update."""
    with world.device.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), struct.pack("<I", seq_count), _SEQ_COUNT_OFFSET)


def test_lease_begins_once_the_devices_update_has_ended(world: World) -> None:
    """A lease that is asked for in mid-update is given after it, and does not fail."""
    held: list[int] = []

    async def main() -> None:
        async def hold() -> None:
            async with clock.lease(30) as lease:
                lease.check()
                held.append(lease.token)

        with Clock(world.path, fence=world.device) as clock:
            set_device_seq_count(world, 3)
            async with trio.open_nursery() as tasks:
                tasks.start_soon(hold)
                await trio.testing.wait_all_tasks_blocked()
                assert not held
                set_device_seq_count(world, 4)
                played.autojump_threshold = 0

    played = trio.testing.MockClock()  # time stands still until the update has ended: nobody gives up
    trio.run(main, clock=played)
    assert held


async def hold_lease(clock: Clock) -> None:
    """Hold a lease for ever, unless this machine is so busy that the update lasts too long for it."""
    with suppress(LeaseLostError, SegmentUnstableError):
        async with clock.lease(30):
            await anyio.sleep_forever()


async def await_restores(clock: Clock) -> None:
    """Have a callback for ever, with the same exception."""

    async def do_nothing(_: Snapshot) -> None:
        pass

    with suppress(SegmentUnstableError):
        async with clock.on_restore(do_nothing):
            await anyio.sleep_forever()


@pytest.mark.anyio
@pytest.mark.parametrize("wait", [hold_lease, await_restores])
@pytest.mark.parametrize("before", [False, True], ids=["later", "from-the-beginning"])
async def test_devices_update_never_blocks_the_loop(
    world: World, fenced: Clock, wait: Callable[[Clock], Coroutine[Any, Any, None]], before: bool
) -> None:
    """No async method calls time.sleep(): each reads the device once, and awaits."""
    sleeps = 0
    async with anyio.create_task_group() as tasks:
        if before:
            set_device_seq_count(world, 3)
        tasks.start_soon(wait, fenced)
        with builtin_calls() as called:
            while not fenced.statistics().waits and not before:
                await anyio.lowlevel.checkpoint()
            set_device_seq_count(world, 3)
            world.tell()
            for _ in range(200):
                called.clear()
                await anyio.lowlevel.checkpoint()
                sleeps += called.count(time.sleep)
        set_device_seq_count(world, 4)
        tasks.cancel_scope.cancel()
    assert sleeps == 0
