"""Dead reckoning: the time that a body gives at another counter value, and how far off that may be.

Exact integers throughout, every rounding outward. With c the counter, c0, P, k, R as the ABI has them
(counter_value, counter_period_frac_sec, counter_period_shift, counter_period_maxerror_rate_frac_sec) and
d = c - c0 as a signed 64-bit difference:

    T = time_sec + time_frac_sec / 2**64 + d * P / 2**(64 + k)            seconds
    M = time_maxerror_nanosec + |d| * R / 2**(64 + k) * 10**9              nanoseconds

Source of the formulas: ``include/uapi/linux/vmclock-abi.h``, UAPI.13 "VMClock".
"""

import datetime
import math
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from vmclock_async import _core
from vmclock_async.abi import (
    BOTH_BOUNDS,
    TELLS_TIME,
    CounterId,
    Flags,
    LeapIndicator,
    TimeType,
    name_of,
    packed_values,
)
from vmclock_async.errors import (
    ClockDisruptedError,
    ClockError,
    ClockNotSynchronizedError,
    ClockStaleError,
    ClockUnboundedError,
    CounterNotSupportedError,
)
from vmclock_async.models import Contents, Snapshot, VMClockBody
from vmclock_async.timebase import ticks_between

__all__ = (
    "LATEST_NS",
    "UNITS_PER_SECOND",
    "Bounds",
    "Budget",
    "Reckoned",
    "announced_leap_ns",
    "bounds_at",
    "bounds_in_range",
    "budget_at",
    "elapsed",
    "find_bounds",
    "gives_interval",
    "maxerror_rate",
    "reckon",
    "ticks_between",
    "units",
    "went_back",
)

UNITS_PER_SECOND: Final = 2**64
"""Times here are in units of 2**-64 s, as time_frac_sec is."""

_LARGEST_SHIFT: Final = 63
_LONGEST_PAST_S: Final = 1
"""A counter that is further behind its reference than this was reset."""
_WARP_TICKS: Final = 2**20
"""Ticks by which one core's counter may be behind another's without a reset; below a millisecond."""
LATEST_NS: Final = 2**63 - 1
"""The end of signed 64-bit nanoseconds, in 2262."""


class Reckoned(NamedTuple):
    """A time on the page's own timescale."""

    low: int
    """Units of 2**-64 s since the timescale's epoch, rounded down."""
    high: int
    """The same, rounded up."""
    elapsed: int
    """Units of 2**-64 s since the reference time; negative before it."""
    maxerror_ns: int
    esterror_ns: int


def went_back(earlier: int, later: int) -> bool:
    """Whether the counter was reset between two looks at it, first *earlier* and then *later*."""
    return ticks_between(earlier, later) < -_WARP_TICKS


def reckon(body: VMClockBody, counter: int) -> Reckoned:
    """The time of *body* at *counter*, whatever its flags and status are."""
    d = ticks_between(body.counter_value, counter)
    k = body.counter_period_shift
    reference = body.time_sec * UNITS_PER_SECOND + body.time_frac_sec
    product = d * body.counter_period_frac_sec
    elapsed = product >> k
    return Reckoned(
        low=reference + elapsed,
        high=reference - (-product >> k),
        elapsed=elapsed,
        maxerror_ns=body.time_maxerror_nanosec + _grown_ns(d, body.counter_period_maxerror_rate_frac_sec, k),
        esterror_ns=body.time_esterror_nanosec + _grown_ns(d, body.counter_period_esterror_rate_frac_sec, k),
    )


def elapsed(body: VMClockBody, earlier: int, later: int) -> int:
    """The time from the counter value *earlier* to *later* by the period of *body*: 2**-64 s, rounded down."""
    ticks = (later - earlier + 2**63) % 2**64 - 2**63  # as ticks_between(), whose call would cost more
    return ticks * body.counter_period_frac_sec >> body.counter_period_shift


def _grown_ns(ticks: int, rate: int, shift: int) -> int:
    return -(-abs(ticks) * rate * 10**9 >> 64 + shift)


class Bounds(NamedTuple):
    """An interval of UTC, nanoseconds since 1970, that contains true time."""

    earliest_ns: int
    latest_ns: int

    @property
    def midpoint_ns(self) -> int:
        """The middle, rounded down."""
        return (self.earliest_ns + self.latest_ns) // 2

    @property
    def error_ns(self) -> int:
        """Half the width, rounded up."""
        return -((self.earliest_ns - self.latest_ns) // 2)


def bounds_at(
    contents: Snapshot | Contents,
    counter: int,
    *,
    counter_id: CounterId,
    max_age_s: float | Fraction = 1000,
    max_past_s: float | Fraction = _LONGEST_PAST_S,
    max_drift_ppb: int = 0,
    leap: bool = True,
) -> Bounds:
    """The interval in which *contents* puts true time at *counter*.

    Args:
        contents: a snapshot of the segment, or the contents that a commit writes to it.
        counter: raw counter value, read together with the page.
        counter_id: the counter from which *counter* was read (``timebase.COUNTER_ID``).
        max_age_s: longest time in seconds by which the reference is carried forward.
        max_past_s: longest time in seconds by which the reference is carried back.
        max_drift_ppb: maximum period error to use where the page has none, parts in 10**9; 0: use none.
        leap: whether an announced leap second widens the interval past the month's end.

    Raises:
        ClockNotSynchronizedError: clock_status is neither SYNCHRONIZED nor FREERUNNING.
        CounterNotSupportedError: the segment's counter is another one, or its shift is above 63.
        ClockUnboundedError: a bound is missing, the time is not UTC nor convertible to it, or out of range.
        ClockDisruptedError: the counter is more than *max_past_s* behind the reference: it was reset.
        ClockStaleError: the reference is older than *max_age_s*.
    """
    body = contents.body
    if max_drift_ppb and not body.flags & Flags.PERIOD_MAXERROR_VALID:
        body = _with_drift(body, max_drift_ppb)
    _require_bound(contents, body, counter_id)
    time = reckon(body, counter)
    if time.elapsed < -units(max_past_s):
        raise ClockDisruptedError(
            f"the counter is {-time.elapsed / UNITS_PER_SECOND:.3f} s behind the segment's reference: it was "
            "reset, or the segment is of another machine; wait for a new commit"
        )
    if time.elapsed + time.high - time.low > units(max_age_s):  # rounded up
        raise ClockStaleError(
            f"the segment's reference is {time.elapsed / UNITS_PER_SECOND:.0f} s old, more than {float(max_age_s):g} "
            "s; is its publisher running?"
        )
    offset_s = body.tai_offset_sec if contents.time_type == TimeType.TAI else 0
    low, high = time.low + offset_s * UNITS_PER_SECOND, time.high + offset_s * UNITS_PER_SECOND
    earliest = (low * 10**9 >> 64) - time.maxerror_ns
    latest = -(-high * 10**9 >> 64) + time.maxerror_ns
    if leap:
        earliest, latest = _widened_by_leap(body, earliest, latest, body.time_sec + offset_s)
    return bounds_in_range(earliest, latest)


class Budget(NamedTuple):
    """The terms of an interval's error, in nanoseconds; their sum is ``Bounds.error_ns`` of that interval."""

    reference_ns: int
    """Error of the reference time, as the page has it."""
    growth_ns: int
    """What the period's error has added since, rounded up."""
    rounding_ns: int
    """What rounding outward to whole nanoseconds adds."""
    leap_ns: int
    """What a leap second adds that may or may not be over."""


def budget_at(
    contents: Snapshot | Contents, counter: int, *, counter_id: CounterId, max_age_s: float | Fraction = 1000
) -> Budget:
    """The terms of the error of the interval that ``bounds_at`` gives for these arguments.

    Raises:
        ClockError: as ``bounds_at`` does.
    """
    bounds, plain = (
        bounds_at(contents, counter, counter_id=counter_id, max_age_s=max_age_s, leap=leap)
        for leap in (True, False)
    )
    maxerror_ns = reckon(contents.body, counter).maxerror_ns
    reference_ns = contents.body.time_maxerror_nanosec
    return Budget(
        reference_ns=reference_ns,
        growth_ns=maxerror_ns - reference_ns,
        rounding_ns=plain.error_ns - maxerror_ns,
        leap_ns=bounds.error_ns - plain.error_ns,
    )


def bounds_in_range(earliest_ns: int, latest_ns: int) -> Bounds:
    """The interval between the two.

    Raises:
        ClockUnboundedError: the interval leaves the years 1970 to 2262.
    """
    if earliest_ns < 0 or latest_ns > LATEST_NS:
        raise ClockUnboundedError(
            f"the interval from {earliest_ns} to {latest_ns} ns leaves the years 1970 to 2262; the segment is damaged"
        )
    return Bounds(earliest_ns, latest_ns)


def find_bounds(
    contents: Snapshot | Contents, counter: int, *, counter_id: CounterId, max_age_s: int = 1000, leap: bool = True
) -> Bounds | None:
    """The interval that ``bounds_at`` gives, or None where it raises; quick, because each commit asks for it.

    The core answers where it can. ``bounds_at`` handles rare cases, such as a leap second.
    """
    body = contents.body
    found = _core.bounds(
        packed_values(body.__dict__),
        contents.counter_id,
        contents.time_type,
        counter,
        counter_id,
        _LONGEST_PAST_S,
        max_age_s,
    )
    if found is not None:
        return Bounds(*found)
    if int(body.flags) & BOTH_BOUNDS != BOTH_BOUNDS or body.clock_status not in TELLS_TIME:
        return None  # bounds_at would raise, which takes longer
    try:
        return bounds_at(contents, counter, counter_id=counter_id, max_age_s=max_age_s, leap=leap)
    except ClockError:
        return None


def gives_interval(contents: Snapshot | Contents, counter: int, *, counter_id: CounterId) -> bool:
    """Whether ``bounds_at`` gives readers an interval from *contents* at *counter*."""
    return find_bounds(contents, counter, counter_id=counter_id) is not None


def reference_month_ns(contents: Snapshot | Contents) -> int:
    """The beginning of the UTC month in which the reference of *contents* lies, nanoseconds since 1970."""
    return _month_start_ns(_reference_utc_s(contents))


def announced_leap_ns(contents: Snapshot | Contents) -> int | None:
    """The end of the UTC month for which *contents* announces a leap second, nanoseconds since 1970; None: for none."""
    if contents.body.leap_indicator not in (LeapIndicator.PRE_POS, LeapIndicator.PRE_NEG):
        return None
    return _month_end_ns(_reference_utc_s(contents))


def _reference_utc_s(contents: Snapshot | Contents) -> int:
    return contents.body.time_sec + (contents.body.tai_offset_sec if contents.time_type == TimeType.TAI else 0)


@lru_cache(maxsize=64)  # each commit asks for the same few limits
def units(seconds: float | Fraction) -> int:
    """*seconds* in units of 2**-64 s, rounded down."""
    return math.floor(Fraction(seconds) * UNITS_PER_SECOND)


def maxerror_rate(body: VMClockBody, max_drift_ppb: int) -> int:
    """The maximum period error of *body*, in its own unit; where it has none, the error by *max_drift_ppb*."""
    if body.flags & Flags.PERIOD_MAXERROR_VALID:
        return body.counter_period_maxerror_rate_frac_sec
    return -(-body.counter_period_frac_sec * max_drift_ppb // 10**9)


def _with_drift(body: VMClockBody, max_drift_ppb: int) -> VMClockBody:
    rate = maxerror_rate(body, max_drift_ppb)
    flags = Flags(body.flags | Flags.PERIOD_MAXERROR_VALID)
    return body.model_copy(update={"counter_period_maxerror_rate_frac_sec": rate, "flags": flags})


def _require_bound(contents: Snapshot | Contents, body: VMClockBody, counter_id: CounterId) -> None:
    if contents.counter_id == CounterId.INVALID:
        raise CounterNotSupportedError(
            "the segment tells no time (counter_id is INVALID): its sources have none, or this machine's counter does "
            "not keep its rate; the publisher's log says which"
        )
    if body.clock_status not in TELLS_TIME:
        raise ClockNotSynchronizedError(
            f"clock_status is {name_of(body.clock_status)}; wait until it is SYNCHRONIZED or FREERUNNING. If it stays "
            "so, does a daemon synchronize the clock? The publisher's log says what its sources lack"
        )
    if contents.counter_id != counter_id:
        raise CounterNotSupportedError(
            f"the segment counts with {name_of(contents.counter_id)}, this machine with "
            f"{name_of(counter_id)}; a source has to give the time in this machine's counter"
        )
    if body.counter_period_frac_sec == 0:
        raise ClockUnboundedError("counter_period_frac_sec is 0: nothing tells how fast the counter goes")
    if body.counter_period_shift > _LARGEST_SHIFT:
        raise CounterNotSupportedError(f"counter_period_shift is {body.counter_period_shift}, more than 63")
    for flag, field in (
        (Flags.TIME_MAXERROR_VALID, "time_maxerror_nanosec"),
        (Flags.PERIOD_MAXERROR_VALID, "counter_period_maxerror_rate_frac_sec"),
    ):
        if not body.flags & flag:
            raise ClockUnboundedError(
                f"{field} is not valid ({flag.name} is clear); use a source that bounds it: chrony, or kernel with "
                "assumed_error"
            )
    match contents.time_type:
        case TimeType.UTC:
            pass
        case TimeType.TAI if not body.flags & Flags.TAI_OFFSET_VALID:
            raise ClockUnboundedError(
                "the time is TAI and its offset to UTC is not valid (TAI_OFFSET_VALID is clear)"
            )
        case TimeType.TAI if body.tai_offset_sec >= 0:
            raise ClockUnboundedError(
                f"tai_offset_sec is {body.tai_offset_sec}: the offset is from TAI to UTC, and so negative; "
                "the publisher uses the old sign, or does not know it"
            )
        case TimeType.TAI:
            pass
        case _:
            raise ClockUnboundedError(
                f"the time is {name_of(contents.time_type)}, which cannot be turned into UTC"
            )


def _widened_by_leap(body: VMClockBody, earliest: int, latest: int, reference_utc_s: int) -> tuple[int, int]:
    """The hull of both readings, where UTC may or may not have made its leap.

    This is past the end of the reference's month if a leap second is announced, and from within a positive one on,
    because its body may still be read when the second is over. A positive leap second repeats a second, so true UTC is
    one second less than reckoned. A negative one skips the month's last second: it is made a second before the month's
    end. For a time carried back past a leap that is over, the direction is the opposite.

    The repeated second also widens the interval: in its first pass (from a second before the month's end on) and in its
    second, readings reach a second later. Otherwise a reading in the second pass would be before one in the first.
    """
    match body.leap_indicator:
        case LeapIndicator.POS:
            return earliest - 10**9, latest + 10**9
        case LeapIndicator.PRE_POS if latest >= _month_end_ns(reference_utc_s):
            return earliest - 10**9, latest + 10**9
        case LeapIndicator.PRE_POS if latest >= _month_end_ns(reference_utc_s) - 10**9:
            return earliest, latest + 10**9
        case LeapIndicator.POST_POS if earliest < _month_start_ns(reference_utc_s):
            return earliest, latest + 10**9
        case LeapIndicator.POST_NEG if earliest < _month_start_ns(reference_utc_s):
            return earliest - 10**9, latest
        case LeapIndicator.PRE_NEG if latest >= _month_end_ns(reference_utc_s) - 10**9:
            return earliest, latest + 10**9
        case _:
            return earliest, latest


def _month_start_ns(utc_s: int) -> int:
    """The beginning of the UTC month in which *utc_s* falls, nanoseconds since 1970."""
    try:
        moment = datetime.datetime.fromtimestamp(utc_s, datetime.UTC)
    except (OverflowError, OSError, ValueError):
        return 0  # out of every range, so it is refused later
    return int(moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp()) * 10**9


def _month_end_ns(utc_s: int) -> int:
    """The end of the UTC month in which *utc_s* falls, nanoseconds since 1970."""
    try:
        moment = datetime.datetime.fromtimestamp(utc_s, datetime.UTC)
        in_next_month = moment.replace(day=1) + datetime.timedelta(days=32)
    except (OverflowError, OSError, ValueError):
        return LATEST_NS  # out of every range, so it is refused later
    return int(in_next_month.replace(day=1, hour=0, minute=0, second=0).timestamp()) * 10**9
