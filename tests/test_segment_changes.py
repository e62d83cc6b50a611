"""A reader that waits hears of each thing that may happen to a segment."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from kit.segment_files import PACKED, restart_of_clockbound
from kit.waits import BOUND_S, until_waits
from vmclock_async import (
    SegmentReader,
    SegmentWriter,
    Snapshot,
    VMClockBody,
)

MakePage = Callable[..., bytes]


def commit_of(body: VMClockBody, **constants: int) -> Callable[[Path, bytes], None]:
    """A new writer of ours, whatever is there."""

    def commit(path: Path, page: bytes) -> None:
        with SegmentWriter(path) as writer:
            writer.write(body, **constants)

    return commit


def after(prepare: Callable[[Path, bytes], object]) -> Callable[[Path, bytes], None]:
    """A new writer of ours, where *prepare* was done to the path before."""

    def commit(path: Path, page: bytes) -> None:
        prepare(path, page)
        commit_of(VMClockBody(counter_value=1))(path, page)

    return commit


def overwrite(**header: int) -> Callable[[Path, bytes], None]:
    """The page's header becomes another's, in place."""
    base = {"seq_count": 2, "version": 1, "size": 104, "magic": 0x4B4C4356} | header

    def write(path: Path, page: bytes) -> None:
        head = struct.pack("<IIHxxI", base["magic"], base["size"], base["version"], base["seq_count"])
        with path.open("r+b", buffering=0) as file:
            file.write(head)

    return write


def clockbound(body: bytes, constants: bytes = bytes(2)) -> Callable[[Path, bytes], None]:
    """A cold start of ClockBound's writer in the same file, with the number that was there."""
    header = struct.pack("<IIH", 0x4B4C4356, 104, 0) + constants + bytes(4)
    return lambda path, page: restart_of_clockbound(path, header, body)


OTHER = VMClockBody(counter_value=1)


ROWS = {
    "nothing there": after(lambda path, page: path.unlink()),
    "usable": commit_of(OTHER),
    "usable, the same body": commit_of(VMClockBody()),
    "usable, other constants": commit_of(VMClockBody(), counter_id=1),
    "left odd": after(overwrite(seq_count=3)),
    "left odd before": after(overwrite(seq_count=1)),
    "another version": after(overwrite(version=2)),
    "version 0": after(overwrite(version=0)),
    "version 0, begun again": after(overwrite(version=0, seq_count=0)),
    "an earlier boot": after(lambda path, page: os.utime(path, ns=(0, 0))),
    "smaller than asked for": after(lambda path, page: SegmentWriter(path, size=112).close()),
    "garbage": after(overwrite(magic=7, seq_count=2)),
    "ClockBound's, another body": clockbound(OTHER.pack()),
    "ClockBound's, another marker": clockbound(VMClockBody(disruption_marker=1).pack()),
    "ClockBound's, other constants": clockbound(bytes(88), b"\1\0"),
    "ClockBound's, another timescale": clockbound(bytes(88), b"\0\1"),
}


@pytest.mark.anyio
@pytest.mark.parametrize("waits", [False, True], ids=["before", "during"])
@pytest.mark.parametrize("row", ROWS)
async def test_start_of_a_writer_is_a_change_whatever_its_number(
    segment_path: Path, make_page: MakePage, row: str, waits: bool
) -> None:
    """However the next writer begins: who has the snapshot from before gets the first commit that differs, and soon."""
    page = make_page(seq_count=2)
    segment_path.write_bytes(page)
    seen: list[Snapshot] = []

    async def follow(reader: SegmentReader, snapshot: Snapshot) -> None:
        seen.append(await reader.wait_changed(snapshot, poll_interval=0.01))

    with SegmentReader(segment_path) as reader, anyio.fail_after(BOUND_S):
        snapshot = reader.snapshot()
        async with anyio.create_task_group() as tasks:
            if waits:
                tasks.start_soon(follow, reader, snapshot)
                await until_waits(reader, 1)
            ROWS[row](segment_path, page)
            tasks.start_soon(follow, reader, snapshot)
    with SegmentReader(segment_path) as fresh:
        now = fresh.snapshot()
    assert seen == [now.model_copy(update={"opened": seen[0].opened})] * (1 + waits)
    assert seen[0] != snapshot


@pytest.mark.anyio
async def test_same_page_again_is_no_change(segment_path: Path, make_page: MakePage) -> None:
    """A file written over with what it holds, and a snapshot that another reader took, are what was seen."""
    segment_path.write_bytes(make_page(seq_count=2, body=PACKED))
    with SegmentReader(segment_path) as other:
        snapshot = other.snapshot()
    with SegmentReader(segment_path) as reader:
        with segment_path.open("r+b") as file:
            file.write(make_page(seq_count=2, body=PACKED))
        with anyio.move_on_after(0.05) as scope:
            await reader.wait_changed(snapshot, poll_interval=0.01)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_cancelling_never_loses_a_replacement(segment_path: Path) -> None:
    """Cancelled anywhere in opening the new file: the next wait returns it, though the number is the same."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody(disruption_marker=1))
    with SegmentReader(segment_path) as reader:
        for marker in range(2, 60):
            seen = reader.snapshot()
            segment_path.unlink()
            with SegmentWriter(segment_path) as writer:
                writer.write(VMClockBody(disruption_marker=marker))
            snapshot = None
            with anyio.move_on_after(marker * 1e-5):
                snapshot = await reader.wait_changed(seen.seq_count)
            if snapshot is None:
                with anyio.fail_after(5):
                    snapshot = await reader.wait_changed(seen.seq_count)
            assert snapshot.body.disruption_marker == marker


@pytest.mark.anyio
@pytest.mark.parametrize("poll_interval", [0, -1, float("nan")])
async def test_poll_interval_must_be_positive(segment_path: Path, poll_interval: float) -> None:
    """Anything else would spin."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody())
    with SegmentReader(segment_path) as reader, pytest.raises(ValueError, match="poll_interval"):
        await reader.wait_changed(2, poll_interval=poll_interval)
