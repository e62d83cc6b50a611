"""Every public method of a clock and of an interval, with values at the edges: errors are those that are documented."""

import copy
import math
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import example, given, settings, strategies as st

from kit.exact_time import Page
from test_clock_core import Told, pages, ticks_in
from vmclock_async import Clock, ClockUnboundedError, TimeInterval, VMClockError, _core
from vmclock_async.intervals import hull, intersection, sorted_groups
from vmclock_async.testing import ManualClock

COUNTER_ID = _core.COUNTER_ID
YEAR_2262_S = (2**63 - 1) // 10**9
INTS = st.sampled_from(
    [0, 1, -1, 2**63 - 1, 2**63, -(2**63), 2**64 - 1, 2**64, 10**400, -(10**400)]
) | st.integers(-(2**70), 2**70)
NUMBERS = st.floats() | st.floats(0, 2000) | st.integers(-10, 10**4) | st.sampled_from([10**400, math.inf, 1e-320])
ODD = st.sampled_from([None, "1", 1.5, math.nan, math.inf, b"", (1,)])


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    """A segment to tell pages by."""
    segment = Told()
    yield segment
    segment.close()


def typed(ask: Callable[[], object]) -> object:
    """What *ask* returns; errors that a caller may meet are let pass, and no other."""
    try:
        return ask()
    except (VMClockError, TypeError, ValueError):
        return None


async def awaited(clock: Clock, ns: Any, duration_s: float) -> None:
    """What waits, for a moment."""
    for wait in (clock.wait_past, clock.wait_bounded, clock.wait_status):
        with anyio.move_on_after(0.001), suppress(VMClockError, TypeError, ValueError):
            await wait(ns)
    with anyio.move_on_after(0.001), suppress(VMClockError, TypeError, ValueError):
        async with clock.lease(duration_s) as lease:
            typed(lambda: lease.remaining_ns)
            typed(lease.check)
            typed(lease.renew)


@pytest.mark.long
@given(
    page=pages(),
    age=st.sampled_from([0, 1, 900]) | st.integers(-2, 1100),
    ns=INTS | ODD,
    limit=INTS | ODD,
    duration_s=NUMBERS,
    ago_ns=st.integers(0, 10**12),
)
@example(Page(time_sec=YEAR_2262_S, time_maxerror_nanosec=0), 0, 2**70, None, 1.0, 10**9)
@example(Page(time_sec=YEAR_2262_S - 1), 0, 10**400, None, 1.0, 10**9)
@example(Page(time_sec=0), 0, 0, None, 1.0, 10**9)
@example(Page(time_sec=1, time_frac_sec=0), 0, 0, None, 1.0, 2 * 10**9)
@example(Page(leap_indicator=1, time_sec=YEAR_2262_S - 1), 0, 0, None, 1.0, 0)
@settings(max_examples=100)
def test_clock_raises_what_is_documented(
    told: Told, page: Page, age: int, ns: object, limit: object, duration_s: float, ago_ns: int
) -> None:
    """Whatever the page and the arguments: VMClockError, or TypeError or ValueError for the arguments."""
    counter_value = (_core.counter() - ticks_in(page, Fraction(age))) % 2**64
    told.tell(replace(page, counter_id=COUNTER_ID, counter_value=counter_value))
    for clock in (told.clock, told.drifting):
        for found in map(typed, ways_to_read(clock, ns, limit, ago_ns)):
            if isinstance(found, TimeInterval):
                walk(found)
        anyio.run(awaited, clock, ns, duration_s)


def ways_to_read(clock: Clock, ns: Any, limit: Any, ago_ns: int) -> Iterator[Callable[[], object]]:
    """All that gives a reading or says something of it."""
    yield clock.now
    yield lambda: clock.now(max_error_ns=limit)
    yield lambda: clock.at(ns)
    yield lambda: clock.at(clock.counter_ticks(), max_error_ns=limit)
    yield lambda: clock.at_monotonic(ns)
    yield lambda: clock.at_monotonic(time.monotonic_ns(), max_error_ns=limit)
    yield lambda: clock.at_monotonic(time.monotonic_ns() - ago_ns)
    yield lambda: clock.age_ns
    yield lambda: clock.status
    yield lambda: clock.incarnation


def walk(interval: TimeInterval) -> None:
    """All that there is to ask of *interval*."""
    assert interval.earliest <= interval.midpoint <= interval.latest
    assert repr(interval)
    assert str(interval)
    assert interval.as_dict()
    assert hash(interval) == hash(copy.copy(interval))
    assert pickle.loads(pickle.dumps(interval)) == copy.copy(interval) == interval


@given(earliest_ns=INTS | ODD, latest_ns=INTS | ODD, status=INTS | ODD, other=INTS | ODD)
@example(2**63 - 1, 2**63 - 1, 2, 2**63)
@example(-(2**63), -(2**63), 2, -(2**63) - 1)
@example(-(2**63), 2**63 - 1, 2, 10**400)
def test_interval_raises_what_is_documented(
    earliest_ns: object, latest_ns: object, status: object, other: object
) -> None:
    """The same of a TimeInterval; OverflowError for what is beyond 64 bits, which is documented too."""
    try:
        interval = TimeInterval(earliest_ns, latest_ns, status)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return
    walk(interval)
    for ask in (interval.before, interval.after, interval.compare, interval.contains):
        typed(lambda ask=ask: ask(other))  # type: ignore[misc]
        ask(interval)
    assert hull(interval, interval) == intersection(interval, interval) == sorted_groups([interval])[0][0]


LAST_NS = 2**63 - 1
STANDING = Page(  # its time stands still: a tick is 2**-127 s
    counter_id=COUNTER_ID,
    counter_period_frac_sec=1,
    counter_period_shift=63,
    time_sec=LAST_NS // 10**9,
    time_maxerror_nanosec=LAST_NS % 10**9 - 1,
)


def test_stamps_near_the_end_of_time_have_a_typed_error(told: Told) -> None:
    """Times end in 2262: a reading of the last nanosecond is one, and what would reach beyond is a typed error."""
    told.tell(replace(STANDING, counter_value=_core.counter()))
    assert told.clock.now().latest_ns == LAST_NS
    assert told.clock.at(_core.counter()).latest_ns == LAST_NS
    for leap_indicator in (0, 2):
        told.tell(replace(STANDING, counter_value=_core.counter(), leap_indicator=leap_indicator))
        with suppress(ClockUnboundedError):  # which it is, unless it took so long that the stamp is not so near
            assert told.clock.at_monotonic(time.monotonic_ns()).latest_ns <= LAST_NS


def test_stamps_near_the_beginning_of_time_have_a_typed_error(told: Told) -> None:
    """So is what would reach back beyond 1970."""
    told.tell(replace(STANDING, counter_value=_core.counter(), time_sec=0, time_maxerror_nanosec=0))
    assert told.clock.now().earliest_ns == 0
    with pytest.raises(ClockUnboundedError, match="leaves the years 1970 to 2262"):
        told.clock.at_monotonic(time.monotonic_ns())


@pytest.mark.anyio
async def test_what_never_comes_is_not_waited_for(clock: Clock) -> None:
    """No reading is past 2262, so wait_past() for it is refused; the last moment that may come is waited for."""
    for ns in (LAST_NS + 1, 10**400):
        with pytest.raises(ValueError, match="they end in 2262"):
            await clock.wait_past(ns)
    with anyio.move_on_after(0.01) as scope:
        await clock.wait_past(LAST_NS)
    assert scope.cancelled_caught


@pytest.mark.anyio
async def test_time_that_stands_still_blocks_nobody(told: Told) -> None:
    """Where a page says that a tick takes no time, waiting has no end; it can be cancelled, and others go on."""
    told.tell(replace(STANDING, counter_value=_core.counter(), time_sec=10**9, time_maxerror_nanosec=0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(told.clock.wait_past, told.clock.now().latest_ns)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    with anyio.move_on_after(0.01) as scope:
        async with told.clock.lease(1):
            pass  # its token is never past
    assert scope.cancelled_caught


@pytest.mark.parametrize("stamp", [1.5, "1", None])
def test_stamps_are_integers(clock: Clock, stamp: Any) -> None:
    """A float of nanoseconds has lost some already: it is refused, and not rounded."""
    for at in (clock.at, clock.at_monotonic):
        with pytest.raises(TypeError):
            at(stamp)


def test_stamps_of_the_counter_are_modulo_its_width(clock: Clock) -> None:
    """A stamp that was reckoned with may have left the 64 bits: it is the counter value that it is modulo 2**64."""
    stamp = clock.counter_ticks()
    assert clock.at(stamp - 2**64) == clock.at(stamp + 2**64) == clock.at(stamp)


@pytest.mark.parametrize("seconds", [math.inf, math.nan, -1.0])
def test_manual_clock_goes_on_by_a_time_that_is_one(seconds: float) -> None:
    """advance() refuses what is no length of time, and moves nothing."""
    with ManualClock() as clock:
        before = clock.now()
        with pytest.raises(ValueError, match="time goes on"):
            clock.advance(seconds)
        assert clock.now() == before
