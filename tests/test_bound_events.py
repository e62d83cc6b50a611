"""The events ``Unbounded`` and ``Bounded``, the jump of a ``Disrupted``, and events as JSON."""

import datetime
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from kit.told_world import BOUNDED, World, true_ns
from kit.waits import BOUND_S, meanwhile
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockError,
    ClockNotSynchronizedError,
    ClockStaleError,
    ClockStatus,
    ClockUnboundedError,
    CounterNotSupportedError,
    Flags,
    LeapIndicator,
    SegmentError,
    SegmentUnstableError,
    VMClockBody,
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
    events_between,
)
from vmclock_async.testing import ManualClock, PlayedSegment, RecordedClock

pytestmark = pytest.mark.anyio

S = 10**9


async def received(events: EventStream, count: int = 1) -> list[Event]:
    """The next *count* events."""
    with anyio.fail_after(BOUND_S):
        return [await events.receive() for _ in range(count)]


async def lost(events: EventStream) -> Unbounded:
    """The next event, which must say that there is no bound any more."""
    (event,) = await received(events)
    assert isinstance(event, Unbounded)
    return event


async def found_again(events: EventStream) -> Bounded:
    """The next event, which must say that there is a bound again."""
    (event,) = await received(events)
    assert isinstance(event, Bounded)
    return event


def test_publisher_that_died_is_noticed_when_its_reference_is_too_old() -> None:
    """No commit says so: the event comes 1000 s after the last measurement, and the next one when there is another."""
    times: list[float] = []

    async def main() -> None:
        with ManualClock() as clock:
            began = trio.current_time()
            async with clock.events() as events:
                assert events.bounded
                clock.freeze()
                event = await events.receive()
                times.append(trio.current_time() - began)
                assert isinstance(event, Unbounded)
                assert event.error is ClockStaleError
                assert "1000 s old" in event.reason
                assert "publisher" in event.remedy
                assert event.snapshot == events.snapshot
                assert not events.bounded
                with pytest.raises(ClockStaleError):
                    clock.now()
                await trio.sleep(5000)
                clock.thaw()
                event = await events.receive()
                times.append(trio.current_time() - began)
                assert isinstance(event, Bounded)
                assert event.interval.contains(clock.utc_ns)
                assert events.bounded

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert times == pytest.approx([1000, 6000], abs=1e-4)


async def test_bound_ends_in_time_that_only_the_test_moves() -> None:
    """Nothing comes before the reference is too old, however far time jumps; a running publisher never loses it."""
    with ManualClock(follow_loop=False, max_age=10) as clock:
        async with clock.events() as events:
            async with meanwhile(clock, events.receive) as outcome:
                clock.advance(3600)
                await anyio.wait_all_tasks_blocked()
                clock.freeze()
                clock.advance(9.5)
                await anyio.wait_all_tasks_blocked()
                assert outcome == []
                clock.advance(1)
    assert isinstance(outcome[0], Unbounded)


def test_recording_loses_its_bound_at_its_end(tmp_path: Path) -> None:
    """In a recording, too, the time is lost when its last reference has become too old."""
    times: list[float] = []

    async def main() -> None:
        with RecordedClock("examples/recordings/live-migration.jsonl", max_age=30) as clock:
            began = trio.current_time()
            async with clock.events() as events:
                while not (
                    isinstance(event := await events.receive(), Unbounded) and event.error is ClockStaleError
                ):
                    times.append(trio.current_time() - began)
                times.append(trio.current_time() - began)
                age_ns = clock.age_ns
            assert 30 * S < age_ns < 30 * S + 10**6
            assert times[-1] > clock.duration_ns / S > times[-2]

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.long
async def test_real_publisher_that_died_is_noticed(world: World) -> None:
    """The same on a real segment, by the loop's own time; the next commit gives the time back."""
    async with open_clock(world.path, fence=None, max_age=0.5) as clock, clock.events() as events:
        assert (await lost(events)).error is ClockStaleError
        world.tell()
        await found_again(events)
        assert (await lost(events)).error is ClockStaleError


async def test_fence_that_moves_ends_the_bound_without_a_commit(world: World) -> None:
    """The device reports a disruption: the bound is lost at once, and is back when the publisher has followed."""
    async with open_clock(world.path, fence=world.device) as clock, clock.events() as events:
        world.device_says(2)
        event = await lost(events)
        assert event.error is ClockDisruptedError
        assert "the device's disruption marker is 2" in event.reason
        world.tell(disruption_marker=2)
        disrupted, bounded = await received(events, 2)
        assert disrupted == Disrupted(1, 2, disrupted.snapshot)
        assert isinstance(bounded, Bounded)


async def test_fence_that_moves_is_an_event_of_that_moment() -> None:
    """It waits neither for time to go by nor for the publisher."""
    with ManualClock(follow_loop=False) as clock:
        async with clock.events() as events:
            async with meanwhile(clock, events.receive) as outcome:
                clock.freeze()
                clock.migrate()
    (lost,) = outcome
    assert isinstance(lost, Unbounded)
    assert lost.error is ClockDisruptedError


LOSSES: dict[str, tuple[dict[str, object], type[ClockError]]] = {
    "the bound": ({"flags": 0}, ClockUnboundedError),
    "the counter": ({"counter_id": 99}, CounterNotSupportedError),
    "the age": ({"age_s": 2000}, ClockStaleError),
}


@pytest.mark.parametrize("what", LOSSES)
async def test_body_that_gives_no_time_ends_the_bound(world: World, clock: Clock, what: str) -> None:
    """Each reason is an event, once; a commit without a bound after another is none."""
    changes, error = LOSSES[what]
    async with clock.events() as events:
        world.tell(**changes)  # type: ignore[arg-type]
        assert (await lost(events)).error is error
        async with meanwhile(clock, events.receive) as outcome:
            world.tell(**changes)  # type: ignore[arg-type]
            await anyio.lowlevel.checkpoint()
            assert outcome == []
            world.tell()
    assert isinstance(outcome[0], Bounded)


async def test_bound_is_the_last_event_of_its_commit(world: World, clock: Clock) -> None:
    """A disruption with its void time, and then the time: the bound goes and comes with them."""
    async with clock.events() as events:
        world.tell(disruption_marker=2, clock_status=ClockStatus.UNKNOWN)
        kinds = [type(event) for event in await received(events, 3)]
        assert kinds == [Disrupted, StatusChanged, Unbounded]
        world.tell(disruption_marker=2)
        kinds = [type(event) for event in await received(events, 2)]
        assert kinds == [StatusChanged, Bounded]


@pytest.mark.parametrize("looks", [True, False])
async def test_slow_task_misses_no_bound_of_a_page_that_it_noted(world: World, clock: Clock, looks: bool) -> None:
    """The bound is back before the task comes again; it was lost where the first event was, and that is told."""
    async with clock.events() as events:
        world.tell(disruption_marker=2, clock_status=ClockStatus.UNKNOWN)
        (first,) = await received(events)
        assert isinstance(first, Disrupted)
        if looks:
            assert not events.bounded
        world.tell(disruption_marker=2)
        kinds = [type(event) for event in await received(events, 4)]
        assert kinds == [StatusChanged, Unbounded, StatusChanged, Bounded]


async def test_noted_page_is_judged_by_the_counter_of_its_time(world: World, clock: Clock) -> None:
    """The task comes again later, when the bound is lost again: the reading is of the moment of the first event."""
    world.tell(flags=0)
    async with clock.events() as events:
        before = clock.counter_ticks()
        world.tell(disruption_marker=2)
        await received(events)
        after = clock.counter_ticks()
        await anyio.sleep(0.01)
        world.tell(disruption_marker=2, flags=0)
        bounded, unbounded = await received(events, 2)
        assert isinstance(bounded, Bounded)
        assert true_ns(before) <= bounded.interval.latest_ns
        assert bounded.interval.earliest_ns <= true_ns(after)
        assert bounded.snapshot.body.flags
        assert isinstance(unbounded, Unbounded)


@pytest.mark.parametrize("device", [1, 2])
async def test_bound_of_a_noted_page_can_be_asked_of_a_closed_clock(world: World, device: int) -> None:
    """It is what the page gave, with the device's marker of then, and no error."""
    with Clock(world.path, fence=world.device) as clock:
        async with clock.events() as events:
            world.device_says(device)
            world.tell(disruption_marker=2)
            await received(events)
            clock.close()
            assert events.bounded == (device == 2)


async def test_noted_page_is_judged_by_the_fence_of_its_time(world: World) -> None:
    """The device reports the next disruption before the task comes again: the bound was there, and was lost."""
    world.device_says(2)
    async with open_clock(world.path, fence=world.device) as clock, clock.events() as events:
        assert not events.bounded
        world.tell(disruption_marker=2)
        assert isinstance((await received(events))[0], Disrupted)
        world.device_says(3)
        kinds = [type(event) for event in await received(events, 2)]
        assert kinds == [Bounded, Unbounded]
        world.tell(disruption_marker=3)
        kinds = [type(event) for event in await received(events, 2)]
        assert kinds == [Disrupted, Bounded]


async def test_fence_that_is_replaced_by_its_like_is_no_lost_bound(world: World) -> None:
    """The new file is read before the page is judged."""
    async with open_clock(world.path, fence=world.device) as clock, clock.events() as events:
        other = world.device.with_name("other")
        other.write_bytes(world.device.read_bytes())
        other.rename(world.device)
        world.tell(flags=BOUNDED | Flags.DISRUPTION_SOON)
        assert isinstance((await received(events))[0], MaintenanceAnnounced)
        assert events.bounded


@pytest.mark.parametrize("follow_loop", [True, False])
async def test_jump_in_the_turn_of_a_migration_is_no_lost_bound(follow_loop: bool) -> None:
    """A played publisher that runs has measured again before anybody looks."""
    with ManualClock(follow_loop=follow_loop) as clock:
        async with clock.events() as events:
            async with meanwhile(clock, events.receive) as outcome:
                clock.migrate()
                clock.advance(2000)
            assert isinstance(outcome[0], Disrupted)
            assert events.bounded


async def test_writer_that_died_in_mid_commit_ends_the_bound(segment: PlayedSegment) -> None:
    """A page that stays half written gives no time; a commit in progress alone is no event."""
    async with open_clock(segment.path, fence=None) as clock, clock.events() as events:
        segment.die_mid_commit()
        assert (await lost(events)).error is SegmentUnstableError
        segment.regain_sync()
        await found_again(events)


async def test_stream_says_nothing_of_its_beginning(world: World, clock: Clock) -> None:
    """Whether there was a bound at first is an attribute, and no event."""
    world.tell(flags=0)
    async with clock.events() as events:
        assert not events.bounded
        world.tell(disruption_marker=2)
        kinds = [type(event) for event in await received(events, 2)]
        assert kinds == [Disrupted, Bounded]
        assert events.bounded


async def test_cancelling_loses_no_event_of_the_bound(world: World, clock: Clock) -> None:
    """However a receive() is cut short, bounds come and go in turn."""
    async with clock.events() as events:
        for turn in range(40):
            world.tell(flags=0) if turn % 2 == 0 else world.tell()
            event = None
            with anyio.move_on_after(turn * 2e-5):
                event = await events.receive()
            first = event or (await received(events))[0]
            assert isinstance(first, Bounded if turn % 2 else Unbounded)


async def test_closed_clock_ends_the_stream_and_is_no_lost_bound(world: World) -> None:
    """Closing a clock is the program's own doing: an error, and no event."""
    with Clock(world.path, fence=None) as clock:
        async with clock.events() as events:
            clock.close()
            with pytest.raises(SegmentError, match="closed"):
                await events.receive()


# How far time jumped.


def jump(machine: ManualClock, happen: Callable[[], None]) -> int | None:
    """The jump of the disruption in *happen*."""
    before = machine.snapshot()
    happen()
    event = events_between(before, machine.snapshot())[0]
    assert isinstance(event, Disrupted)
    return event.jump_ns


@pytest.mark.parametrize("ns", [3 * 86400 * S, -5 * S, 0])
def test_disruption_says_how_far_time_jumped(ns: int) -> None:
    """Forward or back, to within the errors of both, and also where a void time was published in between."""
    with ManualClock(follow_loop=False) as machine:
        machine.advance(0.25)
        found = jump(machine, partial(machine.step, ns))
        assert found is not None
        assert abs(found - ns) < 10**6
        assert abs(jump(machine, machine.migrate) or 0) < 10**6


def test_disruption_without_a_time_before_or_after_has_no_jump() -> None:
    """A void time, one that is too old, and one of another counter value say nothing of how far time jumped."""
    with ManualClock(follow_loop=False) as machine:
        assert jump(machine, lambda: machine.change(disruption_marker=9, clock_status=ClockStatus.UNKNOWN)) is None
        assert jump(machine, lambda: machine.change(disruption_marker=10)) is None
        machine.regain_sync()
        machine.freeze()
        machine.advance(2000)
        machine.migrate()
        assert jump(machine, machine.thaw) is None
        machine.lose_sync()  # so that nothing is measured again meanwhile
        reset = machine.body.counter_value - 10 * S
        assert jump(machine, lambda: machine.change(disruption_marker=11, counter_value=reset)) is None


def test_announced_leap_second_is_no_jump() -> None:
    """It widens one side of the interval at the month's end, and moves no time."""
    new_year_ns = int(datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()) * S
    with ManualClock(utc_ns=new_year_ns - S // 2, follow_loop=False) as machine:
        found = jump(machine, lambda: machine.change(disruption_marker=9, leap_indicator=LeapIndicator.PRE_POS))
    assert found == 0


def test_jump_does_not_decide_whether_two_events_are_equal() -> None:
    """What happened is in the markers; the jump is what the snapshots say of it."""
    with ManualClock(follow_loop=False) as machine:
        snapshot = machine.snapshot()
    assert Disrupted(1, 2, snapshot, jump_ns=5) == Disrupted(1, 2, snapshot)
    assert "jump_ns=5" in repr(Disrupted(1, 2, snapshot, jump_ns=5))


# As JSON.


def test_event_is_one_flat_object() -> None:
    """Its name, and what it carries; the ABI's numbers have their names."""
    with ManualClock(follow_loop=False) as machine:
        snapshot, now = machine.snapshot(), machine.now()
    events: list[tuple[Event, dict[str, object]]] = [
        (Disrupted(1, 2, snapshot, jump_ns=-3), {"event": "disrupted", "before": 1, "after": 2, "jump_ns": -3}),
        (Restored(1, 2, snapshot), {"event": "restored", "before": 1, "after": 2}),
        (
            StatusChanged(ClockStatus.SYNCHRONIZED, 77, snapshot),
            {"event": "status", "before": "SYNCHRONIZED", "after": "77"},
        ),
        (MaintenanceAnnounced(True, snapshot), {"event": "maintenance", "imminent": True}),
        (LeapAnnounced(LeapIndicator.PRE_POS, snapshot), {"event": "leap", "indicator": "PRE_POS"}),
        (SegmentReplaced(snapshot), {"event": "replaced"}),
        (
            Unbounded(ClockNotSynchronizedError, "seen", "to do", snapshot),
            {"event": "unbounded", "error": "ClockNotSynchronizedError", "reason": "seen", "remedy": "to do"},
        ),
        (Bounded(now, snapshot), {"event": "bounded", **now.as_dict()}),
    ]
    for event, fields in events:
        assert event.as_dict() == fields
        assert json.loads(json.dumps(event.as_dict())) == fields


# What a program missed while it did not run.


async def since(world: World, marker: int, generation: int | None, *, count: int) -> list[Event]:
    """The first *count* events for a program that has handled *marker* and *generation*; they come without a wait."""
    kept = VMClockBody(disruption_marker=marker, vm_generation_counter=generation)
    with Clock(world.path, fence=None) as clock:
        async with clock.events(since=kept) as events:
            return await received(events, count)


async def test_stream_can_begin_with_what_was_missed(world: World) -> None:
    """A disruption and a restore come first, each once, and without a jump: nothing is known of the time before."""
    world.tell(disruption_marker=5, vm_generation_counter=8)
    disrupted, restored = await since(world, 4, 6, count=2)
    assert disrupted == Disrupted(4, 5, disrupted.snapshot)
    assert restored == Restored(6, 8, restored.snapshot)
    assert isinstance(disrupted, Disrupted)
    assert disrupted.jump_ns is None
    (disrupted,) = await since(world, 4, 8, count=1)
    assert isinstance(disrupted, Disrupted)


async def test_stream_that_missed_nothing_begins_with_what_comes(world: World, clock: Clock) -> None:
    """Neither its status nor anything else of *since* counts."""
    world.tell(disruption_marker=5, vm_generation_counter=8)
    kept = VMClockBody(disruption_marker=5, vm_generation_counter=8)
    async with clock.events(since=kept) as events:
        world.tell(disruption_marker=6, vm_generation_counter=8)
        (event,) = await received(events)
    assert event == Disrupted(5, 6, event.snapshot)


async def test_page_that_begins_again_says_nothing_of_what_was_missed(world: World, clock: Clock) -> None:
    """A publisher that has not heard from its device has marker 0 and no generation; a later one counts."""
    world.tell(disruption_marker=0)
    kept = VMClockBody(disruption_marker=5, vm_generation_counter=7)
    async with clock.events(since=kept) as events:
        world.tell(disruption_marker=0, vm_generation_counter=8)
        (event,) = await received(events)
    assert event == Restored(7, 8, event.snapshot)
