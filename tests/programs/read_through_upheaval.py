"""Read a segment through all that may happen to it, and judge each copy."""

import json
import os
import sys

import anyio

from vmclock_async import SegmentReader, Snapshot
from vmclock_async.errors import SegmentError

path, how = sys.argv[1:]
os.set_blocking(0, False)
seen = {"read": 0, "changes": 0, "inodes": 0}
problems: list[str] = []
numbers: dict[int, int] = {}


def told_to_end() -> bool:
    try:
        return os.read(0, 1) == b""
    except BlockingIOError:
        return False


def judge(snapshot: Snapshot) -> None:
    body = snapshot.body
    number = body.disruption_marker
    seen["read"] += 1
    if not number:
        problems.append(f"zeros at seq_count {snapshot.seq_count}")
    generation = number if body.flags & 256 else None
    if (body.counter_value, body.time_sec, body.time_maxerror_nanosec, body.vm_generation_counter) != (
        number,
        number,
        number,
        generation,
    ):
        problems.append(f"torn at seq_count {snapshot.seq_count}: {body!r}")
    last = numbers.get(snapshot.inode)
    if last is None:
        seen["inodes"] += 1
    else:
        ahead = (snapshot.seq_count - last) % 2**32
        seen["changes"] += ahead != 0
        if ahead >= 2**31:
            problems.append(f"seq_count went from {last} to {snapshot.seq_count}")
    numbers[snapshot.inode] = snapshot.seq_count
    if seen["read"] > (10 if how == "wait" else 100) and seen["changes"] > 10:
        open(f"{path}.{how}", "w").close()  # enough: a reader that saw little proves little


def look(reader: SegmentReader) -> None:
    try:
        judge(reader.snapshot())
    except SegmentError:
        seen["refused"] = seen.get("refused", 0) + 1  # not initialized, or left odd: for now


def open_again_and_again() -> None:
    while not told_to_end():
        try:
            reader = SegmentReader(path)
        except SegmentError:
            continue
        with reader:
            for _ in range(20):
                look(reader)


def is_there(reader: SegmentReader) -> bool:
    try:
        return os.stat(path).st_ino == inode_of(reader)
    except FileNotFoundError:
        return False


def inode_of(reader: SegmentReader) -> int:
    return os.fstat(reader._mapped.page.fileno()).st_ino


def stay() -> None:
    """One mapping for as long as its file is at the path, through all that happens in place."""
    while not told_to_end():
        try:
            reader = SegmentReader(path)
        except SegmentError:
            continue
        with reader:
            while is_there(reader) and not told_to_end():
                for _ in range(20):
                    look(reader)


async def wait() -> None:
    while not told_to_end():
        try:
            reader = SegmentReader(path)
        except SegmentError:
            await anyio.sleep(0.001)
            continue
        with reader:
            seq_count = 1
            while not told_to_end():
                try:
                    with anyio.move_on_after(2):  # to see whether it is told to end
                        snapshot = await reader.wait_changed(seq_count, poll_interval=0.005)
                        judge(snapshot)
                        seq_count = snapshot.seq_count
                except SegmentError:
                    seen["refused"] = seen.get("refused", 0) + 1
                    await anyio.sleep(0.001)


print("ready", flush=True)
if how == "wait":
    anyio.run(wait)
elif how == "stay":
    stay()
else:
    open_again_and_again()
print(json.dumps({**seen, "problems": problems[:5]}))
