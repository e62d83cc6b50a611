"""What ClockBound's clients read near a leap second, for as long as they may keep one copy of the segment."""

import datetime
from collections.abc import Callable
from typing import Final, NamedTuple

import pytest

from kit.clockbound import NS, UNKNOWN, answer, coarse_ns
from kit.kept_bound import PlayedClocks, keeping
from kit.told_world import BOUNDED, World, origin, ticks
from vmclock_async import Flags, SegmentReader, TimeInterval, TimeType, _core
from vmclock_async.abi import LeapIndicator
from vmclock_async.clockbound._widening import LONGEST_USE_NS, leap_ns

END_NS: Final = int(datetime.datetime(2027, 1, 1, tzinfo=datetime.UTC).timestamp()) * NS
TAI_OFFSET_SEC: Final = -37
AGE_S: Final = 5
"""Age of the segment's reference, which is from before the leap second."""
LEAPS: Final = {LeapIndicator.PRE_POS: (END_NS, -NS), LeapIndicator.PRE_NEG: (END_NS - NS, NS)}
"""When the time without the leap second reaches it, and by how much UTC moves then."""
MOMENTS_NS: Final = (*range(0, 3 * NS, NS // 10), *range(3 * NS, 60 * NS, NS))
"""Times after the copy, in nanoseconds; its use ends after a minute."""


def leaping(leap: LeapIndicator) -> Callable[[int], int]:
    """A clock that makes *leap*, by one that does not."""
    at_ns, moves_ns = LEAPS[leap]
    return lambda ns: ns + moves_ns if ns >= at_ns else ns


class Moment(NamedTuple):
    """True time and the system's clocks, without a leap."""

    true_least_ns: int
    true_most_ns: int
    realtime_ns: int
    monotonic_ns: int


def moment_of(clocks: PlayedClocks, true_ns: Callable[[int], int]) -> Moment:
    """This moment, to 50 us: where the machine was busy with others between two readings, they are made again."""
    while True:
        before, realtime_ns, monotonic_ns = _core.counter(), clocks.realtime_ns(), coarse_ns()
        after = _core.counter()
        if after - before < ticks(50e-6):
            return Moment(true_ns(before), true_ns(after), realtime_ns, monotonic_ns)


async def read_at(
    world: World, leap: LeapIndicator, ahead_ns: int, off_ns: int, time_type: TimeType
) -> tuple[dict[str, int], Moment]:
    """A client's copy *ahead_ns* before the end of the month, and the moment after it.

    CLOCK_REALTIME is *off_ns* ahead.
    """
    clocks = PlayedClocks()
    offset_s = TAI_OFFSET_SEC if time_type == TimeType.TAI else 0
    sec, ns = divmod(END_NS - ahead_ns - AGE_S * NS, NS)
    clocks.off_ns = END_NS - ahead_ns + off_ns - clocks.realtime_ns()
    world.tell(
        age_s=AGE_S,
        time_sec=sec - offset_s,
        time_frac_sec=ns * 2**64 // NS,
        leap_indicator=leap,
        time_type=time_type,
        tai_offset_sec=offset_s,
        flags=BOUNDED | Flags.TAI_OFFSET_VALID if offset_s else BOUNDED,
    )
    async with keeping(world, clocks=clocks, max_slew_ppm=0) as (_, client):
        with SegmentReader(world.path) as reader:
            reference = reader.snapshot().body.counter_value

        def true_ns(counter: int) -> int:
            return sec * NS + ns + int((counter - reference) * origin().ns_per_tick)

        return client.read(), moment_of(clocks, true_ns)


@pytest.mark.anyio
@pytest.mark.parametrize("leap", LEAPS)
@pytest.mark.parametrize("ahead_ns", [50 * NS, 3 * NS // 2, NS // 2, 0, -NS // 5])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # arithmetic, the same on every loop
async def test_truth_is_inside_across_a_leap_second(world: World, leap: LeapIndicator, ahead_ns: int) -> None:
    """In the copy of before it, though nothing is written again: whether the system's clock makes it, and when."""
    for off_ns, time_type in ((0, TimeType.UTC), (10_000_000, TimeType.TAI), (-10_000_000, TimeType.TAI)):
        copy, moment = await read_at(world, leap, ahead_ns, off_ns, time_type)
        for passed_ns in MOMENTS_NS:
            least_ns = leaping(leap)(moment.true_least_ns + passed_ns)
            most_ns = leaping(leap)(moment.true_most_ns + passed_ns)
            for clock in (leaping(leap), int):
                told = answer(copy, clock(moment.realtime_ns + passed_ns), moment.monotonic_ns + passed_ns)
                assert told.status != UNKNOWN
                assert told.earliest <= max(least_ns, most_ns)
                assert min(least_ns, most_ns) <= told.latest


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_bound_is_narrow_while_no_client_can_reach_the_leap_second(world: World) -> None:
    """Three minutes before it, and after it where none was announced."""
    for leap, ahead_ns in ((LeapIndicator.PRE_POS, 180 * NS), (LeapIndicator.NONE, NS)):
        copy, *_ = await read_at(world, leap, ahead_ns, 0, TimeType.UTC)
        assert copy["bound"] < NS


@pytest.mark.parametrize(
    ("before_end_ns", "expected"),
    [
        (NS + 2 * LONGEST_USE_NS + 1, 0),
        (NS + 2 * LONGEST_USE_NS, NS),
        (0, NS),
        (-NS + 1, NS),
        (-NS, 0),  # the interval has both readings
    ],
)
def test_leap_second_is_added_once(before_end_ns: int, expected: int) -> None:
    """From two minutes before it, until the interval itself contains it."""
    latest_ns = END_NS - before_end_ns
    assert leap_ns(TimeInterval(latest_ns - 1, latest_ns), END_NS) == expected
    assert leap_ns(TimeInterval(latest_ns - 1, latest_ns), None) == 0
