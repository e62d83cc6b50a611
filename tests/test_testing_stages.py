"""What happens to a machine, played on both stages: files and a real clock, and memory and virtual time."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anyio
import pytest

from kit.waits import settled
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockNotSynchronizedError,
    ClockStatus,
    ClockUnboundedError,
    LeaseLostError,
    SegmentUnstableError,
)
from vmclock_async.events import Disrupted, Event, MaintenanceAnnounced, Restored, StatusChanged
from vmclock_async.testing import ManualClock, PlayedMachine, PlayedSegment

NS = 10**9
MS = 10**6
SYNCHRONIZED, FREERUNNING, UNKNOWN = ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING, ClockStatus.UNKNOWN


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
