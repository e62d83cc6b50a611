"""Waiting for the clock, on every event loop; true time is known (``kit.told_world``).

Nothing here sleeps to let something happen but where true time itself has to go by.
"""

import datetime
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kit.calls import builtin_calls
from kit.earlier_boot import forget_boot
from kit.forks import Started
from kit.half_commit import half_way
from kit.told_world import World, contains, open_descriptors, true_ns
from kit.waits import BOUND_S, disruption, meanwhile, until_waiting
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockNotSynchronizedError,
    ClockStatus,
    LeaseLostError,
    SegmentError,
    SegmentUnstableError,
    Snapshot,
    TimeInterval,
    VMClockError,
    _core,
    open_clock,
)
from vmclock_async.events import (
    Disrupted,
)

pytestmark = pytest.mark.anyio

FAR_NS = 2**62
"""A moment that no test lives to see."""


StartScript = Callable[..., Started]


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


@pytest.mark.parametrize("happen", [World.begin_afresh, World.stop_in_mid_commit])
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
    with pytest.raises(ValueError, match="'SYNCED'; take one of UNKNOWN, INITIALIZING, SYNCHRONIZED"):
        await clock.wait_status("SYNCED")
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
            tasks.start_soon(run, "events", partial(disruption, events))
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
                # As long as they try. A read takes 50 us at most, and each of the seven that wait reads once a round;
                # the stream of events reads once more when it is time to look whether there still is a bound.
                sleeps, reads = await calls_of_the_loop(0.08)
                assert sleeps == 0
                assert 1 <= reads <= 8
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
    assert not open_descriptors() - before
    assert threading.active_count() <= threads + 1
    assert len(anyio.get_running_tasks()) == tasks_before


async def test_opening_a_clock_in_async_code_is_opening_a_clock(world: World, tmp_path: Path) -> None:
    """open_clock gives a Clock with the same options and errors, closed at the block's end."""
    before = open_descriptors()
    async with open_clock(world.path, fence=world.device, max_age=5) as clock:
        assert (clock.fenced, clock.max_age) == (True, 5)
        clock.now()
    assert not open_descriptors() - before
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
