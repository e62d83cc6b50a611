"""TimeInterval and Order: what the compiled type promises, and how intervals are ordered, joined and carried."""

import copy
import datetime
import json
import pickle
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any

import anyio
import httpx
import pytest
from fastapi import Body, FastAPI
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from vmclock_async import ClockStatus, Order, TimeInterval
from vmclock_async.abi import name_of
from vmclock_async.intervals import hull, intersection, latest_ns_of, sorted_groups

LEAST, LARGEST = -(2**63), 2**63 - 1
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
SECOND = datetime.timedelta(seconds=1)
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
    """earliest and midpoint are the last microsecond not after their ns, latest the first not before; all in UTC."""
    microsecond = datetime.timedelta(microseconds=1)
    for moment, ns, outward in (
        (interval.earliest, interval.earliest_ns, -1),
        (interval.midpoint, interval.midpoint_ns, -1),
        (interval.latest, interval.latest_ns, 1),
    ):
        assert moment.tzinfo is datetime.UTC
        off_ns = ((moment - EPOCH) // microsecond * 1000 - ns) * outward
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
def test_number_is_a_moment_whatever_its_size(interval: TimeInterval, ns: int) -> None:
    """Nanoseconds are compared as an interval of no width; beyond 64 bits, as the last there is."""
    clipped = min(max(ns, LEAST), LARGEST)
    assert interval.before(ns) == (interval.latest_ns < clipped)
    assert interval.after(ns) == (interval.earliest_ns > clipped)
    assert interval.compare(ns) is interval.compare(TimeInterval(clipped, clipped))
    assert (ns in interval) == interval.contains(ns) == (interval.compare(ns) is Order.UNORDERED)


ZONES = st.timezones() | st.just(datetime.UTC)


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
    ("error_ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1000, "1 us"),
        (41_200, "41.2 us"),
        (41_201, "41.3 us"),
        (999_000, "999 us"),
        (999_001, "1 ms"),
        (1_234_567_890, "1.24 s"),
        (999_000_000_001, "1000 s"),
        (12_345_000_000_001, "12346 s"),
    ],
)
def test_text_is_the_middle_and_an_error_rounded_up(error_ns: int, text: str) -> None:
    """str() gives UTC to the nanosecond, and the error in three digits that are never less than it is."""
    middle = 1_768_478_400_123_456_789
    shown = str(TimeInterval(middle - error_ns, middle + error_ns))
    assert shown == f"2026-01-15T12:00:00.123456789Z +/- {text}"


@given(intervals())
def test_text_contains_the_interval(interval: TimeInterval) -> None:
    """The interval that str() shows contains the interval itself, and its error is at most a hundredth larger."""
    middle, _, size, unit = str(interval).split()
    moment = datetime.datetime.fromisoformat(f"{middle[:19]}+00:00")
    assert (moment - EPOCH) // SECOND * 10**9 + int(middle[20:29]) == interval.midpoint_ns
    shown_ns = Fraction(size) * {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}[unit]
    assert interval.error_ns <= shown_ns <= interval.error_ns + interval.error_ns // 100 + 10**9 * (unit == "s")


@given(intervals())
def test_dictionary_is_plain_and_its_strings_are_exact(interval: TimeInterval) -> None:
    """as_dict() has every number and the status's name, and survives JSON; strings=True gives numbers in digits."""
    plain = interval.as_dict()
    assert plain == {
        "earliest_ns": interval.earliest_ns,
        "latest_ns": interval.latest_ns,
        "midpoint_ns": interval.midpoint_ns,
        "error_ns": interval.error_ns,
        "status": name_of(interval.status),
    }
    assert json.loads(json.dumps(plain)) == plain
    # As JavaScript reads JSON, each number becomes a double.
    digits = json.loads(json.dumps(interval.as_dict(strings=True)), parse_int=float)
    assert {name: int(text) for name, text in digits.items() if name != "status"} | {
        "status": plain["status"]
    } == plain


@pytest.mark.parametrize("strings", [1, None, "yes"])
def test_dictionary_refuses_what_is_no_choice(strings: Any) -> None:
    """What is neither True nor False is a TypeError that names the argument, as is an argument without its name."""
    with pytest.raises(TypeError, match="strings must be True or False, not"):
        TimeInterval(1, 2).as_dict(strings=strings)
    with pytest.raises(TypeError):
        TimeInterval(1, 2).as_dict(True)  # type: ignore[call-arg]


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
def test_interval_is_frozen(name: str) -> None:
    """No part can be set or deleted, and none added."""
    interval = TimeInterval(1, 2)
    with pytest.raises(AttributeError):
        setattr(interval, name, 1)
    with pytest.raises(AttributeError):
        delattr(interval, name)
    with pytest.raises(TypeError):
        type("Wider", (TimeInterval,), {})


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ((2, 1), ValueError, "earliest_ns must not be after latest_ns: 2 is after 1"),
        ((LARGEST, LEAST), ValueError, "earliest_ns must not be after latest_ns"),
        ((1, 2, -1), ValueError, "status must be from 0 to 255, not -1"),
        ((1, 2, 256), ValueError, "status must be from 0 to 255, not 256"),
        ((1, 2, 2**40), ValueError, "status must be from 0 to 255"),
        ((1, 2, 2**70), OverflowError, "status must be a 64-bit integer"),
        ((LEAST - 1, 0), OverflowError, "earliest_ns must be a 64-bit integer, not -9223372036854775809"),
        ((0, LARGEST + 1), OverflowError, "latest_ns must be a 64-bit integer"),
        ((1.0, 2), TypeError, "earliest_ns must be an integer, not 1.0"),
        ((1, "2"), TypeError, "latest_ns must be an integer, not '2'"),
        ((False, 2), TypeError, "earliest_ns must be an integer, not False"),
        ((1, 2, None), TypeError, "status must be an integer, not None"),
        ((1,), TypeError, "latest_ns"),
        ((), TypeError, "earliest_ns"),
        ((1, 2, 3, 4), TypeError, "at most 3 arguments"),
    ],
)
def test_what_is_no_interval_is_refused(arguments: tuple[Any, ...], error: type[Exception], said: str) -> None:
    """An end before the beginning, a status out of range, a time beyond 64 bits, a float: the argument is named."""
    with pytest.raises(error, match=re.escape(said)):
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


@pytest.mark.parametrize("other", [1, None, (1, 2)])
def test_joining_refuses_what_is_no_interval(other: Any) -> None:
    """A number, nothing or a pair among the intervals is a TypeError that shows it."""
    interval = TimeInterval(1, 2)
    for join in (hull, intersection, lambda *all_: sorted_groups(all_)):
        with pytest.raises(TypeError, match=re.escape(f"not a TimeInterval: {other!r}")):
            join(interval, other)


# In pydantic models.


class Stamped(BaseModel):
    """A model with an interval in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    when: TimeInterval


@given(intervals())
def test_model_carries_an_interval_through_json(interval: TimeInterval) -> None:
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
        ({"earliest_ns": 2, "latest_ns": 1}, "earliest_ns must not be after latest_ns"),
        ({"earliest_ns": 1}, "latest_ns"),
        ({"earliest_ns": 1, "latest_ns": 2**63}, "less than or equal"),
        ({"earliest_ns": -(2**63) - 1, "latest_ns": 2}, "greater than or equal"),
        ({"earliest_ns": 1, "latest_ns": 2, "status": 256}, "status"),
        ({"earliest_ns": 1, "latest_ns": 2, "more": 1}, "more"),
        ({"earliest_ns": 1.5, "latest_ns": 2}, "earliest_ns"),
        (7, "dictionary"),
    ],
)
def test_model_refuses_what_is_no_interval(values: Any, where: str) -> None:
    """A ValidationError that says where, never a bare ValueError or OverflowError."""
    with pytest.raises(ValidationError, match=where):
        Stamped.model_validate({"when": values})


def test_json_schema_says_what_an_interval_is() -> None:
    """Both times are required 64-bit integers; the status, a byte, is not; for input and output alike."""
    for mode in ("validation", "serialization"):
        schema = Stamped.model_json_schema(mode=mode)
        assert schema["properties"]["when"] == {"$ref": "#/$defs/TimeInterval"}, mode
        found = schema["$defs"]["TimeInterval"]
        assert found["title"] == "TimeInterval", mode
        assert "2**53" in found["description"], mode
        assert set(found["properties"]) == {"earliest_ns", "latest_ns", "status"}, mode
        assert found["required"] == ["earliest_ns", "latest_ns"], mode
        assert found["additionalProperties"] is False, mode
        bounds = found["properties"]["earliest_ns"]
        assert (bounds["minimum"], bounds["maximum"], bounds["type"]) == (LEAST, LARGEST, "integer")


def service() -> FastAPI:
    """A service that takes intervals and gives them."""
    app = FastAPI()

    @app.get("/now")
    async def now() -> TimeInterval:
        return TimeInterval(1, 2)

    @app.post("/stamped")
    async def stamped(stamp: Stamped, beside: Annotated[TimeInterval, Body()]) -> list[TimeInterval]:
        return [stamp.when, beside]

    return app


def test_openapi_has_one_component_for_intervals() -> None:
    """FastAPI shows an interval by its name wherever a service takes or gives one, alone or in a model."""
    schemas = service().openapi()["components"]["schemas"]
    assert {name for name in schemas if "Interval" in name} == {"TimeInterval"}
    assert schemas["Stamped"]["properties"]["when"] == {"$ref": "#/components/schemas/TimeInterval"}


async def _answers(app: FastAPI, stamp: dict[str, Any], beside: dict[str, Any]) -> tuple[Any, Any]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        now = await client.get("/now")
        stamped = await client.post("/stamped", json={"stamp": {"when": stamp}, "beside": beside})
        return now.json(), stamped.json()


def test_service_takes_numbers_as_strings() -> None:
    """What a JavaScript program sends as strings of digits is taken to the nanosecond; answers are integers."""
    strings = {"earliest_ns": "1768478400123456789", "latest_ns": "1768478400123456790"}
    now, stamped = anyio.run(_answers, service(), strings, {"earliest_ns": 3, "latest_ns": 4})
    assert now == {"earliest_ns": 1, "latest_ns": 2, "status": 2}
    first = {"earliest_ns": 1_768_478_400_123_456_789, "latest_ns": 1_768_478_400_123_456_790, "status": 2}
    assert stamped == [first, {"earliest_ns": 3, "latest_ns": 4, "status": 2}]


def test_order_members_are_strings_for_people() -> None:
    """Order has three members and no more; their values are words."""
    assert [order.value for order in Order] == ["before", "after", "unordered"]
    assert [one is other for one, other in pairwise(Order)] == [False, False]
    assert pickle.loads(pickle.dumps(Order.BEFORE)) is Order.BEFORE
