"""Moments in the past."""

import time

import pytest

from kit.told_world import (
    World,
    contains,
    ticks,
    true_ns,
)
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockStaleError,
    LeapIndicator,
    _core,
)
from vmclock_async.testing import ManualClock

# Moments in the past.


def test_stamp_of_the_counter_has_its_true_time(world: World, clock: Clock) -> None:
    """at() contains the truth of each stamp, before and after later commits, and is as narrow as now()."""
    stamps: list[int] = []
    for _ in range(5):
        clock.now()
        stamps.append(_core.counter())
        time.sleep(0.002)
        world.tell()
        for stamp in stamps:
            interval = clock.at(stamp)
            assert contains(interval, true_ns(stamp))
            # 50 ppm of no more than the time since the first, and the reference's microsecond.
            passed_ns = true_ns(_core.counter()) - true_ns(stamps[0])
            assert interval.error_ns < 1100 + passed_ns / 20_000


def test_stamp_of_clock_monotonic_has_its_true_time(world: World, clock: Clock) -> None:
    """at_monotonic() contains it, and is wider by a tenth of the stamp's age on either side."""
    clock.now()
    before = _core.counter()
    ns = time.monotonic_ns()
    after = _core.counter()
    for sleep_s in (0.0, 0.02, 0.05):
        time.sleep(sleep_s)
        world.tell()
        called_ns = time.monotonic_ns()
        interval = clock.at_monotonic(ns)
        returned_ns = time.monotonic_ns()
        assert interval.earliest_ns <= true_ns(after)
        assert true_ns(before) <= interval.latest_ns
        # It cannot know when during the call a busy machine let it read the two clocks.
        assert interval.error_ns < (returned_ns - ns) * 0.12 + returned_ns - called_ns + 20_000


@pytest.mark.parametrize(
    "leap", [LeapIndicator.PRE_POS, LeapIndicator.PRE_NEG, LeapIndicator.POST_POS, LeapIndicator.POST_NEG]
)
def test_stamp_of_clock_monotonic_may_be_from_before_a_leap(leap: LeapIndicator) -> None:
    """With one announced or just over, at_monotonic() is a second wider on either side: it cannot tell which."""
    with ManualClock(follow_loop=False) as clock:
        clock.now()
        stamp = clock.counter_ticks()
        clock.advance(5)
        steady = clock.at_monotonic(stamp)
        clock.change(leap_indicator=leap)
        told = clock.at_monotonic(stamp)
    assert (told.earliest_ns, told.latest_ns) == (steady.earliest_ns - 10**9, steady.latest_ns + 10**9)


def test_stamp_that_lies_ahead_is_a_mistake(clock: Clock) -> None:
    """A ValueError that says so: nothing is known of the future."""
    with pytest.raises(ValueError, match="lies ahead"):
        clock.at(_core.counter() + ticks(1))
    with pytest.raises(ValueError, match="lies ahead"):
        clock.at_monotonic(time.monotonic_ns() + 10**9)


def test_stamp_from_before_the_clock_is_refused(world: World) -> None:
    """Nobody watched the counter then: ClockDisruptedError."""
    stamp, ns = _core.counter(), time.monotonic_ns()
    with Clock(world.path, fence=None) as clock:
        for _ in range(2):
            with pytest.raises(ClockDisruptedError, match="before this clock first saw the disruption marker 1"):
                clock.at(stamp)
            with pytest.raises(ClockDisruptedError, match="before this clock first saw"):
                clock.at_monotonic(ns)


def test_stamp_from_since_the_clock_was_opened_will_do(world: World) -> None:
    """The marker is watched from the opening on, whether or not a reading was taken."""
    with Clock(world.path, fence=None) as clock:
        stamp = _core.counter()
        ns = time.monotonic_ns()
        assert contains(clock.at(stamp), true_ns(stamp))
        clock.at_monotonic(ns)


def test_stamp_from_before_a_disruption_is_refused(world: World, clock: Clock) -> None:
    """The counter may have jumped in between; a stamp from after the new marker was seen is as good as ever."""
    clock.now()
    stamp, ns = _core.counter(), time.monotonic_ns()
    clock.at(stamp)
    world.marker = 2
    world.tell()
    for _ in range(2):
        with pytest.raises(ClockDisruptedError, match="disruption marker 2"):
            clock.at(stamp)
        with pytest.raises(ClockDisruptedError, match="disruption marker 2"):
            clock.at_monotonic(ns)
    later = _core.counter()
    assert contains(clock.at(later), true_ns(later))


def test_stamp_from_before_another_segment_is_refused(world: World, clock: Clock) -> None:
    """Its markers may begin anew: the same number says nothing of what happened in between."""
    clock.now()
    stamp = _core.counter()
    world.replace()
    with pytest.raises(ClockDisruptedError, match="before this clock first saw"):
        clock.at(stamp)


def test_stamp_older_than_max_age_is_stale(world: World) -> None:
    """As a reference of that age would be."""
    with Clock(world.path, max_age=0.05, fence=None) as clock:
        stamp, ns = _core.counter(), time.monotonic_ns()
        time.sleep(0.06)
        world.tell()
        with pytest.raises(ClockStaleError, match="the stamp is"):
            clock.at(stamp)
        with pytest.raises(ClockStaleError, match="the stamp is"):
            clock.at_monotonic(ns)
