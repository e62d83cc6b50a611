"""What is checked in the guest about restores: the machine is restored twice from one snapshot, and notices.

``@snapshot`` asks the host to save the machine and to restore it. After ``@called INCARNATION`` the host restores it
from the same snapshot once more, and compares what the two lives say; then this life goes on.
"""

import os
import platform
import sys
import time
from pathlib import Path
from typing import Final

import anyio

from guest.checks import error_of, run, say
from vmclock_async import Clock, Publisher, Snapshot, Source, open_clock, report_disruption
from vmclock_async.restore import step_system_clock
from vmclock_async.testing import PlayedSegment
from vmclock_device import DeviceSettings, DeviceSource
from vmclock_told import ToldSettings, ToldSource
from vmclock_vmgenid import VmgenidSettings, VmgenidSource
from vmclock_vmgenid.uevents import Uevents

DEVICE: Final = Path("/dev/vmclock0")
SEGMENT: Final = Path("/run/restores/segment")
THREE_DAYS_NS: Final = 3 * 86400 * 10**9
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


async def sets_the_clock() -> str:
    """CLOCK_REALTIME is set from a segment that is three days ahead, once, and by nobody without the privilege"""
    with PlayedSegment("/run") as machine, Clock(machine.path, fence=None) as clock:
        machine.step(THREE_DAYS_NS)
        os.seteuid(65534)
        try:
            refused = error_of(lambda: step_system_clock(clock, independent=True))
        finally:
            os.seteuid(0)
        assert "CAP_SYS_TIME" in refused, refused
        before_ns, monotonic_ns = time.time_ns(), time.monotonic_ns()
        done = step_system_clock(clock, independent=True)
        moved_ns = time.time_ns() - before_ns - (time.monotonic_ns() - monotonic_ns)
        assert done.stepped, done
        assert abs(moved_ns - THREE_DAYS_NS) < 10**9, moved_ns
        machine.step(-THREE_DAYS_NS)  # it measures with CLOCK_REALTIME, which has been set
        again = step_system_clock(clock, independent=True)
        assert not again.stepped, again
        time.clock_settime_ns(time.CLOCK_REALTIME, time.time_ns() - THREE_DAYS_NS)
    return f"set by {moved_ns / 1e9:.3f} s, and then left alone; {refused}"


async def main() -> int:
    """Run every check; how many failed."""
    say(f"restores: Linux {platform.release()}")
    return await run((sets_the_clock, by_vmgenid, by_told, uevents, *([by_device] if DEVICE.exists() else ())))


if __name__ == "__main__":
    sys.exit(1 if anyio.run(main) else 0)
