"""TimeInterval and Order: what the compiled type promises, and how intervals are ordered, joined and carried."""

import copy
import datetime
import pickle
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from vmclock_async import ClockStatus, Order, TimeInterval
from vmclock_async.intervals import hull, intersection, sorted_groups

LEAST, LARGEST = -(2**63), 2**63 - 1
NS = st.integers(LEAST, LARGEST) | st.sampled_from([LEAST, -1, 0, 1, LARGEST])


@st.composite
def intervals(draw: st.DrawFn, times: st.SearchStrategy[int] = NS) -> TimeInterval:
    """Any interval with ends out of *times*."""
    earliest, latest = sorted((draw(times), draw(times)))
    return TimeInterval(earliest, latest, draw(st.integers(0, 255)))


CLOSE = intervals(st.integers(0, 30))
"""Intervals that often overlap."""


@given(intervals())
def test_middle_and_error_cover_the_interval(interval: TimeInterval) -> None:
    """midpoint_ns is the middle, rounded down; it and error_ns reach both ends, and no nanosecond less would."""
    width = interval.latest_ns - interval.earliest_ns
    assert interval.midpoint_ns == (interval.earliest_ns + interval.latest_ns) // 2
    assert interval.midpoint_ns - interval.error_ns <= interval.earliest_ns
    assert interval.latest_ns <= interval.midpoint_ns + interval.error_ns
    assert width <= 2 * interval.error_ns <= width + 1


@given(intervals())
def test_datetimes_are_aware_and_rounded_outward(interval: TimeInterval) -> None:
    """earliest is the last microsecond not after earliest_ns, latest the first not before latest_ns; both in UTC."""
    epoch = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    microsecond = datetime.timedelta(microseconds=1)
    for moment, ns, outward in (
        (interval.earliest, interval.earliest_ns, -1),
        (interval.latest, interval.latest_ns, 1),
    ):
        assert moment.tzinfo is datetime.UTC
        off_ns = ((moment - epoch) // microsecond * 1000 - ns) * outward
        assert 0 <= off_ns < 1000


@pytest.mark.parametrize(
    ("number", "status"),
    [(0, ClockStatus.UNKNOWN), (2, ClockStatus.SYNCHRONIZED), (3, ClockStatus.FREERUNNING), (200, 200)],
)
def test_status_is_a_clock_status_or_an_unknown_number(number: int, status: int) -> None:
    """What the ABI names is a ClockStatus; another number stays what it is."""
    found = TimeInterval(1, 2, number).status
    assert (found, type(found)) == (status, type(status))
    assert TimeInterval(1, 2).status is ClockStatus.SYNCHRONIZED


def test_repr_says_it_all() -> None:
    """Both times and the status, by its name where it has one."""
    assert repr(TimeInterval(-1, 2)) == "<TimeInterval -1 to 2 ns, SYNCHRONIZED>"
    assert repr(TimeInterval(-1, 2, 77)) == "<TimeInterval -1 to 2 ns, 77>"


@given(CLOSE | intervals(), CLOSE | intervals())
def test_order_is_certain_or_none(one: TimeInterval, other: TimeInterval) -> None:
    """BEFORE where all of one is earlier than all of the other, AFTER the other way round, UNORDERED if they touch."""
    assert one.before(other) == other.after(one) == (one.latest_ns < other.earliest_ns)
    assert one.after(other) == other.before(one) == (one.earliest_ns > other.latest_ns)
    expected = Order.BEFORE if one.before(other) else Order.AFTER if one.after(other) else Order.UNORDERED
    assert one.compare(other) is expected


@given(intervals(), NS | st.integers(-(2**80), 2**80))
def test_a_number_is_a_moment_whatever_its_size(interval: TimeInterval, ns: int) -> None:
    """Nanoseconds are compared as an interval of no width; beyond 64 bits, as the last there is."""
    clipped = min(max(ns, LEAST), LARGEST)
    assert interval.before(ns) == (interval.latest_ns < clipped)
    assert interval.after(ns) == (interval.earliest_ns > clipped)
    assert interval.compare(ns) is interval.compare(TimeInterval(clipped, clipped))


@pytest.mark.parametrize("other", ["1", 1.5, None, datetime.datetime.now(datetime.UTC)])
def test_what_is_no_time_has_no_order(other: Any) -> None:
    """A float of seconds, a datetime or nothing at all is a TypeError, not a wrong answer."""
    interval = TimeInterval(1, 2)
    for ask in (interval.before, interval.after, interval.compare):
        with pytest.raises(TypeError, match="not a TimeInterval, nor nanoseconds since 1970"):
            ask(other)


@pytest.mark.parametrize(
    "ask",
    [
        lambda one, other: one < other,
        lambda one, other: one <= other,
        lambda one, other: one > other,
        lambda one, other: one >= other,
        lambda one, other: sorted([one, other]),
        lambda one, other: max(one, other),
    ],
)
@pytest.mark.parametrize("other", [TimeInterval(1, 2), TimeInterval(3, 3), TimeInterval(5, 6), 5])
def test_comparison_signs_are_refused_with_the_remedy(ask: Callable[[Any, Any], object], other: Any) -> None:
    """``<`` cannot say that there is no order, so it says what can; of intervals that have one as well."""
    with pytest.raises(TypeError, match=r"may overlap: use before\(\), after\(\) or compare\(\)"):
        ask(TimeInterval(3, 4), other)


@given(intervals(), intervals())
def test_equal_are_those_of_equal_times_and_status(one: TimeInterval, other: TimeInterval) -> None:
    """Equal intervals have equal hashes; an interval equals nothing of another type."""
    same = (one.earliest_ns, one.latest_ns, one._status) == (other.earliest_ns, other.latest_ns, other._status)
    assert (one == other) == same
    assert (one != other) == (not same)
    twin = TimeInterval(one.earliest_ns, one.latest_ns, one._status)
    assert (twin, hash(twin)) == (one, hash(one))
    assert len({one, twin}) == 1
    assert one != (one.earliest_ns, one.latest_ns, one._status)


@pytest.mark.parametrize("change", [(0, 9, 2), (1, 8, 2), (1, 9, 3)])
def test_each_part_counts_for_equality(change: tuple[int, int, int]) -> None:
    """Another earliest, another latest or another status: another interval."""
    assert TimeInterval(1, 9, 2) != TimeInterval(*change)


@given(intervals())
def test_pickle_and_copy_keep_everything(interval: TimeInterval) -> None:
    """By every protocol of pickle, and by copy and deepcopy."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        assert pickle.loads(pickle.dumps(interval, protocol)) == interval
    assert copy.copy(interval) == copy.deepcopy(interval) == interval


@pytest.mark.parametrize("name", ["earliest_ns", "latest_ns", "midpoint_ns", "status", "_status", "more"])
def test_an_interval_is_frozen(name: str) -> None:
    """No part can be set or deleted, and none added."""
    interval = TimeInterval(1, 2)
    with pytest.raises(AttributeError):
        setattr(interval, name, 1)
    with pytest.raises(AttributeError):
        delattr(interval, name)
    with pytest.raises(TypeError):
        type("Wider", (TimeInterval,), {})


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ((2, 1), ValueError),
        ((LARGEST, LEAST), ValueError),
        ((1, 2, -1), ValueError),
        ((1, 2, 256), ValueError),
        ((LEAST - 1, 0), OverflowError),
        ((0, LARGEST + 1), OverflowError),
        ((1, 2, 2**40), ValueError),
        ((1.0, 2), TypeError),
        ((1, "2"), TypeError),
        ((1,), TypeError),
        ((), TypeError),
        ((1, 2, 3, 4), TypeError),
    ],
)
def test_what_is_no_interval_is_refused(arguments: tuple[Any, ...], error: type[Exception]) -> None:
    """An end before the beginning, a status out of range, a time beyond 64 bits, a float."""
    with pytest.raises(error):
        TimeInterval(*arguments)


def test_many_intervals_are_many() -> None:
    """Memory is used again only of those that are gone: what is held stays as it is."""
    held = [TimeInterval(number, number + 1) for number in range(100)]
    for _ in range(3):
        for number in range(1000):
            assert TimeInterval(number, number).latest_ns == number
        held.append(TimeInterval(len(held), len(held) + 1))
    assert [interval.earliest_ns for interval in held] == list(range(103))


# Groups, intersection, hull.


@given(st.lists(CLOSE, max_size=12))
def test_sorted_groups_are_in_certain_order(given_intervals: list[TimeInterval]) -> None:
    """All of a group is before all of the next; a group cannot be split any further; nothing is lost."""
    groups = sorted_groups(given_intervals)
    assert sorted(map(repr, given_intervals)) == sorted(repr(interval) for group in groups for interval in group)
    for position, group in enumerate(groups):
        for later in groups[position + 1 :]:
            assert all(one.before(other) for one in group for other in later)
        starts = [interval.earliest_ns for interval in group]
        assert starts == sorted(starts)
        for size in range(1, len(group)):
            # By earliest_ns no other split could do: some of the first part must reach into the second.
            assert any(one.compare(other) is Order.UNORDERED for one in group[:size] for other in group[size:])


def test_sorted_groups_join_what_a_third_joins() -> None:
    """Two that are apart are in one group where one interval overlaps both."""
    early, late, both = TimeInterval(0, 10), TimeInterval(20, 30), TimeInterval(5, 25)
    assert sorted_groups([late, early]) == [[early], [late]]
    assert sorted_groups([late, early, both]) == [[early, both, late]]
    assert sorted_groups([]) == []


@given(st.lists(CLOSE, min_size=1, max_size=5), st.integers(-1, 31))
def test_intersection_is_what_all_contain_and_hull_what_any_reaches(some: list[TimeInterval], moment: int) -> None:
    """A moment is in the intersection if it is in all; the hull goes from the first to the last."""
    common = intersection(*some)
    in_common = common is not None and common.compare(moment) is Order.UNORDERED
    assert in_common == all(interval.compare(moment) is Order.UNORDERED for interval in some)
    around = hull(*some)
    assert around.earliest_ns == min(interval.earliest_ns for interval in some)
    assert around.latest_ns == max(interval.latest_ns for interval in some)


@pytest.mark.parametrize(
    ("statuses", "worst"), [((2, 2), 2), ((2, 3), 3), ((3, 2), 3), ((2, 0), 0), ((3, 4), 4), ((77, 2, 3), 77)]
)
def test_joined_intervals_have_the_worst_status(statuses: tuple[int, ...], worst: int) -> None:
    """SYNCHRONIZED is better than FREERUNNING, and FREERUNNING than all the others."""
    some = [TimeInterval(1, 2, status) for status in statuses]
    assert hull(*some)._status == worst
    common = intersection(*some)
    assert common is not None
    assert common._status == worst


# In pydantic models.


class Stamped(BaseModel):
    """A model with an interval in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: TimeInterval


@given(intervals())
def test_a_model_carries_an_interval_through_json(interval: TimeInterval) -> None:
    """As a field, to JSON and to Python values and back, equal to itself."""
    stamped = Stamped(when=interval)
    assert stamped.when is interval
    assert Stamped.model_validate_json(stamped.model_dump_json()) == stamped
    assert Stamped.model_validate(stamped.model_dump()) == stamped
    values = {"earliest_ns": interval.earliest_ns, "latest_ns": interval.latest_ns, "status": interval._status}
    assert stamped.model_dump() == {"when": values}
    adapter = TypeAdapter(TimeInterval)
    assert adapter.validate_json(adapter.dump_json(interval)) == interval


@pytest.mark.parametrize(
    ("values", "where"),
    [
        ({"earliest_ns": 2, "latest_ns": 1}, "not an interval"),
        ({"earliest_ns": 1}, "latest_ns"),
        ({"earliest_ns": 1, "latest_ns": 2**63}, "less than or equal"),
        ({"earliest_ns": -(2**63) - 1, "latest_ns": 2}, "greater than or equal"),
        ({"earliest_ns": 1, "latest_ns": 2, "status": 256}, "status"),
        ({"earliest_ns": 1, "latest_ns": 2, "more": 1}, "more"),
        ({"earliest_ns": 1.5, "latest_ns": 2}, "earliest_ns"),
        (7, "dictionary"),
    ],
)
def test_a_model_refuses_what_is_no_interval(values: Any, where: str) -> None:
    """A ValidationError that says where, never a bare ValueError or OverflowError."""
    with pytest.raises(ValidationError, match=where):
        Stamped.model_validate({"when": values})


def test_the_json_schema_says_what_an_interval_is() -> None:
    """Both times are required 64-bit integers; the status, a byte, is not; for input and output alike."""
    for mode in ("validation", "serialization"):
        schema = Stamped.model_json_schema(mode=mode)
        found = schema["properties"]["when"]
        assert set(found["properties"]) == {"earliest_ns", "latest_ns", "status"}, mode
        assert found["required"] == ["earliest_ns", "latest_ns"], mode
        assert found["additionalProperties"] is False, mode
        bounds = found["properties"]["earliest_ns"]
        assert (bounds["minimum"], bounds["maximum"], bounds["type"]) == (LEAST, LARGEST, "integer")


def test_order_members_are_strings_for_people() -> None:
    """Order has three members and no more; their values are words."""
    assert [order.value for order in Order] == ["before", "after", "unordered"]
    assert [one is other for one, other in pairwise(Order)] == [False, False]
    assert pickle.loads(pickle.dumps(Order.BEFORE)) is Order.BEFORE
