"""One reader, or one clock, in several event loops: in threads side by side, one after the other, and across a fork.

The poll interval is so long that only a watch of its own can have woken a loop in time.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anyio
import pytest
import trio
from pydantic import BaseModel

from kit.told_world import open_descriptors
from kit.waits import BOUND_S, eventually
from vmclock_async import (
    BodyUpdate,
    Clock,
    ClockStatus,
    Emit,
    Publisher,
    SegmentReader,
    SegmentWriter,
    VMClockBody,
    open_clock,
)
from vmclock_async.errors import SegmentError
from vmclock_async.events import StatusChanged
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID

NEVER_S = 3600.0
LOOPS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "debug": {"backend": "asyncio", "backend_options": {"debug": True}},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


class Side:
    """An event loop in a thread of its own, that of *how*, in which one task does *call*."""

    def __init__(self, how: str, call: Callable[[], Awaitable[object]]) -> None:
        self.result: object = None
        self._call = call
        self._thread = threading.Thread(target=lambda: anyio.run(self._main, **LOOPS[how]))
        self._thread.start()

    async def _main(self) -> None:
        with anyio.move_on_after(BOUND_S):
            try:
                self.result = await self._call()
            except Exception as exc:
                self.result = exc

    def ended(self) -> object:
        """What the call returned, or raised; None where it did not end."""
        self._thread.join()
        return self.result


@pytest.mark.parametrize("second", LOOPS)
@pytest.mark.parametrize("first", LOOPS)
def test_each_loop_is_woken_by_a_watch_of_its_own(writer: SegmentWriter, first: str, second: str) -> None:
    """Two threads wait on one reader, each in its loop: each commit wakes both, time and again."""

    async def follow(reader: SegmentReader) -> list[int]:
        numbers = [2]
        while numbers[-1] < 8:
            numbers.append((await reader.wait_changed(numbers[-1], poll_interval=NEVER_S)).seq_count)
        return numbers

    with SegmentReader(writer.path) as reader:
        sides = [Side(how, partial(follow, reader)) for how in (first, second)]
        for turn in (1, 2, 3):
            eventually(lambda waits=2 * turn: reader.statistics().waits >= waits)  # type: ignore[misc]
            assert reader.statistics().watching
            writer.write(VMClockBody(counter_value=turn))
        assert [side.ended() for side in sides] == [[2, 4, 6, 8]] * 2


@pytest.mark.parametrize("second", ["debug", "trio"])
@pytest.mark.parametrize("first", ["debug", "uvloop"])
def test_each_loop_waits_for_a_clock(writer: SegmentWriter, first: str, second: str) -> None:
    """Events, and a wait for a status, of one clock in two threads."""

    async def events(clock: Clock) -> object:
        async with clock.events() as events:
            return await events.receive()

    with Clock(writer.path, fence=None) as clock:
        sides = [
            Side(first, partial(events, clock)),
            Side(second, partial(clock.wait_status, ClockStatus.UNRELIABLE)),
        ]
        eventually(lambda: clock.statistics().waits >= 2)
        writer.write(VMClockBody(disruption_marker=1, clock_status=ClockStatus.UNRELIABLE))
        event, snapshot = (side.ended() for side in sides)
    assert isinstance(event, StatusChanged)
    assert snapshot == event.snapshot


@pytest.mark.parametrize("second", LOOPS)
@pytest.mark.parametrize("first", ["debug", "uvloop", "trio"])
def test_replacement_that_one_loop_finds_wakes_the_other(segment_path: Path, first: str, second: str) -> None:
    """The path leads to another file without any event of the file before, because a directory was renamed."""
    for name, number in (("before", 1), ("after", 2)):
        with SegmentWriter(segment_path.parent / name / "shm0") as writer:
            writer.write(VMClockBody(counter_value=number))
    link = segment_path.parent / "link"
    link.symlink_to("before")

    with SegmentReader(link / "shm0") as reader:
        seen = reader.snapshot()
        patient = Side(first, partial(reader.wait_changed, seen, poll_interval=NEVER_S))
        eventually(lambda: reader.statistics().waits >= 1)
        (segment_path.parent / "new").symlink_to("after")
        (segment_path.parent / "new").rename(link)
        hasty = Side(second, partial(reader.wait_changed, seen, poll_interval=0.01))
        snapshots = [hasty.ended(), patient.ended()]
        assert reader.statistics().reopened == 1
    assert snapshots[0] is not None
    assert snapshots[0] == snapshots[1]


def test_closing_in_one_thread_while_another_loop_waits_is_refused(writer: SegmentWriter) -> None:
    """Nothing is closed, and who waits is woken as ever; once nobody waits, any thread may close."""
    reader = SegmentReader(writer.path)
    before = open_descriptors()
    side = Side("debug", partial(reader.wait_changed, 2, poll_interval=NEVER_S))
    eventually(lambda: reader.statistics().waits >= 1)
    with pytest.raises(RuntimeError, match="tasks are waiting in another thread"):
        reader.close()
    writer.write(VMClockBody(disruption_marker=2))
    assert getattr(side.ended(), "seq_count", None) == 4
    reader.close()
    assert open_descriptors() < before
    with pytest.raises(SegmentError, match="the reader is closed"):
        reader.snapshot()


@pytest.mark.long
def test_loop_leaves_no_watch_behind(writer: SegmentWriter) -> None:
    """A program may run one loop after another on one reader, more of them than a user has inotify instances."""

    async def wait(reader: SegmentReader) -> None:
        with anyio.move_on_after(0.001):
            await reader.wait_changed(2, poll_interval=NEVER_S)

    before = open_descriptors()
    with SegmentReader(writer.path) as reader:
        for _ in range(150):
            asyncio.run(wait(reader))
        assert reader.statistics().polling_because is None
        watches = [each for each in open_descriptors() - before if each.endswith("anon_inode:inotify")]
        assert len(watches) <= 1


@pytest.mark.parametrize("how", ["same", "asyncio", "trio"])
def test_child_of_a_fork_has_a_watch_of_its_own(
    writer: SegmentWriter, run_script: Callable[..., str], how: str
) -> None:
    """Though the parent had waited: the child is woken by inotify, and takes nothing that the parent waits for."""
    writer.close()
    run_script("fork_reader", writer.path, how)


def test_trio_may_run_within_a_task_of_asyncio(segment_path: Path) -> None:
    """As in a notebook's cell, which asyncio runs: publisher and reader go by the loop that is theirs."""
    seen: list[int] = []

    async def read() -> None:
        async with open_clock(segment_path, fence=None, wait=True) as clock:
            seen.append((await clock.wait_status(ClockStatus.SYNCHRONIZED)).seq_count)
            with SegmentReader(segment_path) as reader:
                seen.append((await reader.wait_changed(seen[0], poll_interval=NEVER_S)).seq_count)

    class Twice:
        settings_type: ClassVar[type[BaseModel]] = BaseModel

        async def run(self, emit: Emit) -> None:
            for count in (1, 2):
                await emit(BodyUpdate.from_body(make_body(tai_offset_sec=-count), counter_id=COUNTER_ID))
                while len(seen) < count:
                    await anyio.sleep(0.01)

    async def main() -> None:
        with anyio.fail_after(BOUND_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                tasks.start_soon(Publisher(segment_path, {"twice": Twice()}).run)

    async def cell() -> None:
        trio.run(main)

    asyncio.run(cell())
    assert len(seen) == 2
