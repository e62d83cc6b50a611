"""``explain``: the terms of a reading's error, and that their sum is the bound of ``now``."""

import json
import re
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, event, given, settings, strategies as st

from kit.commands import failure, run_command
from kit.snapshots import snapshot_of
from kit.told_world import World
from vmclock_async import (
    ClockError,
    ClockStatus,
    CounterId,
    Flags,
    LeapIndicator,
    SegmentReader,
    TimeType,
    VMClockBody,
    _core,
)
from vmclock_async._cli.terms import Explained
from vmclock_async.abi import packed_values
from vmclock_async.reckoning import Budget, bounds_at, budget_at
from vmclock_async.testing import ManualClock, PlayedSegment
from vmclock_async.timebase import COUNTER_ID

NS = 10**9
NEW_YEAR_S = 1_798_761_600
"""2027-01-01 00:00:00 UTC: the end of a month."""
U64 = st.integers(0, 2**64 - 1)
BOUNDED = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID | Flags.TAI_OFFSET_VALID
GIGAHERTZ = {"counter_period_frac_sec": 0x89705F4136B4A597, "counter_period_shift": 29}
"""A tick of a nanosecond, rounded down."""


@st.composite
def bodies(draw: st.DrawFn) -> tuple[VMClockBody, int, TimeType]:
    """A body that gives an interval at a counter value from 1 s before its reference to 1000 s after it."""
    shift = draw(st.integers(0, 63))
    period = draw(st.integers(2**63, 2**64 - 1))
    per_second = 2 ** (64 + shift) // period
    counter_value = draw(U64)
    body = VMClockBody(
        flags=BOUNDED,
        clock_status=draw(st.sampled_from([ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING])),
        tai_offset_sec=-37,
        leap_indicator=draw(st.sampled_from(LeapIndicator)),
        counter_value=counter_value,
        counter_period_shift=shift,
        counter_period_frac_sec=period,
        counter_period_maxerror_rate_frac_sec=draw(st.integers(0, period // 1000)),
        time_sec=draw(st.integers(NEW_YEAR_S - 50, NEW_YEAR_S + 50) | st.integers(10**5, 9 * 10**9)),
        time_frac_sec=draw(U64),
        time_maxerror_nanosec=draw(st.integers(0, 10**10)),
    )
    ticks = draw(st.integers(-per_second, 999 * per_second))
    return body, (counter_value + ticks) % 2**64, draw(st.sampled_from([TimeType.UTC, TimeType.TAI]))


@pytest.mark.long
@given(bodies())
@settings(max_examples=300, deadline=None)
def test_terms_add_up_to_the_bound_of_now(reading: tuple[VMClockBody, int, TimeType]) -> None:
    """The sum is the error of the interval that the core gives, which answers now(), and that Python gives."""
    body, counter, time_type = reading
    snapshot = snapshot_of(body, time_type=time_type)
    try:
        bounds = bounds_at(snapshot, counter, counter_id=CounterId.X86_TSC)
    except ClockError:
        assume(False)
    terms = budget_at(snapshot, counter, counter_id=CounterId.X86_TSC)
    event(f"leap second: {terms.leap_ns}")
    assert sum(terms) == bounds.error_ns
    ours = _core.bounds(packed_values(body.__dict__), 1, time_type, counter, 1, 1, 1000)
    if ours is not None:  # the core leaves leap seconds to Python
        assert 2 * sum(terms) - (ours[1] - ours[0]) in (0, 1)
        assert terms.leap_ns == 0
    ticks = (counter - body.counter_value + 2**63) % 2**64 - 2**63
    grown = abs(ticks) * Fraction(
        body.counter_period_maxerror_rate_frac_sec * NS, 2 ** (64 + body.counter_period_shift)
    )
    assert terms.reference_ns == body.time_maxerror_nanosec
    assert 0 <= terms.growth_ns - grown < 1
    assert terms.rounding_ns in (0, 1, 2)


@pytest.mark.parametrize(
    ("ticks", "time_s", "leap", "terms"),
    [
        pytest.param(0, 10**9, 0, Budget(1000, 0, 0, 0), id="at the reference"),
        # 50 ppm of 2 s; and a nanosecond, because two seconds by this period are a little less than two seconds
        pytest.param(2 * NS, 10**9, 0, Budget(1000, 100_000, 1, 0), id="after it"),
        pytest.param(-NS // 2, 10**9, 0, Budget(1000, 25_000, 1, 0), id="before it"),
        # UTC may repeat a second: a second earlier, and a second later
        pytest.param(2 * NS, NEW_YEAR_S - 1, 1, Budget(1000, 100_000, 1, NS), id="past a leap second"),
        # in its first pass only later
        pytest.param(0, NEW_YEAR_S - 1, 1, Budget(1000, 0, 0, NS // 2), id="in a leap second"),
    ],
)
def test_each_term(ticks: int, time_s: int, leap: int, terms: Budget) -> None:
    """With a microsecond and 50 ppm: the error of the reference, its growth to either side, rounding, a leap second."""
    body = VMClockBody(
        flags=BOUNDED,
        clock_status=ClockStatus.SYNCHRONIZED,
        leap_indicator=leap,
        counter_value=10**12,
        **GIGAHERTZ,
        counter_period_maxerror_rate_frac_sec=GIGAHERTZ["counter_period_frac_sec"] * 50 // 10**6,
        time_sec=time_s,
        time_maxerror_nanosec=1000,
    )
    assert budget_at(snapshot_of(body), 10**12 + ticks, counter_id=CounterId.X86_TSC) == terms


def test_sum_is_the_bound_of_now_at_the_same_moment() -> None:
    """On a clock whose counter stands still, fresh, grown old, and free-running."""
    with ManualClock(follow_loop=False) as clock:
        for happen, seconds in (("fresh", 0), ("grown old", 0.7), ("free-running", 321.123)):
            if happen == "free-running":
                clock.lose_sync()
            clock.advance(seconds)
            explained = Explained.now(clock._readings)
            assert sum(explained.budget) == explained.interval.error_ns
            assert explained.interval == clock.now()
            assert explained.age_ns == clock.age_ns
        (growth, *_) = explained.since
        assert growth.words.startswith("in 322 s since, at 50 ppm")
        assert growth.words.endswith("no measurement comes")


@pytest.fixture
def explain(tmp_path: Path) -> Callable[..., Any]:
    """The object that the command prints for these arguments."""

    def run(*args: object) -> Any:
        result = run_command(tmp_path, "explain", "--json", *args)
        assert (result.returncode, result.stderr) == (0, "")
        return json.loads(result.stdout)

    return run


def test_command_prints_the_terms_of_one_reading(explain: Callable[..., Any], tmp_path: Path) -> None:
    """In JSON: the fields of now, a counter value, and terms that make up the bound at that value."""
    with PlayedSegment(tmp_path) as segment:
        said = explain(segment.path)
        now = json.loads(run_command(tmp_path, "now", "--json", segment.path).stdout)
        with SegmentReader(segment.path) as reader:
            snapshot = reader.snapshot()
    assert {*now} < {*said}
    terms = {term["name"]: term["ns"] for term in said["terms"]}
    assert sum(terms.values()) == said["error_ns"]
    assert terms["reference"] == snapshot.body.time_maxerror_nanosec
    there = bounds_at(snapshot, said["counter"], counter_id=COUNTER_ID)
    assert (there.earliest_ns, there.latest_ns) == (said["earliest_ns"], said["latest_ns"])
    assert said["seq_count"] == snapshot.seq_count


def test_people_get_a_table_with_the_largest_term_first(tmp_path: Path) -> None:
    """The line of now, then nanoseconds and shares that add up, the sum, and the source."""
    with PlayedSegment(tmp_path) as segment:
        lines = run_command(tmp_path, "explain", segment.path).stdout.splitlines()
    assert " +/- " in lines[0]
    rows = [line.replace(" ns ", " ").replace(",", "").split(maxsplit=3) for line in lines[1:-1]]
    *terms, total = [int(row[0]) for row in rows]
    assert terms == sorted(terms, reverse=True)
    assert sum(terms) == total
    assert rows[-1][1:] == ["100.0%", "sum", "the bound"]
    assert abs(sum(float(row[1].rstrip("%")) for row in rows[:-1]) - 100) < 0.5
    assert lines[-1] == "Nothing says which source the time comes from."


REFUSED: dict[str, Callable[[World], object]] = {
    "nothing there": lambda world: world.path.unlink(),
    "no status": lambda world: world.tell(clock_status=ClockStatus.UNKNOWN),
    "no bound": lambda world: world.tell(flags=Flags(0)),
    "stale": lambda world: world.tell(age_s=2000),
}


@pytest.mark.parametrize("state", REFUSED)
def test_it_refuses_as_now_refuses(world: World, tmp_path: Path, state: str) -> None:
    """The same error, and the same object, but for the moment."""
    REFUSED[state](world)

    def refused(command: str) -> dict[str, Any]:
        said = failure(run_command(tmp_path, command, "--json", world.path))
        said["reason"] = re.sub(
            r"is \d+ s old", "is so old", said["reason"]
        )  # it grows from one command to the next
        return {name: value for name, value in said.items() if name != "age_ns"} | {"old": "age_ns" in said}

    assert refused("explain") == refused("now")
