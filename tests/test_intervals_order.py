"""Order among intervals and moments: certain or none; and what several intervals have in common."""

import datetime
import pickle
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kit.intervals import CLOSE, EPOCH, LARGEST, LEAST, NS, intervals
from vmclock_async import Order, TimeInterval
from vmclock_async.intervals import hull, intersection, latest_ns_of, sorted_groups

ZONES = st.timezones() | st.just(datetime.UTC)


@given(CLOSE | intervals(), CLOSE | intervals())
def test_order_is_certain_or_none(one: TimeInterval, other: TimeInterval) -> None:
    """BEFORE where all of one is earlier than all of the other, AFTER the other way round, UNORDERED if they touch."""
    assert one.before(other) == other.after(one) == (one.latest_ns < other.earliest_ns)
    assert one.after(other) == other.before(one) == (one.earliest_ns > other.latest_ns)
    expected = Order.BEFORE if one.before(other) else Order.AFTER if one.after(other) else Order.UNORDERED
    assert one.compare(other) is expected


@given(intervals(), NS | st.integers(-(2**80), 2**80))
def test_number_is_a_moment_whatever_its_size(interval: TimeInterval, ns: int) -> None:
    """Nanoseconds are compared as an interval of no width; beyond 64 bits, as the last there is."""
    clipped = min(max(ns, LEAST), LARGEST)
    assert interval.before(ns) == (interval.latest_ns < clipped)
    assert interval.after(ns) == (interval.earliest_ns > clipped)
    assert interval.compare(ns) is interval.compare(TimeInterval(clipped, clipped))
    assert (ns in interval) == interval.contains(ns) == (interval.compare(ns) is Order.UNORDERED)


@given(st.datetimes(timezones=ZONES) | st.datetimes(timezones=st.timezones(), allow_imaginary=False), st.data())
def test_aware_datetime_is_one_exact_moment(moment: datetime.datetime, data: st.DataObject) -> None:
    """An aware datetime of any zone and year is compared as the nanoseconds of its microsecond."""
    days = (moment.astimezone(datetime.UTC) if 1 < moment.year < 9999 else moment) - EPOCH
    ns = (days.days * 86_400 * 10**6 + days.seconds * 10**6 + days.microseconds) * 1000
    assert latest_ns_of(moment) == ns
    near = st.integers(ns - 2000, ns + 2000).filter(lambda time: LEAST <= time <= LARGEST)
    interval = data.draw(intervals(near) if LEAST < ns < LARGEST else intervals())
    for ask in (interval.before, interval.after, interval.compare, interval.contains):
        assert ask(moment) == ask(ns)
    assert (moment in interval) == interval.contains(ns)


@given(CLOSE, CLOSE)
def test_interval_contains_what_lies_within(one: TimeInterval, other: TimeInterval) -> None:
    """An interval contains itself, both of its ends, and each interval whose ends it contains."""
    assert (other in one) == one.contains(other) == (other.earliest_ns in one and other.latest_ns in one)
    assert one in one
    assert one.earliest_ns in one
    assert one.latest_ns in one
    assert one.midpoint_ns in one
    assert (other in one) == (hull(one, other).earliest_ns in one and hull(one, other).latest_ns in one)


@given(intervals())
def test_moment_is_over_at_its_latest_nanosecond(interval: TimeInterval) -> None:
    """latest_ns_of() gives the end of an interval, and a number as it is, whatever its size."""
    assert latest_ns_of(interval) == latest_ns_of(interval.latest_ns) == interval.latest_ns
    assert latest_ns_of(2**80) == 2**80


@pytest.mark.parametrize("other", ["1", 1.5, None, True, Fraction(3), datetime.date(2026, 1, 15)])
def test_what_is_no_time_has_no_order(other: Any) -> None:
    """A float of seconds, a bool, a date or nothing at all is a TypeError that shows it, not a wrong answer."""
    interval = TimeInterval(1, 2)
    for ask in (interval.before, interval.after, interval.compare, interval.contains, latest_ns_of):
        with pytest.raises(TypeError, match="not a TimeInterval, nanoseconds since 1970") as caught:
            ask(other)
        assert str(caught.value).endswith(repr(other))
    with pytest.raises(TypeError, match="not a TimeInterval"):
        assert other in interval


class _Nowhere(datetime.tzinfo):
    """A time zone that does not say where it is, which makes a datetime naive."""

    def utcoffset(self, _: datetime.datetime | None) -> None:
        return None

    dst = tzname = utcoffset


@pytest.mark.parametrize("zone", [None, _Nowhere()])
def test_naive_datetime_is_refused_with_the_remedy(zone: datetime.tzinfo | None) -> None:
    """A datetime without a time zone could be any hour of a day: TypeError, which says how to make it aware."""
    moment = datetime.datetime(2026, 1, 15, 12, tzinfo=zone)
    interval = TimeInterval(1, 2)
    for ask in (interval.before, interval.after, interval.compare, interval.contains, latest_ns_of):
        with pytest.raises(TypeError, match=r"without a time zone is no moment: .*2026, 1, 15.* make it aware"):
            ask(moment)


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


def test_order_members_are_strings_for_people() -> None:
    """Order has three members and no more; their values are words."""
    assert [order.value for order in Order] == ["before", "after", "unordered"]
    assert [one is other for one, other in pairwise(Order)] == [False, False]
    assert pickle.loads(pickle.dumps(Order.BEFORE)) is Order.BEFORE


# Groups, intersection, hull


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


@pytest.mark.parametrize("other", [1, None, (1, 2)])
def test_joining_refuses_what_is_no_interval(other: Any) -> None:
    """A number, nothing or a pair among the intervals is a TypeError that shows it."""
    interval = TimeInterval(1, 2)
    for join in (hull, intersection, lambda *all_: sorted_groups(all_)):
        with pytest.raises(TypeError, match=re.escape(f"not a TimeInterval: {other!r}")):
            join(interval, other)
