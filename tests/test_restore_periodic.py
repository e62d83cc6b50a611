"""Timers by UTC: never early, no burst after a restore, no sleep through one; in virtual time, on each event loop."""

import datetime
import pickle
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import anyio
import pytest
import trio.testing

from kit.waits import BOUND_S, settled
from vmclock_async import SegmentError, open_clock
from vmclock_async.restore import Periodic, Tick, sleep_until
from vmclock_async.testing import ManualClock, PlayedSegment

NS: Final = 10**9
THREE_DAYS_S: Final = 3 * 86400


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    """A clock that only the test moves; its time is bounded to 1 ms."""
    with ManualClock(follow_loop=False, max_error_ns=10**6) as manual:
        yield manual


@asynccontextmanager
async def ticking(periodic: Periodic) -> AsyncIterator[list[Tick]]:
    """The ticks that come while the block runs."""
    ticks: list[Tick] = []

    async def take() -> None:
        async for tick in periodic:
            ticks.append(tick)  # noqa: PERF401  while they come

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(take)
            await settled()
            yield ticks
            tasks.cancel_scope.cancel()


async def pass_by(clock: ManualClock, seconds: float) -> None:
    """Let *seconds* pass, and the tasks that wait for them go on."""
    clock.advance(seconds)
    await settled()


def dues(ticks: list[Tick], since_ns: int) -> list[float]:
    """When each was due, in seconds after *since_ns*."""
    return [(tick.due_ns - since_ns) / NS for tick in ticks]


@pytest.mark.anyio
@pytest.mark.parametrize("missed", ["skip", "delay", "all"])
async def test_ticks_are_due_a_period_apart(clock: ManualClock, missed: Any) -> None:
    """The first comes at once, and each later one a period of UTC after the one before, however late that was taken."""
    began_ns = clock.now().earliest_ns
    async with ticking(Periodic(clock, 60, missed)) as ticks:
        for _ in range(42):
            await pass_by(clock, 7)
    assert dues(ticks, began_ns) == [0, 60, 120, 180, 240]
    assert {tick.missed for tick in ticks} == {0}


@pytest.mark.anyio
async def test_tick_never_comes_early(clock: ManualClock) -> None:
    """It comes only once the whole interval is past the moment, so with a bound of 1 ms up to 2 ms late."""
    start_ns = clock.utc_ns + 10 * NS
    async with ticking(Periodic(clock, 60, start=start_ns)) as ticks:
        await pass_by(clock, 10)
        assert not ticks
        await pass_by(clock, 0.0005)
        assert not ticks
        await pass_by(clock, 0.0025)
    (tick,) = ticks
    assert tick.due_ns == start_ns <= tick.interval.earliest_ns < clock.utc_ns


@pytest.mark.long
@pytest.mark.anyio
@pytest.mark.parametrize(
    ("start", "first_ns"),
    [
        (0, 1_768_438_800 * NS),
        (datetime.datetime(2026, 1, 15, 0, 20, tzinfo=datetime.UTC), 1_768_436_400 * NS),
        (1_768_500_000 * NS, 1_768_500_000 * NS),
    ],
)
async def test_start_says_where_the_period_begins(
    clock: ManualClock, start: int | datetime.datetime, first_ns: int
) -> None:
    """A start in the past means the next moment due by it, such as the full hour; one in the future, itself."""
    clock.advance(60)
    async with ticking(Periodic(clock, 3600, start=start)) as ticks:
        while clock.utc_ns < first_ns:
            assert not ticks
            await pass_by(clock, 60)
        await pass_by(clock, 1)
        assert [tick.due_ns for tick in ticks] == [first_ns]


MISSED: list[Any] = [
    pytest.param("skip", [0, 259_200, 259_260, 259_320], [0, 4319, 0, 0], id="skip"),
    pytest.param("delay", [0, 259_200, 259_280, 259_340], [0, 4319, 0, 0], id="delay"),
]


@pytest.mark.anyio
@pytest.mark.parametrize(("missed", "expected", "left_out"), MISSED)
async def test_restore_three_days_later_is_one_tick(
    clock: ManualClock, missed: Any, expected: list[float], left_out: list[int]
) -> None:
    """Not 4320 at once; the one that comes says how many it stands for. Then they come when they are due again."""
    clock.advance(0.01)
    began_ns = clock.now().earliest_ns
    async with ticking(Periodic(clock, 60, missed)) as ticks:
        await pass_by(clock, 20)
        clock.step(THREE_DAYS_S * NS)
        clock.restore()
        await settled()
        for _ in range(130):
            await pass_by(clock, 1)
    assert [round(due) for due in dues(ticks, began_ns)] == expected
    assert [tick.missed for tick in ticks] == left_out


@pytest.mark.anyio
async def test_missed_ticks_come_all_if_that_is_asked_for(clock: ManualClock) -> None:
    """Each with the moment at which it was due, one right after the other."""
    began_ns = clock.now().earliest_ns
    async with ticking(Periodic(clock, 60, missed="all")) as ticks:
        await pass_by(clock, 1)
        clock.step(300 * NS)
        clock.restore()
        await settled()
    assert dues(ticks, began_ns) == [0, 60, 120, 180, 240, 300]
    assert {tick.missed for tick in ticks} == {0}


@pytest.mark.anyio
async def test_slow_body_of_the_loop_misses_ticks_as_a_restore_does(clock: ManualClock) -> None:
    """One tick comes at once, and stands for those that were missed."""
    began_ns = clock.now().earliest_ns
    periodic = Periodic(clock, 10)
    with anyio.fail_after(BOUND_S):
        first = await anext(periodic)
        clock.advance(35)
        second = await anext(periodic)
        async with ticking(periodic) as ticks:
            await pass_by(clock, 5.01)
    assert dues([first, second, *ticks], began_ns) == [0, 30, 40]
    assert second.missed == 2


@pytest.mark.anyio
async def test_time_that_goes_back_does_not_delay_ticks_by_as_much(clock: ManualClock) -> None:
    """An hour back: the next tick comes within a period, at a moment of the same rhythm, and not an hour later."""
    began_ns = clock.now().earliest_ns
    async with ticking(Periodic(clock, 60)) as ticks:
        await pass_by(clock, 61)
        clock.step(-3600 * NS)
        await settled()
        await pass_by(clock, 60)
    assert dues(ticks, began_ns) == [0, 60, -3480]


@pytest.mark.anyio
async def test_start_ahead_stays_where_it_is_when_time_goes_back(clock: ManualClock) -> None:
    """It is a moment by the calendar, more than a period away."""
    start_ns = clock.utc_ns + 600 * NS
    async with ticking(Periodic(clock, 60, start=start_ns)) as ticks:
        clock.step(-100 * NS)
        await pass_by(clock, 699)
        assert not ticks
        await pass_by(clock, 1.01)
    assert dues(ticks, start_ns) == [0]


@pytest.mark.anyio
async def test_clock_that_was_ahead_at_first_does_not_delay_the_first_tick(clock: ManualClock) -> None:
    """Three days ahead when the first tick was reckoned: it comes within a period of the corrected time."""
    clock.step(THREE_DAYS_S * NS)
    async with ticking(Periodic(clock, 3600, start=0)) as ticks:
        clock.step(-THREE_DAYS_S * NS)
        for _ in range(61):
            await pass_by(clock, 60)
        assert len(ticks) == 1


@pytest.mark.anyio
async def test_no_tick_without_a_bounded_time(clock: ManualClock) -> None:
    """Nor after a migration that the publisher has not seen. The time is back: one tick, and then the rhythm."""
    began_ns = clock.now().earliest_ns
    async with ticking(Periodic(clock, 60)) as ticks:
        clock.lose_sync(void=True)
        await pass_by(clock, 130)
        clock.regain_sync()
        await pass_by(clock, 0.01)
        assert dues(ticks, began_ns) == [0, 120]
        clock.freeze()
        clock.migrate()
        await pass_by(clock, 130)
        assert len(ticks) == 2
        clock.thaw()
        await pass_by(clock, 0.01)
    assert dues(ticks, began_ns) == [0, 120, 240]


@pytest.mark.anyio
async def test_cancelled_wait_loses_no_tick(clock: ManualClock) -> None:
    """The next call gives the tick that was waited for."""
    began_ns = clock.now().earliest_ns
    periodic = Periodic(clock, 60)
    await anext(periodic)
    for _ in range(3):
        async with ticking(periodic) as ticks:
            await pass_by(clock, 10)
        assert not ticks
    clock.advance(31)
    assert dues([await anext(periodic)], began_ns) == [60]


@pytest.mark.anyio
async def test_each_tick_is_a_checkpoint(clock: ManualClock) -> None:
    """Where ticks are due without a pause too, the loop may be cancelled, and other tasks run."""
    periodic = Periodic(clock, 1, missed="all")
    await anext(periodic)
    clock.advance(10**3)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await anext(periodic)
    assert scope.cancelled_caught


def test_loop_never_sleeps_longer_than_a_second() -> None:
    """Its own clock may stand still in a suspend: an hour of waiting is an hour of looks, a second apart."""

    async def main() -> None:
        with ManualClock() as clock:
            clock.lose_sync()
            clock.freeze()  # nothing is committed
            moment = clock.utc_ns + 600 * NS
            await sleep_until(clock, moment)
            assert clock.statistics().waits >= 600
            await anext(periodic := Periodic(clock, 300))
            waits = clock.statistics().waits
            await anext(periodic)
            assert clock.statistics().waits >= waits + 300

    anyio.run(main, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})


# sleep_until()


@asynccontextmanager
async def sleeping(clock: ManualClock, utc: Any) -> AsyncIterator[list[int]]:
    """True time when ``sleep_until`` returned."""
    woke: list[int] = []

    async def sleep() -> None:
        reading = await sleep_until(clock, utc)
        assert reading.earliest_ns <= clock.utc_ns <= reading.latest_ns
        woke.append(clock.utc_ns)

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleep)
            await settled()
            yield woke
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_sleeper_wakes_when_the_moment_has_come(clock: ManualClock) -> None:
    """Not before true time is certain to have reached it."""
    moment = clock.utc_ns + 100 * NS
    async with sleeping(clock, moment) as woke:
        await pass_by(clock, 100)
        assert not woke
        await pass_by(clock, 0.003)
        assert len(woke) == 1


@pytest.mark.anyio
@pytest.mark.parametrize("event", ["restore", "migrate"])
async def test_sleeper_goes_on_after_a_disruption(clock: ManualClock, event: str) -> None:
    """The moment is one of the calendar, and means the same on the machine that was restored."""
    moment = clock.utc_ns + 100 * NS
    async with sleeping(clock, moment) as woke:
        getattr(clock, event)()
        await pass_by(clock, 99)
        assert not woke
        await pass_by(clock, 1.01)
        assert len(woke) == 1


@pytest.mark.anyio
async def test_jump_past_the_moment_wakes_the_sleeper(clock: ManualClock) -> None:
    """At the commit that shows the jump, however long it meant to sleep; so after a restore of days later."""
    moment = clock.utc_ns + 86400 * NS
    async with sleeping(clock, datetime.datetime.fromtimestamp(moment // NS, datetime.UTC)) as woke:
        clock.step(THREE_DAYS_S * NS)
        await settled()
        assert len(woke) == 1


@pytest.mark.anyio
async def test_moment_that_is_past_is_no_sleep(clock: ManualClock) -> None:
    """But a checkpoint."""
    with anyio.fail_after(BOUND_S):
        assert await sleep_until(clock, clock.now().earliest_ns) == clock.now()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await sleep_until(clock, 0)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_real_segment_that_jumps_wakes_sleeper_and_ticks(segment: PlayedSegment) -> None:
    """With files and inotify: by the commit, long before the second is over or the hour has come."""
    with anyio.fail_after(BOUND_S):
        async with open_clock(segment.path, fence=segment.device) as clock:
            periodic = Periodic(clock, 3600)
            first = await anext(periodic)
            moment = clock.now().latest_ns + 3600 * NS
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(sleep_until, clock, moment)
                tasks.start_soon(anext, periodic)
                await settled()
                segment.step(2 * 3600 * NS)
            assert (await clock.wait_bounded()).earliest_ns > first.due_ns + 3600 * NS


# Errors


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda clock: Periodic(clock, 0), ValueError, "every_s must be from 1 ns"),
        (lambda clock: Periodic(clock, 1e-10), ValueError, "every_s must be from 1 ns"),
        (lambda clock: Periodic(clock, -1), ValueError, "every_s must be"),
        (lambda clock: Periodic(clock, float("nan")), ValueError, "every_s must be"),
        (lambda clock: Periodic(clock, 2**32), ValueError, "every_s must be"),
        (
            lambda clock: Periodic(clock, 1, missed=cast("Any", "burst")),
            ValueError,
            "missed must be one of skip, delay, all",
        ),
        (lambda clock: Periodic(clock, 1, start=2**63), ValueError, "in 2262"),
        (lambda clock: Periodic(clock, 1, start=cast("Any", 1.5)), TypeError, "1.5"),
    ],
)
def test_wrong_arguments_are_refused(
    clock: ManualClock, make: Callable[[ManualClock], object], error: type[Exception], match: str
) -> None:
    """At once, and not at the first tick."""
    with pytest.raises(error, match=match):
        make(clock)


@pytest.mark.anyio
async def test_sleep_refuses_what_is_no_moment(clock: ManualClock) -> None:
    """A time without a zone, a float, and what lies past the last reading."""
    with pytest.raises(TypeError):
        await sleep_until(clock, datetime.datetime(2026, 1, 1))
    with pytest.raises(TypeError):
        await sleep_until(clock, 1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="in 2262"):
        await sleep_until(clock, 2**63)


@pytest.mark.anyio
async def test_clock_that_is_closed_ends_the_ticks(clock: ManualClock) -> None:
    """With the error of the clock."""
    periodic = Periodic(clock, 60)
    await anext(periodic)
    clock.close()
    with pytest.raises(SegmentError, match="closed"):
        await anext(periodic)


def test_timer_belongs_to_its_process(clock: ManualClock) -> None:
    """It cannot be pickled, as its clock cannot."""
    with pytest.raises(TypeError, match="Periodic"):
        pickle.dumps(Periodic(clock, 1))
