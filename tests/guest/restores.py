"""What is checked in the guest about restores: the machine is restored twice from one snapshot, and notices.

``@snapshot`` asks the host to save the machine and to restore it. After ``@called INCARNATION`` the host restores it
from the same snapshot once more, and compares what the two lives say; then this life goes on.
"""

import platform
import sys
import time
from pathlib import Path
from typing import Final

import anyio

from guest.checks import run, say
from vmclock_async import Publisher, Snapshot, Source, open_clock, report_disruption
from vmclock_device import DeviceSettings, DeviceSource
from vmclock_told import ToldSettings, ToldSource
from vmclock_vmgenid import VmgenidSettings, VmgenidSource
from vmclock_vmgenid.uevents import Uevents

DEVICE: Final = Path("/dev/vmclock0")
SEGMENT: Final = Path("/run/restores/segment")
RESUMED_AFTER_S: Final = 1.0
"""The time that a hook takes to begin after the machine was resumed."""


async def noticed_by(*, hook: bool = False, **sources: Source) -> str:
    """Be restored twice while these sources publish; how it was noticed."""
    called = anyio.Event()
    seen: list[Snapshot] = []

    async def restored(snapshot: Snapshot) -> None:
        seen.append(snapshot)
        called.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Publisher(SEGMENT, sources).run)
        while not SEGMENT.exists() or SEGMENT.read_bytes()[8:10] != b"\1\0":
            await anyio.sleep(0.01)
        async with open_clock(SEGMENT, fence=None, on_restore=[restored]) as clock:
            while not clock.restores_are_seen:
                await anyio.sleep(0.01)
            before, first = clock.incarnation, clock.snapshot().body
            say("@snapshot")
            if hook:
                await anyio.sleep(RESUMED_AFTER_S)
                await report_disruption(SEGMENT, restored=True, reason="the guest's hook")
            await called.wait()
            while clock.incarnation == before:
                await anyio.sleep(0.001)
            say(f"@called {clock.incarnation}")
            await anyio.sleep(3)  # the first life ends here
            assert len(seen) == 1, seen
            body = seen[0].body
            assert body.disruption_marker != first.disruption_marker, (first, body)
        tasks.cancel_scope.cancel()
    for path in SEGMENT.parent.iterdir():
        path.unlink()
    return f"marker {first.disruption_marker} to {body.disruption_marker}"


async def by_vmgenid() -> str:
    """A restore is noticed with vmgenid alone, by the kernel's log"""
    return await noticed_by(vmgenid=VmgenidSource(VmgenidSettings()))


async def by_told() -> str:
    """A restore is noticed with told alone, where a hook reports it"""
    return await noticed_by(hook=True, told=ToldSource(ToldSettings()))


async def by_device() -> str:
    """A restore is noticed with the device alone"""
    return await noticed_by(device=DeviceSource(DeviceSettings()), told=ToldSource(ToldSettings(restores=False)))


async def uevents() -> str:
    """Whether this kernel sends a uevent after a restore; noticed without the log if it does"""
    with Uevents() as events:
        say("@snapshot")
        with anyio.move_on_after(3) as waited:
            await events.receive()
        say(f"@called {time.time_ns()}")
        await anyio.sleep(3)
    return "it sends none" if waited.cancelled_caught else "NEW_VMGENID=1"


async def main() -> int:
    """Run every check; how many failed."""
    say(f"restores: Linux {platform.release()}")
    return await run((by_vmgenid, by_told, uevents, *([by_device] if DEVICE.exists() else ())))


if __name__ == "__main__":
    sys.exit(1 if anyio.run(main) else 0)
