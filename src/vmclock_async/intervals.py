"""Order, groups, intersection and hull of ``TimeInterval``s.

Two intervals that overlap have no order: true time may have been the same in both. So there is no ``<``, and a sort
puts intervals that cannot be ordered into one group.

The functions with an underscore complete the compiled ``TimeInterval``; the last statement gives them to the core.
"""

import datetime
import operator
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, Final

from pydantic_core import CoreSchema, core_schema

from vmclock_async import _core
from vmclock_async._core import TimeInterval
from vmclock_async._notation import bounded_text
from vmclock_async.abi import ClockStatus, name_of

__all__ = ("Order", "TimeInterval", "hull", "intersection", "latest_ns_of", "sorted_groups")

_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND: Final = datetime.timedelta(microseconds=1)


class Order(Enum):
    """The order of one interval and another."""

    BEFORE = "before"
    """It ended before the other began: the event that it stamps is certain to be earlier."""
    AFTER = "after"
    """It began after the other ended."""
    UNORDERED = "unordered"
    """They overlap or touch: either may have been first, or both at once."""


def sorted_groups(intervals: Iterable[TimeInterval]) -> list[list[TimeInterval]]:
    """*intervals* in groups: each interval of a group is certainly before each one of the groups after it.

    There are as many groups as possible. A group as a whole has no order; its intervals are sorted by earliest_ns.

    Raises:
        TypeError: one of *intervals* is no TimeInterval.
    """
    groups: list[list[TimeInterval]] = []
    end_ns = 0
    for interval in sorted(_checked(intervals), key=lambda interval: (interval.earliest_ns, interval.latest_ns)):
        if groups and interval.earliest_ns <= end_ns:
            groups[-1].append(interval)
            end_ns = max(end_ns, interval.latest_ns)
        else:
            groups.append([interval])
            end_ns = interval.latest_ns
    return groups


def intersection(first: TimeInterval, *others: TimeInterval) -> TimeInterval | None:
    """The interval that all have in common; None where there is none.

    If several readings of one moment contain true time, so does their intersection. Its status is the worst of theirs.

    Raises:
        TypeError: an argument is no TimeInterval.
    """
    intervals = _checked((first, *others))
    earliest_ns = max(interval.earliest_ns for interval in intervals)
    latest_ns = min(interval.latest_ns for interval in intervals)
    return TimeInterval(earliest_ns, latest_ns, _worst(intervals)) if earliest_ns <= latest_ns else None


def hull(first: TimeInterval, *others: TimeInterval) -> TimeInterval:
    """The smallest interval that contains all of them. Its status is the worst of theirs.

    Raises:
        TypeError: an argument is no TimeInterval.
    """
    intervals = _checked((first, *others))
    return TimeInterval(
        min(interval.earliest_ns for interval in intervals),
        max(interval.latest_ns for interval in intervals),
        _worst(intervals),
    )


def latest_ns_of(moment: TimeInterval | int | datetime.datetime) -> int:
    """The nanosecond of UTC since 1970 by which *moment* is over: an interval's latest_ns.

    Nanoseconds stay as they are. An aware datetime is that exact microsecond.

    Raises:
        TypeError: *moment* is something else, such as a bool, a float or a datetime without a time zone.
    """
    return moment.latest_ns if isinstance(moment, TimeInterval) else _moment_ns(moment)


def _checked(intervals: Iterable[TimeInterval]) -> list[TimeInterval]:
    checked = list(intervals)
    for interval in checked:
        if not isinstance(interval, TimeInterval):
            raise TypeError(f"not a TimeInterval: {interval!r}")
    return checked


def _worst(intervals: Iterable[TimeInterval]) -> int:
    return min((interval._status for interval in intervals), key=lambda status: (status == 2, status == 3))


def _moment_ns(moment: object) -> int:
    """Nanoseconds since 1970 of *moment*, an integer or an aware datetime."""
    if isinstance(moment, datetime.datetime):
        if moment.utcoffset() is None:
            raise TypeError(
                f"a datetime without a time zone is no moment: {moment!r}; make it aware, as datetime.now(UTC) is"
            )
        return (moment - _EPOCH) // _MICROSECOND * 1000
    if not isinstance(moment, bool):
        try:
            return operator.index(moment)  # type: ignore[arg-type]  # any other type is refused below
        except TypeError:
            pass
    raise TypeError(f"not a TimeInterval, nanoseconds since 1970 (an int), or an aware datetime: {moment!r}")


def _datetime(microseconds: int) -> datetime.datetime:
    return _EPOCH + datetime.timedelta(microseconds=microseconds)


def _earliest(interval: TimeInterval) -> datetime.datetime:
    return _datetime(interval.earliest_ns // 1000)


def _latest(interval: TimeInterval) -> datetime.datetime:
    return _datetime(-(-interval.latest_ns // 1000))


def _midpoint(interval: TimeInterval) -> datetime.datetime:
    return _datetime(interval.midpoint_ns // 1000)


def _status(interval: TimeInterval) -> ClockStatus | int:
    try:
        return ClockStatus(interval._status)
    except ValueError:
        return interval._status


def _repr(interval: TimeInterval) -> str:
    return f"<TimeInterval {interval.earliest_ns} to {interval.latest_ns} ns, {name_of(interval.status)}>"


def _text(interval: TimeInterval) -> str:
    return bounded_text(interval.midpoint_ns, interval.error_ns)


def _order(interval: TimeInterval, other: TimeInterval | int | datetime.datetime) -> Order:
    if interval.before(other):
        return Order.BEFORE
    return Order.AFTER if interval.after(other) else Order.UNORDERED


def _as_dict(interval: TimeInterval, strings: object) -> dict[str, int | str]:
    if not isinstance(strings, bool):
        raise TypeError(f"strings must be True or False, not {strings!r}")
    number: Callable[[int], int | str] = str if strings else int
    return {
        "earliest_ns": number(interval.earliest_ns),
        "latest_ns": number(interval.latest_ns),
        "midpoint_ns": number(interval.midpoint_ns),
        "error_ns": number(interval.error_ns),
        "status": name_of(interval.status),
    }


_INT64: Final = core_schema.int_schema(ge=-(2**63), le=2**63 - 1)
_FIELDS: Final = core_schema.typed_dict_schema(
    {
        "earliest_ns": core_schema.typed_dict_field(_INT64),
        "latest_ns": core_schema.typed_dict_field(_INT64),
        "status": core_schema.typed_dict_field(core_schema.int_schema(ge=0, le=255), required=False),
    },
    extra_behavior="forbid",
)
_DICT_KEYS: Final = {"earliest_ns", "latest_ns", "midpoint_ns", "error_ns", "status"}
"""Keys of ``as_dict``. Models accept them too, though the JSON schema, one for input and output, does not list them."""


def _validated(given: Any, fields: Callable[[Any], TimeInterval]) -> TimeInterval:
    """The interval that *given* describes, in the form of *fields* or in that of ``as_dict``."""
    if not (isinstance(given, dict) and given.keys() == _DICT_KEYS):
        return fields(given)
    status = given["status"]
    if isinstance(status, str):
        status = int(ClockStatus[status]) if status in ClockStatus.__members__ else int(status)
    interval = fields({"earliest_ns": given["earliest_ns"], "latest_ns": given["latest_ns"], "status": status})
    for name in ("midpoint_ns", "error_ns"):
        if str(given[name]) != str(getattr(interval, name)):
            raise ValueError(
                f"{name} is {getattr(interval, name)} by earliest_ns and latest_ns, not {given[name]}"
            )
    return interval


def _schema(_: type[TimeInterval]) -> CoreSchema:
    from_fields = core_schema.no_info_wrap_validator_function(
        _validated, core_schema.no_info_after_validator_function(lambda fields: TimeInterval(**fields), _FIELDS)
    )
    return core_schema.json_or_python_schema(
        json_schema=from_fields,
        python_schema=core_schema.union_schema([core_schema.is_instance_schema(TimeInterval), from_fields]),
        serialization=core_schema.plain_serializer_function_ser_schema(_fields, return_schema=_FIELDS),
        ref=f"vmclock_async.TimeInterval:{id(TimeInterval)}",  # makes it a component with this name
    )


def _json_schema(schema: CoreSchema, handler: Callable[[CoreSchema], dict[str, Any]]) -> dict[str, Any]:
    return handler(schema) | {
        "title": "TimeInterval",
        "description": "An interval of UTC that contains true time. Nanoseconds since 1970 pass 2**53: a program that "
        "reads them as doubles, as JavaScript does, is off by up to 128 ns.",
    }


def _fields(interval: TimeInterval) -> dict[str, Any]:
    return {
        "earliest_ns": interval.earliest_ns,
        "latest_ns": interval.latest_ns,
        "status": interval._status,
    }


_core.set_interval_functions(
    _earliest,
    _latest,
    _midpoint,
    _status,
    _repr,
    _text,
    _order,
    _moment_ns,
    _as_dict,
    _schema,
    _json_schema,
)
