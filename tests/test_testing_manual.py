"""The manual clock: its publisher, its stamps, and how it ends."""

import anyio
import pytest

from vmclock_async import ClockDisruptedError, ClockStaleError, ClockUnboundedError, SegmentError
from vmclock_async.testing import ManualClock

NS = 10**9
MS = 10**6


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
