"""Who a process is: that no two lives of it share an incarnation."""

import copy
import os
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar
from unittest.mock import AsyncMock
from uuid import UUID

import anyio
import pytest
from pydantic import BaseModel

from kit.settling import settled
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
from vmclock_async.events import StatusChanged, events_between
from vmclock_async.incarnation import Incarnation
from vmclock_async.testing import PlayedSegment, make_body
from vmclock_async.timebase import COUNTER_ID


def test_clones_that_had_not_looked_yet_differ(segment: PlayedSegment) -> None:
    """An incarnation that nobody had asked for when the machine was stored is not the same in two clones of it."""
    stored = Incarnation()
    with SegmentReader(segment.path) as reader:
        segment.restore()
        restored = reader.snapshot()
        assert copy.deepcopy(stored).of(restored, 2) != copy.deepcopy(stored).of(restored, 2)


@pytest.mark.anyio
async def test_callbacks_see_the_new_incarnation_first(segment: PlayedSegment) -> None:
    """A callback authenticates with the incarnation to come; nobody else has one until all callbacks are done."""
    seen: list[UUID] = []
    in_callback, go_on, done = anyio.Event(), anyio.Event(), anyio.Event()

    async def see(_: Snapshot) -> None:
        seen.append(clock.incarnation)

    async def linger(_: Snapshot) -> None:
        in_callback.set()
        await go_on.wait()
        done.set()

    with anyio.fail_after(5):
        async with open_clock(segment.path, fence=segment.device, on_restore=[see, linger, see]) as clock:
            before = clock.incarnation
            await settled()
            segment.restore()
            await in_callback.wait()
            with pytest.raises(ClockDisruptedError):
                _ = clock.incarnation
            go_on.set()
            await done.wait()
            await settled()
            assert seen == [clock.incarnation] * 2
            assert clock.incarnation != before


@pytest.mark.anyio
async def test_a_restore_right_at_the_beginning_of_the_block_is_one(segment: PlayedSegment) -> None:
    """Before its first await too: what the block began with was of the machine before."""
    called = anyio.Event()

    async def call(_: Snapshot) -> None:
        called.set()

    with anyio.fail_after(5):
        async with open_clock(segment.path, fence=segment.device, on_restore=[call]):
            segment.restore()
            await called.wait()


@pytest.mark.anyio
async def test_a_restore_while_callbacks_run_begins_them_anew(segment: PlayedSegment) -> None:
    """They ask for an incarnation that is out of date by then: that is no reason to end the block."""
    seen: list[UUID | None] = []
    done = anyio.Event()

    async def see(snapshot: Snapshot) -> None:
        if snapshot.body.vm_generation_counter == 2:
            segment.restore()
        seen.append(None)
        seen[-1] = clock.incarnation
        done.set()

    with anyio.fail_after(5):
        async with open_clock(segment.path, fence=segment.device, on_restore=[see]) as clock:
            before = clock.incarnation
            segment.restore()
            await done.wait()
            await settled()
            assert seen == [None, clock.incarnation]
            assert clock.incarnation != before


@pytest.mark.anyio
async def test_what_a_callback_asks_of_another_clock_ends_the_block(segment: PlayedSegment) -> None:
    """An error that no new restore explains is the callback's own."""

    async def fail(_: Snapshot) -> None:
        raise ClockDisruptedError("mine")

    with anyio.fail_after(5), pytest.raises(ClockDisruptedError, match="mine"):  # noqa: PT012
        async with open_clock(segment.path, fence=segment.device, on_restore=[fail]):
            segment.restore()
            await anyio.sleep_forever()


class Callbacks:
    """Ways to give an async function, and some that are none."""

    async def method(self, _: Snapshot) -> None:
        """An async method."""

    async def __call__(self, _: Snapshot, *more: object) -> None:
        """An object that is called."""

    @staticmethod
    async def static(_: Snapshot) -> None:
        """A static one."""

    def plain(self, _: Snapshot) -> None:
        """Not async: it would be called, and what it returns awaited."""


ASYNC: list[Any] = [
    Callbacks().method,
    Callbacks(),
    Callbacks.static,
    partial(Callbacks.method, Callbacks()),
    partial(partial(Callbacks()), more=1),
    AsyncMock(),
]
PLAIN: list[tuple[Any, str]] = [
    (Callbacks().plain, r"Callbacks\.plain"),
    (partial(Callbacks().plain), r"Callbacks\.plain"),
    (lambda snapshot: Callbacks().method(snapshot), "<lambda>"),
    (print, "print"),
    (Callbacks, "Callbacks"),
    (7, "7"),
]


@pytest.mark.anyio
async def test_async_callbacks_of_every_kind_are_taken(segment: PlayedSegment) -> None:
    """Methods, objects and partial functions are, too."""
    async with open_clock(segment.path, fence=segment.device, on_restore=ASYNC) as clock:
        assert clock.fenced


@pytest.mark.anyio
@pytest.mark.parametrize(("callback", "name"), PLAIN, ids=[name for _, name in PLAIN])
async def test_a_callback_that_is_not_async_is_refused_by_name(
    segment: PlayedSegment, callback: Any, name: str
) -> None:
    """When the clock is opened, and not at the first restore; that it returns an awaitable cannot be seen."""
    with pytest.raises(TypeError, match=f"on_restore takes async functions, and .*{name}.* is none"):
        async with open_clock(segment.path, fence=segment.device, on_restore=[Callbacks(), callback]):
            pass


@pytest.mark.anyio
async def test_the_devices_generation_counts_where_the_segment_has_none(tmp_path: Path) -> None:
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


OWN = 2**32
"""By how much a disruption of the publisher's own moves the marker."""
Look = tuple[int | None, int]
"""Generation and disruption marker, as a page has them."""

SAME_LIFE = [
    pytest.param([(7, 1), (None, 1), (7, 1)], id="loses-its-generation-for-a-commit"),
    pytest.param([(7, 1), (None, 0), (7, 1)], id="begins-afresh"),
    pytest.param([(7, 1), (None, 0), (None, 1), (7, 1)], id="begins-afresh-and-has-its-marker-first"),
    pytest.param([(7, 1), (None, 0), (7, 2)], id="begins-afresh-after-a-migration"),
    pytest.param([(None, 1), (None, 0), (None, 1)], id="begins-afresh-without-a-generation"),
    pytest.param([(None, 1 + OWN), (None, 0), (None, 1)], id="begins-to-count-its-own-disruptions-afresh"),
    pytest.param([(None, 1), (None, 1 + OWN), (None, 1 + 2 * OWN)], id="disruptions-of-the-publishers-own"),
    pytest.param([(7, 1), (None, 1 + OWN), (7, 1 + OWN)], id="loses-its-generation-in-a-disruption-of-its-own"),
    pytest.param([(None, 1), (7, 1)], id="learns-its-generation"),
    pytest.param([(None, 1), (7, 1), (None, 1), (7, 1)], id="learns-and-loses-it"),
    pytest.param([(7, 1), (7, 2), (7, 0), (7, 3)], id="migrations"),
]
ONE_RESTORE = [
    pytest.param([(7, 1), (8, 2)], id="a-restore"),
    pytest.param([(7, 1), (8, 1)], id="a-restore-without-a-disruption"),
    pytest.param([(7, 1), (None, 1), (8, 1)], id="while-the-generation-was-lost"),
    pytest.param([(7, 1), (None, 0), (None, 0), (8, 2)], id="while-the-page-began-afresh"),
    pytest.param([(7, 1), (None, 2), (8, 2)], id="told-by-the-marker-first"),
    pytest.param([(7, 1), (None, 2), (7, 2)], id="a-disruption-that-may-be-one"),
    pytest.param([(None, 0), (None, 1)], id="the-first-disruption-of-a-machine"),
    pytest.param([(None, 1), (None, 0), (None, 2)], id="by-the-marker-while-the-page-began-afresh"),
    pytest.param([(None, 1), (8, 2)], id="along-with-a-first-generation"),
    pytest.param([(None, 1), (None, 2 + OWN)], id="along-with-a-disruption-of-the-publishers-own"),
]


def looking(look: Look) -> VMClockBody:
    """A sound body with the generation and marker of *look*."""
    generation, marker = look
    return make_body(vm_generation_counter=generation, disruption_marker=marker)


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


async def told(clock: Clock, writer: SegmentWriter, body: VMClockBody) -> None:
    """Commit *body*, and let what waits on the clock see it and wait again."""
    waits = clock.statistics().waits
    writer.write(body)
    while clock.statistics().waits == waits:
        await anyio.sleep(0.001)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("looks", "restores"),
    [pytest.param(*case.values, 0, id=case.id) for case in SAME_LIFE]
    + [pytest.param(*case.values, 1, id=case.id) for case in ONE_RESTORE],
)
async def test_callbacks_run_once_a_restore(segment_path: Path, looks: list[Look], restores: int) -> None:
    """And never without one; the restore that follows at the end is seen, too."""
    calls: list[int | None] = []

    async def call(snapshot: Snapshot) -> None:
        calls.append(snapshot.body.vm_generation_counter)

    with anyio.fail_after(10), SegmentWriter(segment_path, size=112) as writer:
        writer.write(looking(looks[0]))
        async with open_clock(writer.path, fence=None, on_restore=[call]) as clock:
            while clock.statistics().waits == 0:
                await anyio.sleep(0.001)
            for look in looks[1:]:
                await told(clock, writer, looking(look))
            assert len(calls) == restores
            await told(clock, writer, looking((99, 50)))
    assert calls[restores:] == [99]


@pytest.mark.anyio
async def test_a_marker_that_the_device_contradicts_says_nothing(tmp_path: Path) -> None:
    """With a fence: a page that begins afresh, with any marker, is no restore; one that the device tells, too, is."""
    calls: list[int] = []

    async def call(snapshot: Snapshot) -> None:
        calls.append(snapshot.body.disruption_marker)

    with SegmentWriter(tmp_path / "shm0", size=112) as writer, SegmentWriter(tmp_path / "vmclock0") as device:
        device.write(VMClockBody(disruption_marker=1), counter_id=CounterId.INVALID)
        writer.write(looking((None, 1)))
        with anyio.fail_after(10):
            async with open_clock(writer.path, fence=device.path, on_restore=[call]) as clock:
                while clock.statistics().waits == 0:
                    await anyio.sleep(0.001)
                for marker in (5, 1, 0, 1):
                    await told(clock, writer, looking((None, marker)))
                assert calls == []
                device.write(VMClockBody(disruption_marker=2), counter_id=CounterId.INVALID)
                await told(clock, writer, looking((None, 2)))
    assert calls == [2]


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
def test_the_repair_of_a_half_commit_is_no_restore(
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
async def test_a_repair_tells_no_event_of_its_own(segment_path: Path) -> None:
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
async def test_a_publisher_that_begins_afresh_keeps_the_marker(segment_path: Path) -> None:
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


FORK_SCRIPT = """
import os, signal, sys, threading, warnings
from vmclock_async import Clock, incarnation

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from 3.12 on
held, forked = threading.Event(), threading.Event()

def hold():
    with incarnation._lock:
        held.set()
        forked.wait()

with Clock(sys.argv[1], fence=None) as clock:
    before = clock.incarnation
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    if not (child := os.fork()):
        signal.alarm(10)
        os._exit(7 if clock.incarnation != before else 1)
    forked.set()
    thread.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_while_another_thread_asks_leaves_the_child_free(
    segment: PlayedSegment, run_script: Callable[..., str]
) -> None:
    """The child has an incarnation of its own, though the thread that was drawing one is not there to finish."""
    assert run_script(FORK_SCRIPT, segment.path) == "7\n"
