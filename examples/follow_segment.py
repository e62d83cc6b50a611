"""Follow a segment, and print each change.

python examples/follow_segment.py SEGMENT [--changes 20] [--seconds 60]
"""

import argparse
import asyncio
import sys

from vmclock_async import ClockStatus, Flags, SegmentReader, Snapshot, VMClockError


def news(before: Snapshot, after: Snapshot) -> str:
    """What happened between two looks: the markers show it, however many commits were missed in between."""
    found = []
    if before.body.disruption_marker != after.body.disruption_marker:
        found.append("the counter was disrupted: what was derived from it is void")
    generations = before.body.vm_generation_counter, after.body.vm_generation_counter
    if None not in generations and generations[0] != generations[1]:
        found.append("the machine was restored: make new keys, ids and connections")
    if before.opened != after.opened:
        found.append("the segment was replaced")
    if after.body.flags & ~before.body.flags & Flags.DISRUPTION_IMMINENT:
        found.append("a disruption is announced")
    return "; ".join(found)


def line(snapshot: Snapshot, found: str) -> str:
    """One line for *snapshot*."""
    status = snapshot.body.clock_status
    name = status.name if isinstance(status, ClockStatus) else status  # a newer ABI may have others
    return (
        f"seq_count={snapshot.seq_count} marker={snapshot.body.disruption_marker} status={name} {found}".rstrip()
    )


async def main(path: str, changes: int, seconds: float) -> None:
    """Print the segment at *path*, then its next *changes* changes, but end after *seconds*."""
    with SegmentReader(path) as reader:
        snapshot = reader.snapshot()
        print(line(snapshot, ""))
        try:
            async with asyncio.timeout(seconds):
                for _ in range(changes):
                    before, snapshot = snapshot, await reader.wait_changed(snapshot)
                    print(line(snapshot, news(before, snapshot)))
        except TimeoutError:
            print(f"{seconds:g} s are over")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Follow a segment.")
    parser.add_argument("segment")
    parser.add_argument("--changes", type=int, default=20, help="end after so many")
    parser.add_argument("--seconds", type=float, default=60, help="end after so long")
    arguments = parser.parse_args()
    try:
        asyncio.run(main(arguments.segment, arguments.changes, arguments.seconds))
    except VMClockError as exc:
        sys.exit(f"follow_segment: {exc}")
