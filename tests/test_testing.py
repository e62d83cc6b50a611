"""The testing kit: what its pages and its clock show, and that waiting in virtual time takes none.

What happens to a machine is played on two stages, and tests of it run on both: real files and a real clock, and
memory and virtual time.
"""

import asyncio
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest
import trio.testing
from pydantic import ValidationError

from kit.calls import builtin_calls
from kit.waits import settled
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockNotSynchronizedError,
    ClockStaleError,
    ClockStatus,
    ClockUnboundedError,
    Flags,
    LeaseLostError,
    SegmentError,
    SegmentInUseError,
    SegmentReader,
    SegmentUnstableError,
    SegmentWriter,
    TimeType,
    VMClockBody,
)
from vmclock_async.events import Disrupted, Event, MaintenanceAnnounced, Restored, StatusChanged
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.testing import ManualClock, PlayedMachine, PlayedSegment, make_body
from vmclock_async.timebase import COUNTER_ID, counter_ticks, pair

NS = 10**9
MS = 10**6
BOUNDS = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
ANNOUNCED = Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT


# Bodies


def bounds_of(body: VMClockBody, counter: int) -> tuple[int, int]:
    return bounds_at(Contents(body, COUNTER_ID, TimeType.UTC), counter, counter_id=COUNTER_ID)


def test_body_is_of_this_machine_and_now() -> None:
    """It contains CLOCK_REALTIME, to a millisecond at once and to 500 ppm more later; marker and generation are 1."""
    make_body()  # which measures the period, and that takes a while
    began_ns = time.monotonic_ns()
    body = make_body()
    for pause_s in (0.0, 0.1):  # for the period to matter
        time.sleep(pause_s)
        now = pair(time.CLOCK_REALTIME)
        passed_ns = time.monotonic_ns() - began_ns
        earliest_ns, latest_ns = bounds_of(body, now.counter_ticks)
        assert earliest_ns < now.clock_ns < latest_ns
        assert 2 * MS <= latest_ns - earliest_ns < 2 * MS + passed_ns // 990 + 10
        assert abs((earliest_ns + latest_ns) // 2 - now.clock_ns) < MS // 10 + passed_ns // 2000
    assert (body.disruption_marker, body.vm_generation_counter) == (1, 1)
    assert body.clock_status == ClockStatus.SYNCHRONIZED


def test_bodies_of_one_process_have_one_period() -> None:
    """It is measured once, in 10 ms, and not again for each body."""
    first = make_body()
    with builtin_calls() as called:
        bodies = [make_body() for _ in range(20)]
    assert time.sleep not in called
    assert {body.counter_period_frac_sec for body in bodies} == {first.counter_period_frac_sec}


def test_fields_are_overridden() -> None:
    """A value raises its validity flag, None clears it, and flags are taken as they are."""
    assert make_body(disruption_marker=7).disruption_marker == 7
    assert make_body(tai_offset_sec=-37).flags & Flags.TAI_OFFSET_VALID
    unbounded = make_body(time_maxerror_nanosec=None)
    assert unbounded.flags & BOUNDS == Flags.PERIOD_MAXERROR_VALID
    assert make_body(vm_generation_counter=None).vm_generation_counter is None
    assert not make_body(vm_generation_counter=None).flags & Flags.VM_GEN_COUNTER_PRESENT
    plain = make_body(flags=Flags.DISRUPTION_SOON, vm_generation_counter=None)
    assert plain.flags == Flags.DISRUPTION_SOON
    with pytest.raises(TypeError, match="a body has no counter_id, marker"):
        make_body(marker=1, counter_id=1)
    with pytest.raises(ValidationError, match="time_sec"):
        make_body(time_sec=-1)


# What happens to a machine, body by body


class Script(PlayedMachine):
    """A stage that writes down what is put on it."""

    def __init__(self) -> None:
        super().__init__()
        self.bodies: list[VMClockBody] = []
        self.devices: list[VMClockBody] = []
        self._commit(self._fresh())

    def _measure(self, shift_ns: int) -> dict[str, Any]:
        return {
            "clock_status": ClockStatus.SYNCHRONIZED,
            "time_sec": 100 + shift_ns,
            "time_maxerror_nanosec": 1,
            "counter_period_maxerror_rate_frac_sec": 1,
        }

    def _take(self, body: VMClockBody) -> None:
        self.bodies.append(body)

    def _take_device(self, body: VMClockBody) -> None:
        self.devices.append(body)

    def _leave_odd(self) -> None:
        raise NotImplementedError


def told(body: VMClockBody) -> tuple[int, int | None, int, bool]:
    """Marker, generation, status, and whether there is a bound."""
    return (
        body.disruption_marker,
        body.vm_generation_counter,
        body.clock_status,
        body.flags & BOUNDS == BOUNDS,
    )


SYNCHRONIZED, FREERUNNING, UNKNOWN = ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING, ClockStatus.UNKNOWN


@pytest.mark.parametrize(("happen", "generation"), [(Script.migrate, 1), (Script.restore, 2)])
def test_disruption_voids_the_time_with_its_marker(happen: Callable[[Script], None], generation: int) -> None:
    """The commit that carries the marker is the void one; the next has a time. A restore has a generation, too."""
    machine = Script()
    happen(machine)
    assert [told(body) for body in machine.bodies] == [
        (1, 1, SYNCHRONIZED, True),
        (2, generation, UNKNOWN, False),
        (2, generation, SYNCHRONIZED, True),
    ]
    assert [(body.disruption_marker, body.vm_generation_counter) for body in machine.devices] == [(2, generation)]
    assert machine.body == machine.bodies[-1]


def test_step_has_a_marker_of_the_publishers_own() -> None:
    """One commit, and the device's low half of the marker stays; a migration goes on from there."""
    machine = Script()
    machine.step(5)
    machine.step(-7)
    machine.migrate()
    assert [body.disruption_marker for body in machine.bodies] == [
        1,
        1 + 2**32,
        1 + 2 * 2**32,
        *[2 + 2 * 2**32] * 2,
    ]
    assert [body.time_sec for body in machine.bodies] == [100, 105, 98, 98, 98]
    assert [body.disruption_marker for body in machine.devices] == [2]


def test_sync_is_lost_and_regained() -> None:
    """FREERUNNING keeps the bound and the reference; void has neither; the marker is the same throughout."""
    machine = Script()
    machine.lose_sync()
    machine.lose_sync(void=True)
    machine.regain_sync()
    assert [told(body)[2:] for body in machine.bodies] == [
        (SYNCHRONIZED, True),
        (FREERUNNING, True),
        (UNKNOWN, False),
        (SYNCHRONIZED, True),
    ]
    assert {body.disruption_marker for body in machine.bodies} == {1}
    assert machine.devices == []


def test_maintenance_is_announced_and_over() -> None:
    """The device says it, and the publisher; the migration itself takes it back. No time is touched."""
    machine = Script()
    machine.announce_maintenance()
    machine.announce_maintenance(imminent=True)
    machine.migrate()
    assert [body.flags & ANNOUNCED for body in machine.bodies] == [0, Flags.DISRUPTION_SOON, ANNOUNCED, 0, 0]
    assert [body.flags & ANNOUNCED for body in machine.devices] == [Flags.DISRUPTION_SOON, ANNOUNCED, 0]
    assert told(machine.bodies[2]) == (1, 1, SYNCHRONIZED, True)


def test_frozen_publisher_commits_nothing() -> None:
    """Its own doings are errors; the device goes on, and once it runs again it tells what happened."""
    machine = Script()
    machine.freeze()
    for doing in (
        machine.lose_sync,
        machine.regain_sync,
        lambda: machine.step(1),
        lambda: machine.change(time_sec=1),
    ):
        with pytest.raises(RuntimeError, match=r"frozen.*thaw\(\) it first"):
            doing()
    machine.migrate()
    machine.restore()
    machine.announce_maintenance()
    assert len(machine.bodies) == 1
    assert [body.disruption_marker for body in machine.devices] == [2, 3, 3]
    machine.thaw()
    assert [told(body) for body in machine.bodies[1:]] == [(3, 2, UNKNOWN, False), (3, 2, SYNCHRONIZED, True)]
    assert machine.body.flags & ANNOUNCED == Flags.DISRUPTION_SOON
    assert machine.body.time_sec == 100, "a step that was refused is none"


@pytest.mark.parametrize(("lost", "status"), [(False, SYNCHRONIZED), (True, FREERUNNING)])
def test_thawed_publisher_goes_on_where_nothing_happened(lost: bool, status: ClockStatus) -> None:
    """One commit, which voids nothing: a fresh time if it had one."""
    machine = Script()
    if lost:
        machine.lose_sync()
    machine.freeze()
    machine.thaw()
    assert told(machine.body) == (1, 1, status, True)
    assert len(machine.bodies) == 2 + lost


def test_change_is_of_the_last_body() -> None:
    """As make_body: values raise flags; everything else stays, and lasts through what happens next."""
    machine = Script()
    machine.change(tai_offset_sec=-37, disruption_marker=9)
    assert machine.body.flags & Flags.TAI_OFFSET_VALID
    assert told(machine.body) == (9, 1, SYNCHRONIZED, True)
    machine.migrate()
    assert machine.body.tai_offset_sec == -37
    assert machine.body.disruption_marker == 2, "the device's"
    with pytest.raises(TypeError, match="a body has no marker"):
        machine.change(marker=1)


# On both stages


class Played(NamedTuple):
    machine: PlayedMachine
    clock: Clock | ManualClock
    unfenced: Clock | ManualClock


@pytest.fixture(params=["files", "memory"])
def played(request: pytest.FixtureRequest) -> Iterator[Played]:
    """A machine, and a clock that sees what is played; on files, one more without a fence."""
    if request.param == "memory":
        with ManualClock() as clock:
            yield Played(clock, clock, clock)
        return
    segment: PlayedSegment = request.getfixturevalue("segment")
    with Clock(segment.path, fence=segment.device) as real, Clock(segment.path, fence=None) as unfenced:
        yield Played(segment, real, unfenced)


def true_ns(clock: Clock) -> int:
    return clock.utc_ns if isinstance(clock, ManualClock) else time.time_ns()


def test_both_stages_begin_synchronised(played: Played) -> None:
    """There is a bounded time at once, which is right, behind a fence that holds."""
    clock = played.clock
    before_ns, interval, after_ns = true_ns(clock), clock.now(), true_ns(clock)
    assert interval.earliest_ns <= after_ns
    assert before_ns <= interval.latest_ns
    assert MS <= interval.error_ns < 2 * MS
    assert clock.fenced
    assert clock.status == SYNCHRONIZED
    with pytest.raises(ClockUnboundedError):
        clock.now(max_error_ns=MS // 2)


def test_both_stages_show_what_happens(played: Played) -> None:
    """Each of the errors that a program must bear, and the time that comes back."""
    machine, clock = played.machine, played.clock
    machine.migrate()
    clock.now()
    machine.lose_sync()
    assert clock.now().status == FREERUNNING
    machine.lose_sync(void=True)
    with pytest.raises(ClockNotSynchronizedError):
        clock.now()
    machine.regain_sync()
    before = clock.now()
    machine.step(60 * NS)
    assert clock.now().compare(before.latest_ns + 59 * NS).value == "after"
    machine.step(-60 * NS)
    incarnation = clock.incarnation
    machine.restore()
    assert clock.incarnation != incarnation
    machine.change(time_maxerror_nanosec=None)
    with pytest.raises(ClockUnboundedError):
        clock.now()
    machine.change(time_maxerror_nanosec=5 * MS)
    assert clock.now().error_ns >= 5 * MS


def test_both_stages_have_a_fence(played: Played) -> None:
    """A migration that the publisher has not told of: whoever sees the device has no time until it does."""
    machine, clock = played.machine, played.clock
    machine.freeze()
    clock.now()
    machine.migrate()
    with pytest.raises(ClockDisruptedError, match="device's disruption marker is 2, and the segment's is 1"):
        clock.now()
    if played.unfenced is not clock:
        played.unfenced.now()
    machine.thaw()
    clock.now()


def test_both_stages_die_and_are_repaired(played: Played) -> None:
    """An odd seq_count is no time; the next commit of any kind is, under a number that is even and new."""
    machine, clock = played.machine, played.clock
    first = clock.snapshot().seq_count
    machine.die_mid_commit()
    machine.die_mid_commit()
    with pytest.raises(SegmentUnstableError, match=f"odd at {first + 1}"):
        clock.now()
    machine.lose_sync()
    assert clock.now().status == FREERUNNING
    assert clock.snapshot().seq_count == first + 2
    machine.freeze()
    machine.die_mid_commit()
    machine.migrate()
    machine.thaw()
    clock.now()


async def received(clock: Clock, happen: Callable[[], None]) -> list[Event]:
    """The events of *happen*, received one after the other by a task that waited for the first."""
    found: list[Event] = []

    async def receive(stream: Any) -> None:
        while True:
            found.append(await stream.receive())

    with anyio.fail_after(5):
        async with clock.events() as stream, anyio.create_task_group() as tasks:
            tasks.start_soon(receive, stream)
            await settled()
            assert found == []
            happen()
            seen = clock.snapshot().body
            while not found or found[-1].snapshot.body != seen:
                await anyio.sleep(0.001)
            await settled()  # one snapshot may tell of several
            tasks.cancel_scope.cancel()
    return found


@pytest.mark.anyio
async def test_both_stages_have_events(played: Played) -> None:
    """What happens wakes who waits, and is what was played."""
    machine, clock = played.machine, played.clock
    for happen, kinds in (
        (machine.migrate, [Disrupted]),
        (machine.restore, [Disrupted, Restored]),
        (machine.lose_sync, [StatusChanged]),
        (machine.announce_maintenance, [MaintenanceAnnounced]),
        (lambda: machine.step(1), [Disrupted, StatusChanged]),
    ):
        events = await received(clock, happen)
        assert [type(event) for event in events] == kinds


@pytest.mark.anyio
@pytest.mark.parametrize("happen", [PlayedMachine.migrate, PlayedMachine.restore])
@pytest.mark.parametrize("frozen", [False, True])
async def test_both_stages_end_a_lease(
    played: Played, happen: Callable[[PlayedMachine], None], frozen: bool
) -> None:
    """A disruption ends it, told by the publisher or by the device alone."""
    machine, clock = played.machine, played.clock
    if frozen:
        machine.freeze()

    async def hold() -> None:
        async with clock.lease(10):
            await settled()
            happen(machine)
            await anyio.sleep_forever()

    with anyio.fail_after(5), pytest.raises(LeaseLostError):
        await hold()


@pytest.mark.anyio
async def test_both_stages_keep_a_lease(played: Played) -> None:
    """A source that is lost for a while ends none."""
    async with played.clock.lease(10) as lease:
        played.machine.lose_sync()
        lease.check()
        played.machine.regain_sync()
        lease.check()


@pytest.mark.anyio
async def test_both_stages_wait_out_a_dead_publisher(played: Played) -> None:
    """Who waits for a status when the publisher dies goes on waiting until another commit repairs the page."""
    machine, clock = played.machine, played.clock
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.wait_status, FREERUNNING)
            await settled()
            machine.die_mid_commit()
            await anyio.sleep(0.3)
            machine.lose_sync()


# Files


def test_segment_is_one_file_throughout(segment: PlayedSegment) -> None:
    """Whatever happens, a reader that has it mapped reads on: one inode, one size, numbers that go up."""
    before, numbers = segment.path.stat(), []
    with SegmentReader(segment.path) as reader, SegmentReader(segment.device) as device:
        for happen in (segment.migrate, segment.die_mid_commit, segment.restore, segment.lose_sync):
            happen()
            numbers.append(reader.seq_count)
        assert device.snapshot().body.disruption_marker == 3
        assert device.snapshot().counter_id == 0xFF, "it tells no time"
        assert not device.snapshot().body.counter_period_frac_sec
    assert numbers == sorted(numbers)
    assert len(set(numbers)) == 4
    assert [number % 2 for number in numbers] == [0, 1, 0, 0]
    after = segment.path.stat()
    assert (after.st_ino, after.st_size) == (before.st_ino, before.st_size)


def test_dead_publisher_leaves_its_place_to_another(segment: PlayedSegment) -> None:
    """As one that was killed: no lock, and an interrupted commit for the next writer to repair."""
    segment.die_mid_commit()
    with SegmentWriter(segment.path) as writer:
        assert writer.interrupted
        writer.write(make_body(disruption_marker=5))
    segment.regain_sync()
    assert segment.body.disruption_marker == 1


def test_fixture_costs_other_tests_nothing() -> None:
    """What every pytest imports is one small module: nothing of the library."""
    script = (
        "import sys, vmclock_pytest; print(*sorted(name for name in sys.modules if name.startswith('vmclock')))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["vmclock_pytest"]


# Virtual time


def under_trio(main: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Run *main* under trio's clock that jumps to the next deadline; the seconds that took."""
    began = time.monotonic()
    anyio.run(main, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})
    return time.monotonic() - began


class JumpingLoop(asyncio.SelectorEventLoop):
    """A test clock for asyncio: where the loop would sleep, its time jumps."""

    def __init__(self) -> None:
        self.jumped_s = 0.0
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                if timeout and not (ready := super().select(0)):
                    loop.jumped_s += timeout
                    return ready
                return super().select(timeout)

        super().__init__(Selector())

    def time(self) -> float:
        return self.jumped_s


def under_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """The same, under asyncio."""
    began = time.monotonic()
    anyio.run(main, backend_options={"loop_factory": JumpingLoop})
    return time.monotonic() - began


jumping = pytest.mark.parametrize("run", [under_trio, under_asyncio])


@jumping
def test_hour_of_virtual_time_takes_none(run: Callable[..., float]) -> None:
    """Under a clock that jumps, wait_past returns at once, an hour later, and not a moment too soon."""

    async def main() -> None:
        with ManualClock() as clock:
            began_s, end_ns = anyio.current_time(), clock.utc_ns + 3600 * NS
            assert (await clock.wait_past(end_ns)).earliest_ns > end_ns
            assert clock.utc_ns > end_ns
            assert clock.utc_ns - end_ns < 2 * MS, "the bound, and no more"
            assert 3600 < anyio.current_time() - began_s < 3600.01

    assert run(main) < 30, "it slept"


@jumping
def test_lease_runs_out_in_virtual_time(run: Callable[..., float]) -> None:
    """It ends when the loop's time has gone on by as much, less the drift of the counter."""

    async def main() -> None:
        with ManualClock() as clock:
            began_s = anyio.current_time()

            async def hold() -> None:
                async with clock.lease(30):
                    await anyio.sleep_forever()

            with pytest.raises(LeaseLostError, match="its 30 s are over"):
                await hold()
            assert 29.99 < anyio.current_time() - began_s <= 30.01

    assert run(main) < 30, "it slept"


@jumping
def test_lease_that_can_no_longer_be_read_ends_in_time(run: Callable[..., float]) -> None:
    """A page left half written is waited for, but not for longer than the lease lasts."""

    async def main() -> None:
        with ManualClock() as clock:
            began_s = anyio.current_time()

            async def hold() -> None:
                async with clock.lease(30):
                    await anyio.sleep(29.95)
                    clock.die_mid_commit()
                    await anyio.sleep_forever()

            with pytest.raises(LeaseLostError, match="seq_count stayed odd"):
                await hold()
            assert 29.95 < anyio.current_time() - began_s <= 30.005

    assert run(main) < 30, "it slept"


@jumping
def test_renewed_lease_outlasts_a_commit_at_its_old_end(run: Callable[..., float]) -> None:
    """A page that is half written for a moment is waited for as long as the lease lasts now, not as it did before."""

    async def main() -> None:
        with ManualClock() as clock:
            async with clock.lease(0.3) as lease:
                await anyio.sleep(0.2)
                lease.renew()
                await anyio.sleep(0.04)
                clock.die_mid_commit()
                with pytest.raises(SegmentUnstableError):
                    _ = lease.remaining_ns
                await anyio.sleep(0.075)
                clock.regain_sync()
                await anyio.sleep(0.05)
                lease.check()
                assert 0 < lease.remaining_ns < 0.2 * NS

    assert run(main) < 30, "it slept"


@jumping
def test_program_steps_down_and_up_again(run: Callable[..., float]) -> None:
    """Tasks that sleep, wait and play share one virtual time."""
    log: list[str] = []

    async def program(clock: Clock) -> None:
        while True:
            await clock.wait_bounded(2 * MS)
            log.append("up")
            async with clock.events() as events:
                while not isinstance(await events.receive(), Disrupted | StatusChanged):
                    continue
            log.append("down")

    async def main() -> None:
        with ManualClock() as clock:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(program, clock)
                await anyio.sleep(100)
                clock.migrate()
                await anyio.sleep(100)
                assert log == ["up", "down", "up"]
                clock.lose_sync(void=True)
                await anyio.sleep(100)
                assert log[3:] == ["down"]
                clock.regain_sync()
                await anyio.sleep(100)
                assert log[4:] == ["up"]
                tasks.cancel_scope.cancel()

    assert run(main) < 30, "it slept"


def test_time_jumps_with_trios_clock() -> None:
    """``MockClock.jump``: time that nobody waited for has gone by, too."""
    clock = trio.testing.MockClock()

    async def main() -> None:
        with ManualClock() as manual:
            before_ns = manual.utc_ns
            clock.jump(5)
            assert manual.utc_ns - before_ns == 5 * NS

    anyio.run(main, backend="trio", backend_options={"clock": clock})


@pytest.mark.anyio
async def test_advance_wakes_who_waits() -> None:
    """With a clock that does not follow the loop, time is what the test says, on every loop."""
    past: list[int] = []
    with ManualClock(follow_loop=False, max_error_ns=0) as clock:
        end_ns = clock.utc_ns + 10 * NS

        async def wait() -> None:
            past.append((await clock.wait_past(end_ns)).earliest_ns)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                for _ in range(2):
                    await anyio.wait_all_tasks_blocked()
                    assert past == []
                    clock.advance(5)
                await anyio.wait_all_tasks_blocked()
                assert past == []
                clock.advance(0.001)
        assert past == [end_ns + MS - 1]
        with pytest.raises(ValueError, match="time goes on"):
            clock.advance(-1)


@pytest.mark.anyio
async def test_advance_adds_to_the_loops_time() -> None:
    """Following the loop, who waits an hour goes on when the test says that it is over."""
    with ManualClock() as clock:
        end_ns = clock.utc_ns + 3600 * NS
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(clock.wait_past, end_ns)
                await anyio.wait_all_tasks_blocked()
                clock.advance(3601)
        assert clock.utc_ns > end_ns


def test_time_stands_still_outside_of_a_loop_and_never_goes_back() -> None:
    """It goes on with each loop from where it was, whatever time that loop begins with."""
    clock = ManualClock(utc_ns=NS, max_error_ns=5)
    assert (clock.utc_ns, clock.utc_ns) == (NS, NS)
    assert clock.now().earliest_ns in (NS - 6, NS - 5)
    clock.advance(2)
    seen = [clock.utc_ns]
    assert seen == [3 * NS]

    async def sleep() -> None:
        seen.append(clock.utc_ns)
        await anyio.sleep(7)
        seen.append(clock.utc_ns)

    under_trio(sleep)
    under_asyncio(sleep)
    under_trio(sleep)
    assert seen == sorted(seen)
    assert clock.utc_ns == pytest.approx(24 * NS, abs=1000)


def test_publisher_measures_as_long_as_it_runs() -> None:
    """Once a second; frozen its reference grows old, and without a source its bound grows by 50 ppm."""
    clock = ManualClock()
    clock.advance(10_000)
    assert clock.now().error_ns <= MS + 1
    assert clock.age_ns == 0
    clock.change(time_maxerror_nanosec=2 * MS)
    clock.advance(10)
    assert MS + 1 < clock.now().error_ns <= 2 * MS + 1, "it goes on measuring as well as it did"
    clock.lose_sync()
    clock.advance(100)
    assert clock.now().error_ns == pytest.approx(7 * MS, abs=2)
    clock.regain_sync()
    clock.freeze()
    clock.advance(1000)
    clock.now()
    clock.advance(1)
    with pytest.raises(ClockStaleError):
        clock.now()
    clock.thaw()
    clock.now()


def test_step_moves_what_is_taken_for_true() -> None:
    """``utc_ns`` is true time by what the publisher knows by then: the interval contains it again."""
    clock = ManualClock(max_error_ns=5)
    before_ns = clock.utc_ns
    clock.step(NS)
    assert clock.utc_ns == before_ns + NS
    assert clock.now().earliest_ns <= clock.utc_ns <= clock.now().latest_ns


@pytest.mark.parametrize("leap_s", [-1, 0, 1])
def test_stamps_from_before_a_leap_second_that_is_forgotten(leap_s: int) -> None:
    """A page of the new month does not say how the old one ended; what came before is in the interval all the same."""
    month_ns = 1_767_225_600 * NS  # of 2026
    with ManualClock(utc_ns=month_ns - 3 * NS, follow_loop=False) as clock:
        stamp, stamp_ns = clock.counter_ticks(), clock.utc_ns
        clock.advance(5)
        clock._shift_ns -= leap_s * NS  # without a disruption, as a leap second is
        clock.regain_sync()
        assert clock.now().before(clock.utc_ns + NS)
        for reading in (clock.at(stamp), clock.at_monotonic(stamp)):
            assert reading.earliest_ns <= stamp_ns <= reading.latest_ns
        with pytest.raises(ClockUnboundedError):
            clock.at(stamp, max_error_ns=NS)
        new = clock.counter_ticks()
        assert clock.at(new).error_ns < 2 * MS


def test_stamps_are_of_the_virtual_counter() -> None:
    """``at`` and ``at_monotonic`` take ``counter_ticks``; what is from before a migration means nothing."""
    clock = ManualClock()
    clock.now()
    stamp, then_ns = clock.counter_ticks(), clock.utc_ns
    clock.advance(5)
    assert clock.at(stamp).earliest_ns < then_ns < clock.at(stamp).latest_ns
    assert clock.at_monotonic(stamp).earliest_ns < then_ns < clock.at_monotonic(stamp).latest_ns
    with pytest.raises(ValueError, match="lies ahead"):
        clock.at(clock.counter_ticks() + 1)
    clock.advance(1)
    clock.migrate()
    with pytest.raises(ClockDisruptedError, match="before this clock first saw"):
        clock.at(stamp)


def test_clock_without_a_fence_trusts_its_publisher() -> None:
    """``fenced=False``: a migration that is not told shows nothing."""
    clock = ManualClock(fenced=False)
    assert not clock.fenced
    clock.freeze()
    clock.migrate()
    clock.now()


@pytest.mark.anyio
async def test_closed_clock_ends_waiting() -> None:
    """Who waits gets the error of a closed reader, and so does who asks."""
    clock = ManualClock()
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                with pytest.raises(SegmentError, match="the clock is closed"):
                    await clock.wait_past(clock.utc_ns + 3600 * NS)

            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            clock.close()
    with pytest.raises(SegmentError, match="the clock is closed"):
        clock.now()


@pytest.mark.anyio
async def test_dead_publisher_is_waited_out() -> None:
    """Events come once another commit has repaired the page."""
    with ManualClock() as clock, anyio.fail_after(5):
        async with clock.events() as events, anyio.create_task_group() as tasks:
            clock.die_mid_commit()
            tasks.start_soon(events.receive)
            await anyio.sleep(0.1)
            clock.migrate()


def test_segment_cannot_be_written_twice(segment: PlayedSegment) -> None:
    """A second play on the same files is refused, and leaves the first alone."""
    with pytest.raises(SegmentInUseError):
        PlayedSegment(segment.path.parent)
    segment.migrate()
    assert counter_ticks() > segment.body.counter_value


def test_segment_that_cannot_begin_leaves_no_device_open(tmp_path: Path) -> None:
    """Another writer has the segment: the device is free again for the next try."""
    with SegmentWriter(tmp_path / "shm0"), pytest.raises(SegmentInUseError) as caught:
        PlayedSegment(tmp_path)
    PlayedSegment(tmp_path).close()
    assert "shm0" in str(caught.value)
