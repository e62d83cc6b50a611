"""Who a process is: that no two lives of it share an incarnation."""

import copy
import os
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from kit.lives import ONE_RESTORE, SAME_LIFE, Look, looking
from kit.told_world import World
from kit.waits import settled
from vmclock_async import (
    BodyUpdate,
    Clock,
    ClockDisruptedError,
    ClockStatus,
    CounterId,
    Emit,
    Flags,
    LeapIndicator,
    LeaseLostError,
    Publisher,
    SegmentReader,
    SegmentWriter,
    Snapshot,
    Source,
    SourceUnavailableError,
    VMClockBody,
    open_clock,
)
from vmclock_async.abi import OWN_DISRUPTION
from vmclock_async.events import (
    StatusChanged,
    events_between,
)
from vmclock_async.incarnation import Incarnation
from vmclock_async.testing import PlayedSegment, make_body
from vmclock_async.timebase import COUNTER_ID

RunScript = Callable[..., str]


def test_clones_that_had_not_looked_yet_differ(segment: PlayedSegment) -> None:
    """An incarnation that nobody had asked for when the machine was stored is not the same in two clones of it."""
    stored = Incarnation()
    with SegmentReader(segment.path) as reader:
        segment.restore()
        restored = reader.snapshot()
        assert copy.deepcopy(stored).of(restored, 2) != copy.deepcopy(stored).of(restored, 2)


@pytest.mark.anyio
async def test_devices_generation_counts_where_the_segment_has_none(tmp_path: Path) -> None:
    """A segment of 104 bytes has no room for it: a restore that only the device tells of is one all the same."""
    called = anyio.Event()

    async def call(_: Snapshot) -> None:
        called.set()

    def restored(generation: int) -> VMClockBody:
        return VMClockBody(disruption_marker=1, vm_generation_counter=generation)

    body = make_body(vm_generation_counter=None)
    with SegmentWriter(tmp_path / "shm0") as writer, SegmentWriter(tmp_path / "vmclock0", size=112) as device:
        writer.write(body, counter_id=COUNTER_ID)
        device.write(restored(7), counter_id=CounterId.INVALID)
        with anyio.fail_after(5):
            async with open_clock(writer.path, fence=device.path, on_restore=[call]) as clock:
                before = clock.incarnation
                with pytest.raises(LeaseLostError, match="generation was 7, and is 8"):  # noqa: PT012
                    async with clock.lease(60):
                        device.write(restored(8))
                        await anyio.sleep_forever()
                await called.wait()
                await settled()
                assert clock.incarnation != before


@pytest.mark.parametrize("looks", SAME_LIFE)
def test_what_only_looks_new_is_no_restore(segment_path: Path, looks: list[Look]) -> None:
    """Without a fence: the incarnation stays the same, whatever the page is without meanwhile."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(looking(looks[0]))
        with Clock(writer.path, fence=None) as clock:
            first = clock.incarnation
            for look in looks[1:]:
                writer.write(looking(look))
                assert clock.incarnation == first


@pytest.mark.parametrize("looks", ONE_RESTORE)
def test_one_restore_is_one_new_incarnation(segment_path: Path, looks: list[Look]) -> None:
    """Whichever of generation and marker tells it, and however late the other follows."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(looking(looks[0]))
        with Clock(writer.path, fence=None) as clock:
            seen = [clock.incarnation]
            for look in looks[1:]:
                writer.write(looking(look))
                seen.append(clock.incarnation)
    assert len(set(seen)) == 2
    assert seen == sorted(seen, key=[seen[0], seen[-1]].index)


class Telling:
    """A source that is not there until `told` is set, and then tells the whole body *body*, and no more."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, body: VMClockBody) -> None:
        self._body = body
        self._runs = 0
        self.told = anyio.Event()

    async def run(self, emit: Emit) -> None:
        self._runs += 1
        if self._runs == 1:
            raise SourceUnavailableError("device", "not there yet")
        await self.told.wait()
        await emit(BodyUpdate.from_body(self._body))


class TellingNoTime:
    """A source that has no time yet, says so, and goes on."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    async def run(self, emit: Emit) -> None:
        await emit(BodyUpdate(clock_status=ClockStatus.INITIALIZING))
        await anyio.sleep_forever()


def die_after(path: Path, stores: int, body: VMClockBody) -> None:
    """As a writer leaves the page of 112 bytes that is killed after *stores* words of *body*."""
    packed = body.pack().ljust(96, b"\0")
    with path.open("r+b", buffering=0) as file:
        seq_count = int.from_bytes(file.read(16)[12:], "little")
        os.pwrite(file.fileno(), (seq_count | 1).to_bytes(4, "little"), 12)
        os.pwrite(file.fileno(), packed[: 8 * stores], 16)


@pytest.mark.long
@pytest.mark.parametrize(
    ("before", "after", "restores"),
    [
        pytest.param((7, 1), (7, 1), 0, id="nothing"),
        pytest.param((7, 1), (7, 2), 0, id="a-migration"),
        pytest.param((None, 1), (7, 1), 0, id="a-first-generation"),
        pytest.param((7, 1), (None, 1), 0, id="a-lost-generation"),
        pytest.param((7, 1), (8, 2), 1, id="a-restore"),
    ],
)
@pytest.mark.parametrize("stores", [0, 1, 2, 3, 11, 12])
def test_repair_of_a_half_commit_is_no_restore(
    segment_path: Path, before: Look, after: Look, restores: int, stores: int
) -> None:
    """Whatever the commit was to tell, and wherever in it its writer died: a restore in it is one, and nothing else."""

    async def main() -> None:
        source = Telling(looking(after))
        with Clock(segment_path, fence=None) as clock, anyio.fail_after(10):
            seen = [clock.incarnation]
            die_after(segment_path, stores, looking(after))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(Publisher(segment_path, {"device": source}).run)
                await clock.wait_status(ClockStatus.UNKNOWN)
                seen.append(clock.incarnation)
                source.told.set()
                await clock.wait_status(ClockStatus.SYNCHRONIZED)
                seen.append(clock.incarnation)
        assert len(set(seen)) == 1 + restores

    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(looking(before))
    anyio.run(main)


@pytest.mark.anyio
async def test_repair_tells_no_event_of_its_own(segment_path: Path) -> None:
    """Not of the generation, maintenance or a leap second that were told before; the status alone is another."""
    body = make_body(
        disruption_marker=9,
        vm_generation_counter=7,
        flags=Flags.DISRUPTION_SOON,
        leap_indicator=LeapIndicator.PRE_POS,
    )
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(body, counter_id=COUNTER_ID)
    with SegmentReader(segment_path) as reader, anyio.fail_after(10):
        seen = [reader.snapshot()]
        die_after(segment_path, 0, body)
        source = Telling(body)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Publisher(segment_path, {"device": source}).run)
            seen.append(await reader.wait_changed(seen[-1]))
            source.told.set()
            seen.append(await reader.wait_changed(seen[-1]))
    repaired = seen[1].body
    assert (repaired.disruption_marker, repaired.vm_generation_counter) == (9, 7)
    assert repaired.clock_status == ClockStatus.UNKNOWN
    assert repaired.flags == Flags.DISRUPTION_SOON | Flags.VM_GEN_COUNTER_PRESENT
    assert (repaired.time_sec, repaired.counter_value) == (0, 0)
    assert [type(event) for before, after in pairwise(seen) for event in events_between(before, after)] == [
        StatusChanged,
        StatusChanged,
    ]


@pytest.mark.anyio
async def test_publisher_that_begins_afresh_keeps_the_marker(segment_path: Path) -> None:
    """A cold start in place, under readers that go on: its first commit has the marker that they saw last."""
    with SegmentWriter(segment_path) as writer:  # of 104 bytes, as ClockBound's: the publisher begins one of 112
        writer.write(looking((None, 1)))
    source = Telling(looking((7, 1)))
    sources: dict[str, Source] = {"device": source, "time": TellingNoTime()}
    with Clock(segment_path, fence=None) as clock, anyio.fail_after(10):
        first = clock.incarnation
        async with clock.events() as events, anyio.create_task_group() as tasks:
            tasks.start_soon(Publisher(segment_path, sources).run)
            seen = [await events.receive()]
            assert clock.incarnation == first
            source.told.set()
            seen.append(await events.receive())
            assert clock.incarnation == first
            tasks.cancel_scope.cancel()
    assert [type(event) for event in seen] == [StatusChanged, StatusChanged]


def test_fork_while_another_thread_asks_leaves_the_child_free(
    segment: PlayedSegment, run_script: Callable[..., str]
) -> None:
    """The child has an incarnation of its own, though the thread that was drawing one is not there to finish."""
    assert run_script("fork_incarnation", segment.path) == "7\n"


@pytest.mark.anyio
async def test_incarnation_lasts_until_a_restore(world: World, clock: Clock) -> None:
    """The same through commits, migrations and the publisher's own disruptions; another after a restore."""
    world.tell(vm_generation_counter=5)
    first = clock.incarnation
    for marker in (1, 2, 2 + 2**32):
        world.tell(vm_generation_counter=5, disruption_marker=marker)
        assert clock.incarnation == first
    world.tell(vm_generation_counter=6, disruption_marker=3)
    second = clock.incarnation
    assert clock.incarnation == second != first
    world.tell(vm_generation_counter=5)  # a number that was there before is not the life that was there before
    assert clock.incarnation not in (first, second)


@pytest.mark.anyio
async def test_without_a_generation_every_disruption_of_the_device_may_be_a_restore(
    world: World, clock: Clock
) -> None:
    """The low half of the marker is the device's; the high half counts the publisher's own."""
    first = clock.incarnation
    world.tell(disruption_marker=1 + 2**32)
    assert clock.incarnation == first
    world.tell(disruption_marker=2 + 2**32)
    assert clock.incarnation != first


@pytest.mark.anyio
async def test_no_incarnation_is_drawn_before_it_is_asked_for(world: World, clock: Clock) -> None:
    """What were drawn at the opening, a snapshot of the machine taken before the first use would copy."""
    clock.now()
    assert clock._incarnation._drawn is None


@pytest.mark.anyio
async def test_no_incarnation_while_the_publisher_has_not_told(world: World, fenced: Clock) -> None:
    """The device tells of a disruption, and whether it was a restore is not known yet: ClockDisruptedError."""
    first = fenced.incarnation
    world.device_says(2)
    with pytest.raises(ClockDisruptedError, match="its publisher has not published that yet"):
        _ = fenced.incarnation
    world.tell(disruption_marker=2)
    assert fenced.incarnation != first


@pytest.mark.anyio
async def test_two_processes_are_two_incarnations(world: World, clock: Clock, run_script: RunScript) -> None:
    """Of one segment, at one time."""
    found = {str(clock.incarnation)} | {run_script("incarnation", world.path).strip()}
    assert len(found) == 2


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        ({}, False),
        ({"disruption_marker": OWN_DISRUPTION}, False),
        ({"disruption_marker": 3}, True),
        ({"vm_generation_counter": 1}, True),
    ],
)
async def test_clock_says_whether_it_sees_restores(
    segment_path: Path, caplog: pytest.LogCaptureFixture, fields: dict[str, int], seen: bool
) -> None:
    """Where nothing reports restores, an incarnation and callbacks say so once in the log."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(make_body(**{"vm_generation_counter": None, "disruption_marker": 0} | fields))

        async def restored(snapshot: Snapshot) -> None:
            raise AssertionError(snapshot)

        async with open_clock(segment_path, fence=None, on_restore=[restored]) as clock:
            assert clock.restores_are_seen is seen
            for _ in range(3):
                assert clock.incarnation
            await settled()
    told = [record.getMessage() for record in caplog.records if "nothing reports restores" in record.getMessage()]
    assert len(told) == (not seen)
