"""Dead reckoning against exact fractions, over the whole range of every field.

The oracle here is written from the formulas in the ABI's header and knows nothing of fixed point.
"""

import calendar
import math
import time
from fractions import Fraction

import pytest
from hypothesis import event, given, settings, strategies as st

from kit.snapshots import snapshot_of
from vmclock_async import (
    ClockDisruptedError,
    ClockError,
    ClockNotSynchronizedError,
    ClockStaleError,
    ClockUnboundedError,
    CounterId,
    CounterNotSupportedError,
    Flags,
    LeapIndicator,
    Snapshot,
    TimeType,
    VMClockBody,
)
from vmclock_async.reckoning import Bounds, bounds_at, elapsed, find_bounds, gives_interval, reckon, ticks_between

U64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**63 - 1, 2**63, 2**64 - 1])
BOUNDED = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
YEAR_2026 = 1_767_225_600
"""2026-01-01 00:00:00 UTC."""


def signed_difference(earlier: int, later: int) -> int:
    """The difference of least size that leads from *earlier* to *later* around 2**64, -2**63 for the farthest."""
    return min((later - earlier, later - earlier - 2**64, later - earlier + 2**64), key=lambda d: (abs(d), d))


def exact_time_s(body: VMClockBody, counter: int) -> Fraction:
    """The time of *body* at *counter*, seconds on its own timescale."""
    d = signed_difference(body.counter_value, counter)
    period_s = Fraction(body.counter_period_frac_sec, 2 ** (64 + body.counter_period_shift))
    return body.time_sec + Fraction(body.time_frac_sec, 2**64) + d * period_s


def exact_error_ns(body: VMClockBody, counter: int, error_ns: int, rate: int) -> Fraction:
    """*error_ns*, grown by *rate* from the reference to *counter*."""
    d = signed_difference(body.counter_value, counter)
    return error_ns + abs(d) * Fraction(rate, 2 ** (64 + body.counter_period_shift)) * 10**9


@st.composite
def readings(draw: st.DrawFn) -> tuple[Snapshot, int]:
    """A snapshot, most often of a sound clock, and a counter value, most often near its reference."""
    chances = iter(
        draw(st.binary(min_size=9, max_size=9))
    )  # one draw, because each takes a tenth of a millisecond

    def rarely() -> bool:
        return next(chances) >= 240

    shift = draw(st.integers(0, 63) if not rarely() else st.integers(0, 255))
    period = draw(st.integers(2**63, 2**64 - 1)) if draw(st.booleans()) else draw(U64)
    # Ticks that make from -2 s to 1100 s, past either limit.
    per_second = 2 ** (64 + shift) // max(period, 1)
    ticks = draw(st.integers(-2 * per_second, 1100 * per_second)) if not rarely() else draw(U64)
    counter_value = draw(U64)
    time_type = draw(st.sampled_from([TimeType.UTC, TimeType.TAI]) if not rarely() else st.integers(0, 255))
    near_month_end = draw(st.booleans())
    time_sec = draw(st.integers(YEAR_2026 - 20, YEAR_2026 + 40) if near_month_end else U64)
    if not near_month_end and not rarely():
        time_sec %= 2**63 // 10**9 + 100
    flags = BOUNDED | Flags.TAI_OFFSET_VALID
    if rarely():
        flags &= ~draw(st.sampled_from([*flags]))
    body = VMClockBody(
        flags=flags,
        clock_status=draw(st.sampled_from([2, 3]) if not rarely() else st.integers(0, 255)),
        tai_offset_sec=draw(st.just(-37) if not rarely() else st.integers(-(2**15), 2**15 - 1)),
        leap_indicator=draw(st.sampled_from([1, 2, 4, 5]) if near_month_end else st.integers(0, 6)),
        counter_period_shift=shift,
        counter_value=counter_value,
        counter_period_frac_sec=period,
        counter_period_maxerror_rate_frac_sec=draw(st.integers(0, period // 1000)),
        time_sec=time_sec,
        time_frac_sec=draw(U64),
        time_maxerror_nanosec=draw(st.integers(0, 10**10) if not rarely() else U64),
    )
    counter_id = draw(st.just(1) if not rarely() else st.integers(0, 255))
    return snapshot_of(body, counter_id=counter_id, time_type=time_type), (counter_value + ticks) % 2**64


@given(earlier=U64, later=U64)
@settings(deadline=None)
def test_ticks_between_wraps(earlier: int, later: int) -> None:
    """The difference of two counter values is the near way around 2**64, before and after it wraps."""
    assert ticks_between(earlier, later) == signed_difference(earlier, later)


@pytest.mark.long
@given(
    counter=U64,
    counter_value=U64,
    shift=st.integers(0, 255),
    period=U64,
    esterror_rate=U64,
    maxerror_rate=U64,
    time_sec=U64,
    time_frac_sec=U64,
    esterror=U64,
    maxerror=U64,
)
@settings(max_examples=500, deadline=None)
def test_reckon_is_exact_and_rounds_outward(
    counter: int,
    counter_value: int,
    shift: int,
    period: int,
    esterror_rate: int,
    maxerror_rate: int,
    time_sec: int,
    time_frac_sec: int,
    esterror: int,
    maxerror: int,
) -> None:
    """Over the whole ranges of all fields: low is rounded down, high up, errors up, each by less than one unit."""
    body = VMClockBody(
        counter_value=counter_value,
        counter_period_shift=shift,
        counter_period_frac_sec=period,
        counter_period_esterror_rate_frac_sec=esterror_rate,
        counter_period_maxerror_rate_frac_sec=maxerror_rate,
        time_sec=time_sec,
        time_frac_sec=time_frac_sec,
        time_esterror_nanosec=esterror,
        time_maxerror_nanosec=maxerror,
    )
    exact = exact_time_s(body, counter) * 2**64
    found = reckon(body, counter)
    assert (found.low, found.high) == (math.floor(exact), math.ceil(exact))
    assert found.elapsed == found.low - time_sec * 2**64 - time_frac_sec
    assert found.maxerror_ns == math.ceil(exact_error_ns(body, counter, maxerror, maxerror_rate))
    assert found.esterror_ns == math.ceil(exact_error_ns(body, counter, esterror, esterror_rate))


def month_end_s(utc_s: int) -> int:
    """The end of the UTC month in which *utc_s* lies."""
    year, month = time.gmtime(utc_s)[:2]
    return calendar.timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))


def month_start_s(utc_s: int) -> int:
    """The beginning of the UTC month in which *utc_s* lies."""
    return calendar.timegm((*time.gmtime(utc_s)[:2], 1, 0, 0, 0))


@pytest.mark.long
@given(reading=readings())
@settings(max_examples=500, deadline=None)
def test_bounds_are_the_smallest_that_may_be_promised(reading: tuple[Snapshot, int]) -> None:
    """There are bounds exactly where every condition holds, and to the nanosecond what fractions give."""
    snapshot, counter = reading
    body = snapshot.body
    elapsed_s = exact_time_s(body, counter) - body.time_sec - Fraction(body.time_frac_sec, 2**64)
    is_tai = snapshot.time_type == TimeType.TAI
    offset_s = body.tai_offset_sec if is_tai else 0
    error_ns = math.ceil(
        exact_error_ns(body, counter, body.time_maxerror_nanosec, body.counter_period_maxerror_rate_frac_sec)
    )
    utc_ns = (exact_time_s(body, counter) + offset_s) * 10**9
    earliest, latest = math.floor(utc_ns) - error_ns, math.ceil(utc_ns) + error_ns
    in_years = earliest >= 0 and latest < 2**63
    if body.leap_indicator == LeapIndicator.POS:
        earliest, latest = earliest - 10**9, latest + 10**9
        in_years = earliest >= 0 and latest < 2**63
    if in_years and body.leap_indicator in (LeapIndicator.PRE_POS, LeapIndicator.PRE_NEG):
        end_ns = month_end_s(body.time_sec + offset_s) * 10**9
        if latest >= end_ns and body.leap_indicator == LeapIndicator.PRE_POS:
            earliest -= 10**9
        if latest >= end_ns - 10**9:  # the second that is skipped, or repeated
            event("leap")
            latest += 10**9
            in_years = earliest >= 0 and latest < 2**63
    if in_years and body.leap_indicator in (LeapIndicator.POST_POS, LeapIndicator.POST_NEG):
        if earliest < month_start_s(body.time_sec + offset_s) * 10**9:  # carried back past the leap that is over
            event("leap")
            if body.leap_indicator == LeapIndicator.POST_POS:
                latest += 10**9
            else:
                earliest -= 10**9
            in_years = earliest >= 0 and latest < 2**63
    reasons: dict[type[ClockError], bool] = {
        ClockNotSynchronizedError: body.clock_status not in (2, 3),
        CounterNotSupportedError: snapshot.counter_id != 1 or body.counter_period_shift > 63,
        ClockUnboundedError: (
            body.counter_period_frac_sec == 0
            or not body.flags & Flags.TIME_MAXERROR_VALID
            or not body.flags & Flags.PERIOD_MAXERROR_VALID
            or snapshot.time_type not in (TimeType.UTC, TimeType.TAI)
            or (is_tai and not body.flags & Flags.TAI_OFFSET_VALID)
            or (is_tai and body.tai_offset_sec >= 0)
            or not in_years
        ),
        ClockDisruptedError: elapsed_s < -1,
        ClockStaleError: elapsed_s > 1000,
    }
    expected = tuple(error for error, holds in reasons.items() if holds)
    event(expected[0].__name__ if expected else "bounded")
    if expected:
        with pytest.raises(expected):
            bounds_at(snapshot, counter, counter_id=CounterId.X86_TSC)
    else:
        assert bounds_at(snapshot, counter, counter_id=CounterId.X86_TSC) == (earliest, latest)


@pytest.mark.long
@given(reading=readings(), max_age_s=st.sampled_from([0, 5, 1000, 2**33]), leap=st.booleans())
@settings(max_examples=500, deadline=None)
def test_found_bounds_are_those_of_the_exact_arithmetic(
    reading: tuple[Snapshot, int], max_age_s: int, leap: bool
) -> None:
    """What the core answers is what Python computes, to the nanosecond; where Python has a reason, there is nothing."""
    snapshot, counter = reading
    expected: Bounds | None
    try:
        expected = bounds_at(snapshot, counter, counter_id=CounterId(1), max_age_s=max_age_s, leap=leap)
    except ClockError:
        expected = None
    event("bounded" if expected else "not bounded")
    assert find_bounds(snapshot, counter, counter_id=CounterId(1), max_age_s=max_age_s, leap=leap) == expected
    if (max_age_s, leap) == (1000, True):
        assert gives_interval(snapshot, counter, counter_id=CounterId(1)) is (expected is not None)


@given(reading=readings())
def test_elapsed_time_is_that_of_the_reckoning(reading: tuple[Snapshot, int]) -> None:
    """From the reference to a counter value, it is what reckon() says, for every body."""
    snapshot, counter = reading
    assert elapsed(snapshot.body, snapshot.body.counter_value, counter) == reckon(snapshot.body, counter).elapsed


@given(earliest=st.integers(0, 2**63 - 1), width=st.integers(0, 2**40))
@settings(deadline=None)
def test_middle_and_half_width_cover_the_bounds(earliest: int, width: int) -> None:
    """The midpoint give or take the error covers the interval, and by no nanosecond more than it must."""
    bounds = Bounds(earliest, earliest + width)
    assert bounds.midpoint_ns - bounds.error_ns <= earliest
    assert bounds.midpoint_ns + bounds.error_ns >= earliest + width
    assert 2 * bounds.error_ns <= width + 1
