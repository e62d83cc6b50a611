"""Follow a segment, and print what happens to it.

python examples/follow_segment.py SEGMENT [--changes 20] [--seconds 60]
"""

import argparse
import sys
from functools import partial

import anyio

from vmclock_async import Snapshot, VMClockError, open_clock
from vmclock_async.abi import name_of
from vmclock_async.events import (
    Bounded,
    Disrupted,
    Event,
    LeapAnnounced,
    MaintenanceAnnounced,
    Restored,
    SegmentReplaced,
    StatusChanged,
    Unbounded,
)


def meaning(event: Event) -> str:
    """What a program should make of *event*."""
    match event:
        case Disrupted():
            return "the counter was disrupted: what was derived from it is void"
        case Restored():
            return "the machine was restored: make new keys, ids and connections"
        case StatusChanged():
            return f"the status was {name_of(event.before)}"
        case MaintenanceAnnounced():
            return "a disruption is announced"
        case LeapAnnounced():
            return f"the leap indicator is {name_of(event.indicator)}"
        case SegmentReplaced():
            return "the segment was replaced"
        case Unbounded():
            return f"there is no bounded time: {event.reason}"
        case Bounded():
            return f"there is a bounded time again: {event.interval}"


def line(snapshot: Snapshot, found: str) -> str:
    """One line for *snapshot*."""
    body = snapshot.body
    return f"seq_count={snapshot.seq_count} marker={body.disruption_marker} status={name_of(body.clock_status)} {found}"


async def main(path: str, changes: int, seconds: float) -> None:
    """Print the segment at *path*, then its next *changes* events, but end after *seconds*."""
    async with open_clock(path) as clock, clock.events() as events:
        print(line(events.snapshot, "").rstrip())
        with anyio.move_on_after(seconds) as limit:
            async for event in events:
                print(line(event.snapshot, meaning(event)))
                changes -= 1
                if changes == 0:
                    break
        if limit.cancelled_caught:
            print(f"{seconds:g} s are over")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Follow a segment.")
    parser.add_argument("segment")
    parser.add_argument("--changes", type=int, default=20, help="end after so many events")
    parser.add_argument("--seconds", type=float, default=60, help="end after so long")
    arguments = parser.parse_args()
    try:
        anyio.run(partial(main, arguments.segment, arguments.changes, arguments.seconds))
    except VMClockError as exc:
        sys.exit(f"follow_segment: {exc}")
