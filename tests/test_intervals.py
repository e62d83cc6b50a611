"""TimeInterval: what the compiled type promises."""

import copy
import datetime
import json
import pickle
import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from kit.intervals import EPOCH, LARGEST, LEAST, intervals
from vmclock_async import ClockStatus, TimeInterval
from vmclock_async.abi import name_of

SECOND = datetime.timedelta(seconds=1)


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
