"""How a publisher ends: cancelled, with its loop, or killed; the segment stays whole."""

import asyncio
import signal
import subprocess
import sys
import threading
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from kit.publishing import assert_at_rest
from kit.sources import Scripted, counting_up
from kit.told_world import open_descriptors
from vmclock_async import Publisher, SegmentNotInitializedError, SegmentReader, SegmentWriter, VMClockBody


@pytest.mark.anyio
@pytest.mark.parametrize("checkpoints", [0, 1, 2, 3, 5, 8, 13, 40, 41, 42, 43, 44, 45])
async def test_cancelling_at_any_point_leaves_the_segment_whole(segment_path: Path, checkpoints: int) -> None:
    """However far it has come: a whole body, an even seq_count, no lock, no descriptor left open."""
    descriptors = open_descriptors()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Publisher(segment_path, [Scripted(counting_up)]).run)
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert not open_descriptors() - descriptors
    assert not Path(f"{segment_path}.lock").exists()
    if segment_path.exists():
        try:
            assert_at_rest(segment_path)
        except SegmentNotInitializedError:
            pass  # cancelled between the cold start and the first commit
        else:
            with SegmentReader(segment_path) as reader:
                body = reader.snapshot().body
            assert body.counter_value == body.time_sec > 0


@pytest.mark.parametrize("turns", range(5, 45))
def test_publisher_left_running_when_the_loop_ends_leaves_no_lock(segment_path: Path, turns: int) -> None:
    """asyncio.run() cancels what is left, each task by itself, also one that waits for the segment to open."""

    async def main() -> None:
        left = asyncio.create_task(Publisher(segment_path, [Scripted(counting_up)]).run())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not left.done()

    before = threading.enumerate()
    asyncio.run(main())
    for thread in threading.enumerate():
        if thread not in before:
            thread.join(10)  # the loop is over, and a worker may still be opening the segment
    assert not Path(f"{segment_path}.lock").exists()
    with SegmentWriter(segment_path):
        pass


@pytest.mark.asyncio
async def test_cancelling_the_asyncio_task_stops_the_publisher(segment_path: Path) -> None:
    """Under plain asyncio, task.cancel() is enough, and CancelledError comes out."""
    task = asyncio.create_task(Publisher(segment_path, [Scripted(counting_up)]).run())
    while not segment_path.exists():  # no event: only the file tells
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not Path(f"{segment_path}.lock").exists()


@pytest.mark.asyncio
async def test_publisher_runs_beside_other_asyncio_tasks(segment_path: Path) -> None:
    """Embedded in a TaskGroup it leaves the loop to the others: a source at full speed does not starve them."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(Publisher(segment_path, [Scripted(counting_up)]).run())
        turns = 0
        while turns < 500:
            await asyncio.sleep(0)
            turns += 1
        publishing.cancel()
    assert_at_rest(segment_path)


def wait_for_commit(path: Path, seq_count: int) -> None:
    """Return once the segment at *path* has gone beyond *seq_count* by a hundred commits."""

    async def wait() -> None:
        with anyio.fail_after(20):
            while True:
                try:
                    with SegmentReader(path) as reader:
                        while reader.seq_count < seq_count + 200:
                            await reader.wait_changed(reader.seq_count)
                        return
                except SegmentNotInitializedError:
                    await anyio.sleep(0.01)

    anyio.run(wait)


def test_publisher_killed_in_full_flight_leaves_a_segment_to_go_on_from(segment_path: Path) -> None:
    """SIGKILL at any moment: the next publisher starts, on a number further up, and readers get whole bodies."""
    program = (
        "import sys, anyio\n"
        "from vmclock_async import BodyUpdate, Publisher\n"
        "class Fast:\n"
        "    async def run(self, emit):\n"
        "        n = 0\n"
        "        while True:\n"
        "            n += 1\n"
        "            await emit(BodyUpdate(counter_value=n, time_sec=n))\n"
        "anyio.run(Publisher(sys.argv[1], [Fast()]).run)\n"
    )
    last = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program, str(segment_path)])
        try:
            wait_for_commit(segment_path, last)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        with SegmentWriter(segment_path, size=112) as writer:
            assert writer.seq_count > last
            last = writer.write(VMClockBody(disruption_marker=1))
        assert_at_rest(segment_path)
