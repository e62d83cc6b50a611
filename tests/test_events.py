"""The stream of events: where it begins, what it tells, what ends it. For the bound see ``test_bound_events``."""

import resource
import signal
from collections.abc import Callable
from functools import partial

import anyio
import anyio.lowlevel
import pytest

from kit.forks import Started
from kit.half_commit import half_way
from kit.told_world import BOUNDED, World
from kit.waits import BOUND_S, disruption, meanwhile, until_waiting
from vmclock_async import (
    Clock,
    ClockNotSynchronizedError,
    ClockStatus,
    Flags,
    LeapIndicator,
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentWriter,
    open_clock,
)
from vmclock_async.events import (
    Bounded,
    Disrupted,
    Event,
    EventStream,
    LeapAnnounced,
    MaintenanceAnnounced,
    Restored,
    SegmentReplaced,
    StatusChanged,
    Unbounded,
)
from vmclock_async.testing import PlayedSegment

pytestmark = pytest.mark.anyio


async def test_stream_shows_what_it_begins_from(segment: PlayedSegment) -> None:
    """What was announced before is no event, but is in the snapshot; what comes later is an event."""
    segment.announce_maintenance()
    with anyio.fail_after(5):
        async with open_clock(segment.path, fence=segment.device) as clock, clock.events() as events:
            assert Flags.DISRUPTION_SOON in events.snapshot.body.flags
            segment.announce_maintenance(imminent=True)
            event = await events.receive()
            assert isinstance(event, MaintenanceAnnounced)
            assert event.imminent
            assert event.snapshot == events.snapshot


StartScript = Callable[..., Started]


async def received(events: EventStream, count: int) -> list[Event]:
    """The next *count* events."""
    with anyio.fail_after(BOUND_S):
        return [await events.receive() for _ in range(count)]


SOON, IMMINENT = Flags.DISRUPTION_SOON, Flags.DISRUPTION_IMMINENT


async def test_each_kind_of_event(world: World, clock: Clock) -> None:
    """What changed from one snapshot to the next, the gravest first; each event has the snapshot that showed it."""
    world.tell(vm_generation_counter=10)
    async with clock.events() as events:
        world.tell(
            vm_generation_counter=11,
            disruption_marker=2,
            clock_status=ClockStatus.UNKNOWN,
            flags=BOUNDED | SOON,
            leap_indicator=LeapIndicator.PRE_POS,
        )
        found = await received(events, 6)
        shown = found[0].snapshot
        assert shown.seq_count == world.writer.seq_count
        assert found == [
            Disrupted(1, 2, shown),
            Restored(10, 11, shown),
            StatusChanged(ClockStatus.SYNCHRONIZED, ClockStatus.UNKNOWN, shown),
            MaintenanceAnnounced(False, shown),
            LeapAnnounced(LeapIndicator.PRE_POS, shown),
            Unbounded(ClockNotSynchronizedError, found[5].reason, found[5].remedy, shown),  # type: ignore[union-attr]
        ]
        steady = {"vm_generation_counter": 11, "disruption_marker": 2}
        world.tell(**steady, flags=BOUNDED | SOON | IMMINENT)
        found = await received(events, 3)
        assert [type(event) for event in found] == [StatusChanged, MaintenanceAnnounced, Bounded]
        assert found[1] == MaintenanceAnnounced(True, found[1].snapshot)
        # What ends is no event: the notice, the announcement. Nor are commits in which nothing happened.
        world.tell(**steady)
        world.tell(**steady)
        world.tell(**steady, leap_indicator=LeapIndicator.POST_POS)
        (last,) = await received(events, 1)
        assert last == LeapAnnounced(LeapIndicator.POST_POS, last.snapshot)


async def test_no_event_is_from_before_the_stream(world: World, clock: Clock) -> None:
    """Events are of what happens from the opening on."""
    clock.now()
    world.tell(disruption_marker=2)
    async with clock.events() as events:
        world.tell(disruption_marker=3)
        (event,) = await received(events, 1)
    assert event == Disrupted(2, 3, event.snapshot)


async def test_marker_that_moved_while_nobody_looked_is_one_event(world: World, clock: Clock) -> None:
    """No disruption or restore is lost; two are one; a status that came and went is none."""
    async with clock.events() as events:
        for marker in (2, 3, 4):
            world.tell(disruption_marker=marker, clock_status=0)
        world.tell(disruption_marker=4)
        (event,) = await received(events, 1)
        assert event == Disrupted(1, 4, event.snapshot)
        world.tell(disruption_marker=5)
        assert isinstance((await received(events, 1))[0], Disrupted)


async def test_event_wakes_who_waits_for_it(world: World, clock: Clock) -> None:
    """And each of several streams gets it."""
    seen: list[Event] = []

    async def follow() -> None:
        async with clock.events() as events:
            seen.append(await events.receive())

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(4):
                tasks.start_soon(follow)
            await until_waiting(clock, 4)
            world.tell()
            await until_waiting(clock, 4)
            assert seen == []
            world.tell(disruption_marker=2)
    assert seen == [Disrupted(1, 2, seen[0].snapshot)] * 4


async def test_cancelling_loses_no_event(world: World, clock: Clock) -> None:
    """However a receive() is cut short, the next one has what it would have had."""
    async with clock.events() as events:
        for marker in range(2, 40):
            world.tell(disruption_marker=marker, clock_status=3 - marker % 2)
            event = None
            with anyio.move_on_after(marker * 2e-5):
                event = await events.receive()
            first = event or (await received(events, 1))[0]
            assert first == Disrupted(marker - 1, marker, first.snapshot)
            (second,) = await received(events, 1)
            assert isinstance(second, StatusChanged)


async def test_segment_in_anothers_place_is_an_event(world: World, clock: Clock) -> None:
    """Whatever its numbers are, and whether the stream or a reading opened it; what differs besides comes after."""
    async with clock.events() as events:
        for look in (False, True):
            seq_count = world.writer.seq_count
            world.replace(disruption_marker=9 if look else 8)
            assert world.writer.seq_count == seq_count == 2
            if look:
                clock.status  # noqa: B018
            found = await received(events, 2)
            assert found[0] == SegmentReplaced(found[1].snapshot)
            assert isinstance(found[1], Disrupted)


async def test_segment_that_is_missing_for_a_while_is_waited_for(world: World, clock: Clock) -> None:
    """Nothing there, then a file without a commit: no event and no error until there is a body."""
    async with clock.events() as events:
        async with meanwhile(clock, events.receive) as outcome:
            world.remove()
            await until_waiting(clock, 2)
            world.writer = SegmentWriter(world.path, size=112)
            await until_waiting(clock, 2)
            assert outcome == []
            world.tell()
    assert isinstance(outcome[0], SegmentReplaced)


async def test_cold_start_in_place_is_waited_out(world: World, clock: Clock) -> None:
    """While version is 0 there is no time, and nothing to compare with; then the difference to the last body."""
    async with clock.events() as events:
        world.begin_afresh()
        (lost,) = await received(events, 1)
        assert isinstance(lost, Unbounded)
        assert lost.error is SegmentNotInitializedError
        async with meanwhile(clock, events.receive) as outcome:
            assert outcome == []
            world.tell(disruption_marker=2)
    assert isinstance(outcome[0], Disrupted)


async def test_what_is_no_segment_ends_the_stream(world: World, clock: Clock) -> None:
    """Garbage in the segment's place is an error that names it, not a silence."""
    garbage = world.path.with_name("garbage")
    garbage.write_bytes(b"x" * 200)
    async with clock.events() as events:
        async with meanwhile(clock, events.receive) as outcome:
            garbage.rename(world.path)
    assert isinstance(outcome[0], SegmentMalformedError)


async def test_without_inotify_events_are_found_by_polling(world: World, clock: Clock) -> None:
    """A user who has no instance, or a process that has no descriptor left, still gets every event."""
    with Clock(world.path, fence=None) as other:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(other.wait_status, ClockStatus.UNKNOWN)  # what is imported late
            await until_waiting(other)
            tasks.cancel_scope.cancel()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with clock.events() as events:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
        try:
            async with meanwhile(clock, events.receive) as outcome:
                world.tell(disruption_marker=2)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert isinstance(outcome[0], Disrupted)
    assert clock.statistics().polling_because == "no inotify watch: Too many open files"


async def test_events_outlast_a_writer_that_died_in_mid_commit(
    world: World, clock: Clock, start_script: StartScript
) -> None:
    """receive() waits through it; the repairing commit is compared with the last whole body."""
    async with clock.events() as events:
        async with meanwhile(clock, partial(disruption, events)) as outcome:
            with half_way(world, start_script, signal.SIGKILL):
                world.path.touch()  # as a writer that gets to wake readers before the next begins
                await until_waiting(clock)
                assert outcome == []
            world.tell(disruption_marker=5)
    assert isinstance(outcome[0], Disrupted)
