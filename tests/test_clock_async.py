"""Waiting for the clock, its events, leases and incarnations, on every event loop.

True time is known (``told_world``), segment and device are files, a writer that dies is a process. Nothing here
sleeps to let something happen but where true time itself has to go by.
"""

import datetime
import os
import resource
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kit.calls import builtin_calls
from kit.earlier_boot import age_by_a_boot, forget_boot
from kit.told_world import BOUNDED, World, contains, open_descriptors, true_ns
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockNotSynchronizedError,
    ClockStatus,
    ClockUnboundedError,
    Flags,
    LeapIndicator,
    Lease,
    LeaseLostError,
    SegmentError,
    SegmentMalformedError,
    SegmentUnstableError,
    SegmentWriter,
    Snapshot,
    TimeInterval,
    VMClockError,
    _core,
    open_clock,
)
from vmclock_async.events import (
    Disrupted,
    Event,
    EventStream,
    LeapAnnounced,
    MaintenanceAnnounced,
    Restored,
    SegmentReplaced,
    StatusChanged,
)

BOUND_S = 10.0
"""Longest time that a test may wait, on a machine that is busy with others."""
FAR_NS = 2**62
"""A moment that no test lives to see."""

pytestmark = pytest.mark.anyio
RunScript = Callable[..., str]
StartScript = Callable[..., "subprocess.Popen[str]"]


async def until_waiting(clock: Clock, tasks: int = 1) -> None:
    """Return once *tasks* more have gone to sleep on the segment."""
    waits = clock.statistics().waits
    while clock.statistics().waits < waits + tasks:
        await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def meanwhile(clock: Clock, wait: Callable[[], Awaitable[object]]) -> AsyncIterator[list[object]]:
    """Runs *wait* beside the block, which begins once it sleeps; at the block's end it must return within a second.

    What it returned, or raised, is in the list then.
    """
    outcome: list[object] = []

    async def run() -> None:
        try:
            outcome.append(await wait())
        except VMClockError as exc:
            outcome.append(exc)

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            await until_waiting(clock)
            yield outcome


# wait_past.


async def test_wait_past_returns_once_it_is_certain(world: World, clock: Clock) -> None:
    """The reading it returns is past the moment, and so is true time; a moment before it was not certain yet."""
    for _ in range(3):
        ns = clock.now().latest_ns + 4_000_000
        with anyio.fail_after(BOUND_S):
            reading = await clock.wait_past(ns)
        assert reading.earliest_ns > ns
        assert true_ns(_core.counter()) > ns


async def test_wait_past_what_is_past_is_a_checkpoint_and_no_wait(clock: Clock) -> None:
    """It returns the present reading; a cancelled task is stopped all the same."""
    for past in (0, -5, clock.now().earliest_ns - 1):
        before = _core.counter()
        reading = await clock.wait_past(past)
        assert contains(reading, true_ns(before)) or reading.earliest_ns <= true_ns(_core.counter())
    with anyio.CancelScope() as scope:
        scope.cancel()
        await clock.wait_past(0)
    assert scope.cancelled_caught


async def test_wait_past_plans_anew_on_a_commit(world: World, clock: Clock) -> None:
    """With a bound of an hour it would wait an hour; a commit with a better one ends that."""
    ns = clock.now().latest_ns
    world.tell(time_maxerror_nanosec=3600 * 10**9)
    async with meanwhile(clock, partial(clock.wait_past, ns)) as outcome:
        assert outcome == []
        world.tell()
    assert outcome[0].earliest_ns > ns  # type: ignore[attr-defined]


async def test_wait_past_ends_with_a_disruption(world: World, clock: Clock) -> None:
    """What was waited for may mean nothing any more: ClockDisruptedError, with both markers."""
    async with meanwhile(clock, partial(clock.wait_past, FAR_NS)) as outcome:
        world.tell(disruption_marker=7)
    assert isinstance(outcome[0], ClockDisruptedError)
    assert "from 1 to 7" in str(outcome[0])


async def test_wait_past_ends_when_the_device_tells_of_a_disruption(world: World, fenced: Clock) -> None:
    """Though the publisher is stopped, and commits nothing."""
    async with meanwhile(fenced, partial(fenced.wait_past, FAR_NS)) as outcome:
        world.device_says(2)
    assert isinstance(outcome[0], ClockDisruptedError)
    assert "the device's disruption marker is 2" in str(outcome[0])


async def test_wait_past_ends_when_there_is_no_bound_any_more(world: World, clock: Clock) -> None:
    """With now()'s own error."""
    async with meanwhile(clock, partial(clock.wait_past, FAR_NS)) as outcome:
        world.tell(clock_status=0)
    assert isinstance(outcome[0], ClockNotSynchronizedError)


# wait_status, wait_bounded.


async def test_wait_status_returns_with_the_status(world: World, clock: Clock) -> None:
    """At once if it is there; else with the commit that brings one of those asked for."""
    with anyio.fail_after(BOUND_S):
        now = await clock.wait_status(ClockStatus.SYNCHRONIZED)
    assert now.body.clock_status is ClockStatus.SYNCHRONIZED
    wait = partial(clock.wait_status, ClockStatus.UNRELIABLE, ClockStatus.FREERUNNING)
    async with meanwhile(clock, wait) as outcome:
        world.tell(clock_status=ClockStatus.UNKNOWN)
        await until_waiting(clock)
        assert outcome == []
        world.tell(clock_status=ClockStatus.FREERUNNING)
    assert isinstance(outcome[0], Snapshot)
    assert outcome[0].body.clock_status is ClockStatus.FREERUNNING


async def test_wait_bounded_returns_with_a_reading_that_will_do(world: World, clock: Clock) -> None:
    """Through each reason for which there is none, to the first that is bounded well enough."""
    world.tell(clock_status=0)
    async with meanwhile(clock, partial(clock.wait_bounded, 100_000)) as outcome:
        for changes in ({"flags": 0}, {"age_s": 2000}, {"time_type": 3}, {"time_maxerror_nanosec": 200_000}):
            world.tell(**changes)
            await until_waiting(clock)
            assert outcome == []
        world.tell()
    assert outcome[0].error_ns <= 100_000  # type: ignore[attr-defined]


async def test_wait_bounded_waits_for_a_publisher_that_has_not_told_yet(world: World, fenced: Clock) -> None:
    """While device and segment disagree there is no bound."""
    world.device_says(2)
    async with meanwhile(fenced, fenced.wait_bounded) as outcome:
        world.tell()
        await until_waiting(fenced)
        assert outcome == []
        world.tell(disruption_marker=2)
    assert fenced.now().earliest_ns > outcome[0].earliest_ns  # type: ignore[attr-defined]


async def test_wait_bounded_sees_the_device_agree_without_a_commit(world: World, fenced: Clock) -> None:
    """A segment that was ahead of the device: no commit tells that it has come up."""
    world.marker = 2
    world.tell()
    async with meanwhile(fenced, fenced.wait_bounded) as outcome:
        assert outcome == []
        world.device_says(2)
    assert outcome


async def test_wait_bounded_sees_what_comes_without_a_commit(world: World, clock: Clock) -> None:
    """A file that was written a little later than now, by a clock that was set back since: it becomes of this boot."""
    ahead_ns = time.time_ns() + 300_000_000
    forget_boot(world.path)
    os.utime(world.path, ns=(ahead_ns, ahead_ns))
    refusal = None
    try:
        clock.now()
    except ClockDisruptedError as exc:
        refusal = str(exc)
    assert time.time_ns() >= ahead_ns if refusal is None else "its clock was set" in refusal
    with anyio.fail_after(BOUND_S):
        await clock.wait_bounded()
    assert time.time_ns() >= ahead_ns


def begin_afresh(world: World) -> None:
    """A cold start in place, and nothing committed yet."""
    world.writer.close()
    age_by_a_boot(world.path)
    world.writer = SegmentWriter(world.path, size=112)


@pytest.mark.parametrize("happen", [begin_afresh, World.stop_in_mid_commit])
async def test_readiness_is_waited_for_though_there_is_no_page(
    world: World, clock: Clock, happen: Callable[[World], None]
) -> None:
    """Whoever begins to wait while the segment is begun afresh, or was left half written, waits for its publisher."""
    happen(world)
    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.wait_status, ClockStatus.SYNCHRONIZED)
            tasks.start_soon(clock.wait_bounded)
            await anyio.sleep(0.25)  # longer than a commit that does not end is waited for anywhere
            with pytest.raises(SegmentError):
                clock.now()
            world.tell()


@pytest.mark.parametrize("name", ["wait_past", "wait_status", "wait_bounded"])
async def test_waits_are_checkpoints(clock: Clock, name: str) -> None:
    """A cancelled task is stopped in each, though there is something to return."""
    argument = ClockStatus.SYNCHRONIZED if name == "wait_status" else 0 if name == "wait_past" else None
    with anyio.CancelScope() as scope:
        scope.cancel()
        await getattr(clock, name)(argument)
    assert scope.cancelled_caught


async def test_waits_for_nothing_are_refused(clock: Clock) -> None:
    """No status, or one that there is not, would never come; an interval or a float is no moment."""
    for statuses in ((), (2.0,)):
        with pytest.raises(TypeError):
            await clock.wait_status(*statuses)
    with pytest.raises(ValueError, match="'SYNCHRONISED'; take one of UNKNOWN, INITIALIZING, SYNCHRONIZED"):
        await clock.wait_status("SYNCHRONISED")
    for moment in (1.5, True, "2026-01-01", datetime.datetime(2026, 1, 1)):
        with pytest.raises(TypeError):
            await clock.wait_past(moment)  # type: ignore[arg-type]


async def test_wait_past_takes_an_interval_nanoseconds_or_a_datetime(clock: Clock) -> None:
    """An interval is past once its end is; a datetime counts to its microsecond."""
    interval = clock.now()
    for moment, ns in (
        (interval, interval.latest_ns),
        (interval.latest_ns, interval.latest_ns),
        (interval.latest, interval.latest_ns // 1000 * 1000),
    ):
        assert (await clock.wait_past(moment)).earliest_ns > ns


async def test_closing_a_clock_ends_every_wait(world: World) -> None:
    """Tasks that wait get a SegmentError that says so."""
    clock = Clock(world.path, fence=world.device)
    reasons: list[str] = []

    async def run(wait: Callable[[], Awaitable[object]]) -> None:
        with pytest.raises(SegmentError, match="closed"):
            await wait()
        reasons.append(wait.func.__name__)  # type: ignore[attr-defined]

    with anyio.fail_after(BOUND_S):
        async with clock.events() as events, anyio.create_task_group() as tasks:
            tasks.start_soon(run, partial(clock.wait_past, FAR_NS))
            tasks.start_soon(run, partial(clock.wait_status, ClockStatus.UNKNOWN))
            tasks.start_soon(run, partial(clock.wait_bounded, 0))
            tasks.start_soon(run, partial(events.receive))
            await until_waiting(clock, 4)
            clock.close()
    assert sorted(reasons) == ["receive", "wait_bounded", "wait_past", "wait_status"]


# Events.


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
        found = await received(events, 5)
        shown = found[0].snapshot
        assert shown.seq_count == world.writer.seq_count
        assert found == [
            Disrupted(1, 2, shown),
            Restored(10, 11, shown),
            StatusChanged(ClockStatus.SYNCHRONIZED, ClockStatus.UNKNOWN, shown),
            MaintenanceAnnounced(False, shown),
            LeapAnnounced(LeapIndicator.PRE_POS, shown),
        ]
        steady = {"vm_generation_counter": 11, "disruption_marker": 2}
        world.tell(**steady, flags=BOUNDED | SOON | IMMINENT)
        found = await received(events, 2)
        assert [type(event) for event in found] == [StatusChanged, MaintenanceAnnounced]
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


async def test_a_marker_that_moved_while_nobody_looked_is_one_event(world: World, clock: Clock) -> None:
    """No disruption or restore is lost; two are one; a status that came and went is none."""
    async with clock.events() as events:
        for marker in (2, 3, 4):
            world.tell(disruption_marker=marker, clock_status=0)
        world.tell(disruption_marker=4)
        (event,) = await received(events, 1)
        assert event == Disrupted(1, 4, event.snapshot)
        world.tell(disruption_marker=5)
        assert isinstance((await received(events, 1))[0], Disrupted)


async def test_an_event_wakes_who_waits_for_it(world: World, clock: Clock) -> None:
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


async def test_a_segment_in_anothers_place_is_an_event(world: World, clock: Clock) -> None:
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


async def test_a_segment_that_is_missing_for_a_while_is_waited_for(world: World, clock: Clock) -> None:
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


async def test_a_cold_start_in_place_is_waited_out(world: World, clock: Clock) -> None:
    """While version is 0 there is nothing to compare with; then the difference to the last body."""
    async with clock.events() as events:
        begin_afresh(world)
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


# A writer that is stopped, or killed, in the middle of a commit.

HALF_WAY_SCRIPT = """
import mmap, struct, sys
with open(sys.argv[1], "r+b") as file:
    page = mmap.mmap(file.fileno(), 0)
    (seq_count,) = struct.unpack_from("<I", page, 12)
    struct.pack_into("<I", page, 12, seq_count | 1)
    print(seq_count | 1, flush=True)
    sys.stdin.readline()
    struct.pack_into("<I", page, 12, (seq_count | 1) + 1)
"""


@contextmanager
def half_way(world: World, start_script: StartScript, sent: signal.Signals) -> Iterator["subprocess.Popen[str]"]:
    """A process has begun a commit, and was sent *sent* then."""
    process = start_script(HALF_WAY_SCRIPT, world.path)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdecimal()
    process.send_signal(sent)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    yield process


async def calls_of_the_loop(seconds: float) -> tuple[int, int]:
    """How often the loop's thread called time.sleep(), and how often it read a page in one round, at most.

    Counted, not timed: how long other processes had the processor says nothing of the loop.
    """
    end = time.monotonic() + seconds
    sleeps = most = 0
    with builtin_calls() as called:
        while time.monotonic() < end:
            called.clear()
            await anyio.lowlevel.checkpoint()
            sleeps += called.count(time.sleep)
            most = max(most, sum(function.__name__ in ("read", "read_with_counter") for function in called))
    return sleeps, most


@pytest.mark.parametrize("sent", [signal.SIGSTOP, signal.SIGKILL])
async def test_nothing_blocks_the_loop_whatever_the_writer_does(
    world: World, clock: Clock, start_script: StartScript, sent: signal.Signals
) -> None:
    """All await while a commit does not end; after 100 ms leases and new commit-waits give up, others wait on."""
    ended: dict[str, object] = {}

    async def run(name: str, wait: Callable[[], Awaitable[object]]) -> None:
        try:
            ended[name] = await wait()
        except VMClockError as exc:
            ended[name] = exc

    with anyio.fail_after(BOUND_S):
        async with clock.events() as events, anyio.create_task_group() as tasks:
            tasks.start_soon(run, "events", events.receive)
            tasks.start_soon(run, "sleeper", partial(clock.wait_past, FAR_NS))
            await until_waiting(clock, 2)
            tasks.start_soon(run, "lease", partial(hold_lease, clock))
            await until_waiting(clock, 2)  # for its token, and then for what may end it
            with half_way(world, start_script, sent):
                waits: list[tuple[str, Callable[[], Awaitable[object]]]] = [
                    ("wait_past", partial(clock.wait_past, FAR_NS)),
                    ("wait_status", partial(clock.wait_status, ClockStatus.SYNCHRONIZED)),
                    ("wait_bounded", clock.wait_bounded),
                ]
                for name, wait in waits:
                    tasks.start_soon(run, name, wait)
                # As long as they try. A read takes 50 us at most, and each of the seven that wait reads once a round.
                sleeps, reads = await calls_of_the_loop(0.08)
                assert sleeps == 0
                assert 1 <= reads <= 7
                while len(ended) < 2:
                    await anyio.sleep(0.001)
            assert ended.keys() == {"lease", "wait_past"}
            assert all("stayed odd at 3 for 100 ms" in str(exc) for exc in ended.values())
            assert isinstance(ended["lease"], LeaseLostError)
            # Who has no need of it yet waits on: another writer repairs it.
            with pytest.raises(SegmentUnstableError):
                clock.now()
            world.tell(disruption_marker=5)
    assert isinstance(ended["events"], Disrupted)
    assert isinstance(ended["sleeper"], ClockDisruptedError)
    assert isinstance(ended["wait_status"], Snapshot)
    assert isinstance(ended["wait_bounded"], TimeInterval)


async def test_events_outlast_a_writer_that_died_in_mid_commit(
    world: World, clock: Clock, start_script: StartScript
) -> None:
    """receive() waits through it; the repairing commit is compared with the last whole body."""
    async with clock.events() as events:
        async with meanwhile(clock, events.receive) as outcome:
            with half_way(world, start_script, signal.SIGKILL):
                world.path.touch()  # as a writer that gets to wake readers before the next begins
                await until_waiting(clock)
                assert outcome == []
            world.tell(disruption_marker=5)
    assert isinstance(outcome[0], Disrupted)


# Leases.


async def test_a_lease_is_held_for_the_block(world: World, clock: Clock) -> None:
    """It ends with the block, quietly; its token was the present's latest_ns, and is past when the block begins."""
    before = clock.now()
    with anyio.fail_after(BOUND_S):
        async with clock.lease(30) as lease:
            assert isinstance(lease, Lease)
            assert before.earliest_ns <= lease.token < clock.now().earliest_ns
            lease.check()
            assert lease.duration_s == 30
            first = lease.remaining_ns
            await anyio.sleep(0.001)
            assert 29 * 10**9 < lease.remaining_ns < first < 30 * 10**9


async def test_a_later_lease_has_a_greater_token(world: World, clock: Clock, run_script: RunScript) -> None:
    """Of two leases, anywhere: by the same clock, by another, in another process, after commits that correct."""
    tokens = []
    for wrong_ns in (700, -700, 0):
        world.tell(time_maxerror_nanosec=100_000 + wrong_ns)
        async with clock.lease(30) as lease:
            tokens.append(lease.token)
        with Clock(world.path, fence=None) as other:
            async with other.lease(30) as lease:
                tokens.append(lease.token)
    tokens.append(int(run_script(TOKEN_SCRIPT, world.path)))
    async with clock.lease(30) as lease:
        tokens.append(lease.token)
    assert tokens == sorted(set(tokens))


TOKEN_SCRIPT = """
import anyio, sys
from vmclock_async import open_clock
async def main():
    async with open_clock(sys.argv[1], fence=None) as clock, clock.lease(30) as lease:
        print(lease.token)
anyio.run(main)
"""


@pytest.mark.parametrize("drift_ppm", [None, 200_000])
async def test_a_lease_never_outlasts_its_duration(world: World, drift_ppm: float | None) -> None:
    """By true time, though ticks take 15 % longer than the segment says, which is within the bound it gives."""
    period, rate = 0.87, 0.2
    told = world.writer.body.counter_period_frac_sec
    flags = BOUNDED if drift_ppm is None else BOUNDED & ~Flags.PERIOD_MAXERROR_VALID
    shortened = int(told * period)
    world.tell(
        flags=flags,
        counter_period_frac_sec=shortened,
        counter_period_maxerror_rate_frac_sec=int(shortened * rate) if drift_ppm is None else 0,
    )
    with Clock(world.path, fence=None, max_drift_ppm=drift_ppm) as clock, anyio.fail_after(BOUND_S):
        begun_at, lease, held_at = _core.counter(), None, 0
        with pytest.raises(VMClockError) as over:  # noqa: PT012
            async with clock.lease(0.1) as lease:
                while True:
                    before = _core.counter()
                    lease.check()
                    held_at = before
        over_at = _core.counter()
        # It is not over before: the longest tick is 0.87 * 1.2 of one.
        assert true_ns(over_at) - true_ns(begun_at) > 0.095 * 10**9
        assert_over(over.value, "0.1 s")
        if lease is not None:
            assert true_ns(over_at) - true_ns(lease._start) > 0.095 * 10**9
            assert true_ns(held_at) - true_ns(lease._start) < 10**8
            assert lease.remaining_ns == 0
            with pytest.raises(LeaseLostError):
                lease.renew()


def assert_over(error: VMClockError, duration: str) -> None:
    """*error* says that a lease's time was over: in its block, or, where the machine took as long, in its beginning."""
    if not isinstance(error, LeaseLostError):
        assert isinstance(error, ClockUnboundedError)
        assert f"lease of {duration} would be over" in str(error)
    else:
        assert f"its {duration} are over" in str(error)


async def test_a_lease_cancels_its_block_when_it_is_over(clock: Clock) -> None:
    """A block that awaits is ended, with the reason; and not before the time."""
    start = time.monotonic()
    with anyio.fail_after(BOUND_S):
        with pytest.raises(VMClockError) as over:
            async with clock.lease(0.05):
                await anyio.sleep_forever()
    assert time.monotonic() - start > 0.049
    assert_over(over.value, "0.05 s")


async def test_a_renewed_lease_goes_on(clock: Clock) -> None:
    """Each renewal begins the duration anew; the token stays."""
    with anyio.fail_after(BOUND_S):
        renewed = time.monotonic()
        with pytest.raises(VMClockError) as over:  # noqa: PT012
            async with clock.lease(0.1) as lease:
                token, began = lease.token, renewed
                while renewed < began + 0.25:
                    await anyio.sleep(0.05)
                    renewed, since = time.monotonic(), true_ns(_core.counter())
                    lease.renew()
                    remaining_ns = lease.remaining_ns
                    # Of the longest tick that there may be it is a little less than what true time leaves of it.
                    assert remaining_ns > 0.0999 * 10**9 - 1.01 * (true_ns(_core.counter()) - since)
                assert lease.token == token
                await anyio.sleep_forever()
    # For as long as it was renewed in time, and no less than its duration after that.
    assert time.monotonic() - renewed >= 0.099
    assert_over(over.value, "0.1 s")


def garbage_in_place(world: World) -> None:
    """What is no segment is moved over the path."""
    garbage = world.path.with_name("garbage")
    garbage.write_bytes(b"x" * 200)
    garbage.rename(world.path)


def migrate(world: World) -> None:
    """The device tells of it, and the publisher."""
    world.tell(disruption_marker=2)
    world.device_says(2)


HAPPENINGS = [
    pytest.param(migrate, "marker was 1, and is 2", id="migration"),
    pytest.param(
        lambda world: world.tell(disruption_marker=1 + 2**32),
        "marker was 1, and is",
        id="publishers-own-disruption",
    ),
    pytest.param(lambda world: world.tell(vm_generation_counter=6), "generation was 5, and is 6", id="restore"),
    pytest.param(lambda world: world.device_says(2), "its publisher has not told yet", id="fence"),
    pytest.param(
        lambda world: world.tell(clock_status=0, vm_generation_counter=5), "clock_status is UNKNOWN", id="no-bound"
    ),
    pytest.param(lambda world: world.tell(age_s=2000, vm_generation_counter=5), "2000 s old", id="stale"),
    pytest.param(lambda world: world.replace(vm_generation_counter=5), "segment was replaced", id="replaced"),
    pytest.param(World.remove, "replaced by another, or removed", id="removed"),
    pytest.param(garbage_in_place, "replaced by another|magic", id="garbage"),
    pytest.param(World.stop_in_mid_commit, "stayed odd", id="unreadable"),
]


@pytest.mark.parametrize(("happen", "reason"), HAPPENINGS)
async def test_a_lease_ends_with_what_it_is_measured_by(
    world: World, happen: Callable[[World], object], reason: str
) -> None:
    """Its block is cancelled within about a second, and LeaseLostError says what happened."""
    world.tell(vm_generation_counter=5)
    with Clock(world.path, fence=world.device) as clock, anyio.fail_after(BOUND_S):
        with pytest.raises(LeaseLostError, match=reason):  # noqa: PT012
            async with clock.lease(60) as lease:
                await until_waiting(clock)
                happen(world)
                waits = clock.statistics().waits
                await anyio.sleep_forever()
        # Within a second's looks, however long the machine took for them: while the path leads nowhere it looks often.
        assert clock.statistics().waits < waits + 25
        assert lease.remaining_ns == 0


@pytest.mark.parametrize(("happen", "reason"), HAPPENINGS)
async def test_check_tells_at_once(world: World, happen: Callable[[World], object], reason: str) -> None:
    """Without an await in between, the very next check() raises; and so does every one after, whatever comes."""
    world.tell(vm_generation_counter=5)
    with Clock(world.path, fence=world.device) as clock, anyio.fail_after(BOUND_S):
        with pytest.raises((LeaseLostError, SegmentUnstableError), match=reason):  # noqa: PT012
            async with clock.lease(60) as lease:
                lease.check()
                happen(world)
                lease.check()
        if reason != "stayed odd":  # of which it cannot be told yet
            with pytest.raises(LeaseLostError, match=reason):
                lease.check()
            with pytest.raises(LeaseLostError, match=reason):
                lease.renew()


async def test_a_block_that_ends_in_doubt_has_lost_its_lease(world: World, clock: Clock) -> None:
    """check() could not tell, and the block let that out: whoever waits for LeaseLostError gets it, with its cause."""
    with pytest.raises(LeaseLostError, match="stayed odd") as lost:  # noqa: PT012
        async with clock.lease(60) as lease:
            world.stop_in_mid_commit()
            lease.check()
    assert isinstance(lost.value.__cause__, SegmentUnstableError)
    world.tell()
    other = SegmentUnstableError("/another", "of another segment", 1)
    with pytest.raises(SegmentUnstableError, match="of another segment"):
        async with clock.lease(60):
            raise other


async def test_a_lease_outlasts_commits_that_change_nothing_of_it(world: World, clock: Clock) -> None:
    """A fresh reference, another bound, a maintenance notice, free-running: it is held all the same."""
    async with clock.lease(60) as lease:
        for changes in (
            {"time_maxerror_nanosec": 10**8},
            {"flags": BOUNDED | SOON},
            {"clock_status": ClockStatus.FREERUNNING, "age_s": 50},
            {"leap_indicator": 1},
        ):
            await until_waiting(clock)
            world.tell(**changes)
            lease.check()
        await until_waiting(clock)
        lease.check()


async def test_the_blocks_own_exceptions_stay_bare(clock: Clock) -> None:
    """No group around them, with what they came from; a group of the block's own is not wrapped in another."""
    with pytest.raises(KeyError, match="mine") as bare:  # noqa: PT012
        async with clock.lease(60):
            try:
                raise ValueError("first")
            except ValueError:
                raise KeyError("mine")  # noqa: B904
    assert isinstance(bare.value.__context__, ValueError)
    assert bare.value.__context__.__context__ is None
    assert not bare.value.__suppress_context__
    group = ExceptionGroup("mine", [KeyError("one"), ValueError("two")])
    with pytest.raises(ExceptionGroup) as caught:
        async with clock.lease(60):
            raise group
    # On trio a copy of it: its nurseries put together anew what goes through them.
    assert (caught.value.message, caught.value.exceptions) == ("mine", group.exceptions)


async def test_cancelling_from_outside_is_no_loss(clock: Clock) -> None:
    """The canceller's scope catches it: no LeaseLostError, and nothing is left running."""
    with anyio.CancelScope() as scope:
        async with clock.lease(60) as lease, anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 0)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(LeaseLostError, match="its block has ended"):
        lease.check()  # whoever was handed it
    async with clock.lease(60) as lease, anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("duration_s", [0, -1, float("nan"), float("inf"), 1001])
async def test_a_duration_is_positive_and_within_max_age(clock: Clock, duration_s: float) -> None:
    """Longer than a reference is carried forward it could not be measured."""
    with pytest.raises(ValueError, match="a lease lasts more than 0 s and 1000 s at most"):
        async with clock.lease(duration_s):
            pass


async def test_without_a_bound_there_is_no_lease(world: World, clock: Clock) -> None:
    """Entering raises now()'s error; at once also what takes longer to begin than it lasts, and says what to do."""
    world.tell(clock_status=0)
    with pytest.raises(ClockNotSynchronizedError):
        async with clock.lease(60):
            pass
    world.tell(time_maxerror_nanosec=30 * 10**9)
    refused = pytest.raises(ClockUnboundedError, match=r"lease of 20 s would be over .* wait_bounded\(\) first")
    with refused, anyio.fail_after(BOUND_S):
        async with clock.lease(20):  # its token alone takes a minute to be past
            pass


# Incarnation.


async def test_an_incarnation_lasts_until_a_restore(world: World, clock: Clock) -> None:
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


async def test_without_a_generation_every_disruption_of_the_device_may_be_a_restore(
    world: World, clock: Clock
) -> None:
    """The low half of the marker is the device's; the high half counts the publisher's own."""
    first = clock.incarnation
    world.tell(disruption_marker=1 + 2**32)
    assert clock.incarnation == first
    world.tell(disruption_marker=2 + 2**32)
    assert clock.incarnation != first


async def test_no_incarnation_is_drawn_before_it_is_asked_for(world: World, clock: Clock) -> None:
    """What were drawn at the opening, a snapshot of the machine taken before the first use would copy."""
    clock.now()
    assert clock._incarnation._drawn is None


async def test_no_incarnation_while_the_publisher_has_not_told(world: World, fenced: Clock) -> None:
    """The device tells of a disruption, and whether it was a restore is not known yet: ClockDisruptedError."""
    first = fenced.incarnation
    world.device_says(2)
    with pytest.raises(ClockDisruptedError, match="its publisher has not told yet"):
        _ = fenced.incarnation
    world.tell(disruption_marker=2)
    assert fenced.incarnation != first


INCARNATION_SCRIPT = """
import sys
from vmclock_async import Clock
with Clock(sys.argv[1], fence=None) as clock:
    print(clock.incarnation)
"""


async def test_two_processes_are_two_incarnations(world: World, clock: Clock, run_script: RunScript) -> None:
    """Of one segment, at one time."""
    found = {str(clock.incarnation)} | {run_script(INCARNATION_SCRIPT, world.path).strip()}
    assert len(found) == 2


async def test_callbacks_are_awaited_before_a_new_incarnation_is_seen(world: World) -> None:
    """One after the other, with the snapshot that showed the restore; until then there is none."""
    calls: list[object] = []
    go_on = anyio.Event()

    async def first(snapshot: Snapshot) -> None:
        calls.append(snapshot.body.vm_generation_counter)
        await go_on.wait()
        calls.append("first is done")

    async def second(snapshot: Snapshot) -> None:
        calls.append(snapshot.body.vm_generation_counter)

    world.tell(vm_generation_counter=5)
    with anyio.fail_after(BOUND_S):
        async with open_clock(world.path, fence=None, on_restore=[first, second]) as clock:
            before = clock.incarnation
            await until_waiting(clock)
            world.tell(vm_generation_counter=6)
            while not calls:
                with pytest.raises(ClockDisruptedError, match="is now 6"):
                    _ = clock.incarnation
                await anyio.lowlevel.checkpoint()
            with pytest.raises(ClockDisruptedError, match="not finished; try again"):
                _ = clock.incarnation
            clock.now()
            go_on.set()
            while True:
                try:
                    after = clock.incarnation
                    break
                except ClockDisruptedError:
                    await anyio.lowlevel.checkpoint()
    assert after != before
    assert calls == [6, "first is done", 6]


async def test_what_a_callback_raises_ends_the_block(world: World) -> None:
    """Bare, and as it was raised: keys that could not be made anew are no small matter."""

    async def fail(_: Snapshot) -> None:
        raise KeyError("no keys")

    world.tell(vm_generation_counter=5)
    with anyio.fail_after(BOUND_S), pytest.raises(KeyError, match="no keys"):  # noqa: PT012
        async with open_clock(world.path, fence=None, on_restore=[fail]) as clock:
            await until_waiting(clock)
            world.tell(vm_generation_counter=6)
            await anyio.sleep_forever()


async def test_a_writer_that_dies_is_no_reason_to_end_the_block(world: World, start_script: StartScript) -> None:
    """Who only wants to know of restores waits on while the segment cannot be read, and then is told."""
    calls: list[int | None] = []

    async def note(snapshot: Snapshot) -> None:
        calls.append(snapshot.body.vm_generation_counter)

    world.tell(vm_generation_counter=5)
    with anyio.fail_after(BOUND_S):
        async with open_clock(world.path, fence=None, on_restore=[note]) as clock:
            await until_waiting(clock)
            world.tell(vm_generation_counter=5)
            with half_way(world, start_script, signal.SIGKILL):
                await anyio.sleep(0.15)
            world.tell(vm_generation_counter=6)
            while not calls:
                await anyio.sleep(0.001)
    assert calls == [6]


# Nothing is left behind.


async def hold_lease(clock: Clock) -> None:
    """Hold a lease for ever."""
    async with clock.lease(500):
        await anyio.sleep_forever()


async def next_event(clock: Clock) -> None:
    """Wait for an event."""
    async with clock.events() as events:
        await events.receive()


async def do_nothing(_: Snapshot) -> None:
    """A callback."""


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(lambda clock: clock.wait_past(FAR_NS), id="wait_past"),
        pytest.param(lambda clock: clock.wait_status(ClockStatus.UNKNOWN), id="wait_status"),
        pytest.param(lambda clock: clock.wait_bounded(0), id="wait_bounded"),
        pytest.param(next_event, id="events"),
        pytest.param(hold_lease, id="lease"),
    ],
)
async def test_cancelling_anywhere_leaves_nothing_behind(
    world: World, wait: Callable[[Clock], Awaitable[object]]
) -> None:
    """At each await of opening and waiting: no descriptor, task or thread more than before."""

    waiting = anyio.Event()

    async def use() -> None:
        opened = open_clock(world.path, fence=world.device, on_restore=[do_nothing])
        async with opened as clock, anyio.create_task_group() as tasks:

            async def watch() -> None:
                await until_waiting(clock)
                waiting.set()

            tasks.start_soon(watch)
            await wait(clock)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(use)  # what is loaded once, and the threads that are kept
        await waiting.wait()
        tasks.cancel_scope.cancel()
    before, threads = open_descriptors(), threading.active_count()
    tasks_before = len(anyio.get_running_tasks())
    with anyio.fail_after(BOUND_S):
        for steps in range(18):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(use)
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
        for microseconds in range(0, 4000, 600):
            with anyio.move_on_after(microseconds / 10**6):
                await use()
    assert open_descriptors() == before
    assert threading.active_count() <= threads + 1
    assert len(anyio.get_running_tasks()) == tasks_before


async def test_opening_a_clock_in_async_code_is_opening_a_clock(world: World, tmp_path: Path) -> None:
    """open_clock gives a Clock with the same options and errors, closed at the block's end."""
    before = open_descriptors()
    async with open_clock(world.path, fence=world.device, max_age=5) as clock:
        assert (clock.fenced, clock.max_age) == (True, 5)
        clock.now()
    assert open_descriptors() == before
    with pytest.raises(SegmentError, match="closed"):
        clock.now()
    with pytest.raises(SegmentError, match="nothing is there"):
        async with open_clock(tmp_path / "none"):
            pass
    with pytest.raises(ValueError, match="max_age"):
        async with open_clock(world.path, max_age=-1):
            pass
    error: Any = KeyError("mine")
    with pytest.raises(KeyError) as caught:
        async with open_clock(world.path, fence=None, on_restore=[do_nothing]):
            raise error
    assert caught.value is error
