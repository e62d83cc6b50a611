"""Dead reckoning against exact fractions, and each reason for which there is no bound.

The oracle here is written from the formulas in the ABI's header and knows nothing of fixed point.
"""

import calendar
import math
import time
from fractions import Fraction

import pytest
from hypothesis import event, given, settings, strategies as st

from vmclock_async import (
    ClockDisruptedError,
    ClockError,
    ClockNotSynchronizedError,
    ClockStaleError,
    ClockStatus,
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
GHZ = {"counter_period_shift": 29, "counter_period_frac_sec": 0x89705F4136B4A597}


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


def month_end_s(utc_s: int) -> int:
    """The end of the UTC month in which *utc_s* lies."""
    year, month = time.gmtime(utc_s)[:2]
    return calendar.timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))


def month_start_s(utc_s: int) -> int:
    """The beginning of the UTC month in which *utc_s* lies."""
    return calendar.timegm((*time.gmtime(utc_s)[:2], 1, 0, 0, 0))


def snapshot_of(body: VMClockBody, *, counter_id: int = 1, time_type: int = TimeType.UTC) -> Snapshot:
    """*body* as it was read from a segment."""
    return Snapshot(
        magic=0x4B4C4356,
        size=112,
        version=1,
        counter_id=counter_id,
        time_type=time_type,
        seq_count=2,
        body=body,
        inode=1,
    )


def ghz_body(**changes: int) -> VMClockBody:
    """A bounded body of 2026 with a counter of 1 GHz."""
    values = {
        "flags": BOUNDED,
        "clock_status": ClockStatus.SYNCHRONIZED,
        "counter_value": 10**12,
        "time_sec": YEAR_2026,
        "time_maxerror_nanosec": 1000,
        **GHZ,
    }
    return VMClockBody.model_validate({**values, **changes})


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


@st.composite
def readings(draw: st.DrawFn) -> tuple[Snapshot, int]:
    """A snapshot, most often of a sound clock, and a counter value, most often near its reference."""
    rarely = st.integers(0, 15).map(lambda number: number == 0)
    shift = draw(st.integers(0, 63) if not draw(rarely) else st.integers(0, 255))
    period = draw(st.integers(2**63, 2**64 - 1)) if draw(st.booleans()) else draw(U64)
    # Ticks that make from -2 s to 1100 s, past either limit.
    per_second = 2 ** (64 + shift) // max(period, 1)
    ticks = draw(st.integers(-2 * per_second, 1100 * per_second)) if not draw(rarely) else draw(U64)
    counter_value = draw(U64)
    time_type = draw(st.sampled_from([TimeType.UTC, TimeType.TAI]) if not draw(rarely) else st.integers(0, 255))
    near_month_end = draw(st.booleans())
    time_sec = draw(st.integers(YEAR_2026 - 20, YEAR_2026 + 40) if near_month_end else U64)
    if not near_month_end and not draw(rarely):
        time_sec %= 2**63 // 10**9 + 100
    flags = BOUNDED | Flags.TAI_OFFSET_VALID
    if draw(rarely):
        flags &= ~draw(st.sampled_from([*flags]))
    body = VMClockBody(
        flags=flags,
        clock_status=draw(st.sampled_from([2, 3]) if not draw(rarely) else st.integers(0, 255)),
        tai_offset_sec=draw(st.just(-37) if not draw(rarely) else st.integers(-(2**15), 2**15 - 1)),
        leap_indicator=draw(st.sampled_from([1, 2, 4, 5]) if near_month_end else st.integers(0, 6)),
        counter_period_shift=shift,
        counter_value=counter_value,
        counter_period_frac_sec=period,
        counter_period_maxerror_rate_frac_sec=draw(st.integers(0, period // 1000)),
        time_sec=time_sec,
        time_frac_sec=draw(U64),
        time_maxerror_nanosec=draw(st.integers(0, 10**10) if not draw(rarely) else U64),
    )
    counter_id = draw(st.just(1) if not draw(rarely) else st.integers(0, 255))
    return snapshot_of(body, counter_id=counter_id, time_type=time_type), (counter_value + ticks) % 2**64


@pytest.mark.long
@given(reading=readings())
@settings(max_examples=1500, deadline=None)
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


@pytest.mark.parametrize(
    ("body", "constants", "error", "remedy"),
    [
        ({"clock_status": 0}, {}, ClockNotSynchronizedError, "UNKNOWN; wait until it is SYNCHRONIZED"),
        ({"clock_status": 1}, {}, ClockNotSynchronizedError, "INITIALIZING; wait"),
        ({"clock_status": 4}, {}, ClockNotSynchronizedError, "UNRELIABLE; wait"),
        ({"clock_status": 9}, {}, ClockNotSynchronizedError, "clock_status is 9; wait"),
        ({}, {"counter_id": 0}, CounterNotSupportedError, "with ARM_VCNT, this machine with X86_TSC"),
        ({}, {"counter_id": 255}, CounterNotSupportedError, "tells no time .* publisher's log"),
        ({}, {"counter_id": 7}, CounterNotSupportedError, "with 7"),
        ({"counter_period_shift": 64}, {}, CounterNotSupportedError, "is 64, more than 63"),
        ({"flags": BOUNDED & ~Flags.TIME_MAXERROR_VALID}, {}, ClockUnboundedError, "time_maxerror_nanosec"),
        ({"flags": BOUNDED & ~Flags.PERIOD_MAXERROR_VALID}, {}, ClockUnboundedError, "maxerror_rate_frac_sec"),
        ({"tai_offset_sec": -37}, {"time_type": 1}, ClockUnboundedError, "TAI_OFFSET_VALID is clear"),
        (
            {"tai_offset_sec": 37, "flags": BOUNDED | Flags.TAI_OFFSET_VALID},
            {"time_type": 1},
            ClockUnboundedError,
            "is 37: the offset is from TAI to UTC, and so negative",
        ),
        ({}, {"time_type": 2}, ClockUnboundedError, "MONOTONIC, which cannot be turned into UTC"),
        ({}, {"time_type": 4}, ClockUnboundedError, "INVALID_MAYBE_SMEARED"),
        ({"time_sec": 0}, {}, ClockUnboundedError, "leaves the years 1970 to 2262"),
        ({"time_sec": 2**64 - 1}, {}, ClockUnboundedError, "leaves the years 1970 to 2262"),
        ({"time_maxerror_nanosec": 2**64 - 1}, {}, ClockUnboundedError, "leaves the years 1970 to 2262"),
        ({"counter_value": 10**12 + 2 * 10**9}, {}, ClockDisruptedError, "2.000 s behind"),
        ({"counter_value": 0, "time_sec": YEAR_2026 - 60}, {}, None, ""),
        ({"counter_value": 2**64 - 1001 * 10**9 + 10**12}, {}, ClockStaleError, "1001 s old, more than 1000 s"),
    ],
)
def test_each_reason_has_its_error_and_remedy(
    body: dict[str, int], constants: dict[str, int], error: type[ClockError] | None, remedy: str
) -> None:
    """What keeps a reader from a bound is told by the error's type, and by a message that says what to do."""
    snapshot = snapshot_of(ghz_body(**body), **constants)
    if error is None:
        assert bounds_at(snapshot, 10**12, counter_id=CounterId.X86_TSC).error_ns == 1001
    else:
        with pytest.raises(error, match=remedy):
            bounds_at(snapshot, 10**12, counter_id=CounterId.X86_TSC)


@pytest.mark.parametrize("status", [ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING])
def test_plain_second(status: ClockStatus) -> None:
    """One second of 1 GHz after the reference the time is a second later; the bound has grown by the rate."""
    rate = GHZ["counter_period_frac_sec"] // 20_000  # 50 ppm
    body = ghz_body(clock_status=status, counter_period_maxerror_rate_frac_sec=rate)
    bounds = bounds_at(snapshot_of(body), 10**12 + 10**9, counter_id=CounterId.X86_TSC)
    error_ns = 1000 + 50_000
    # The period was rounded down, and so is the earliest.
    assert bounds == ((YEAR_2026 + 1) * 10**9 - error_ns - 1, (YEAR_2026 + 1) * 10**9 + error_ns)


def test_tai_becomes_utc() -> None:
    """A TAI page's bounds are UTC: the (negative) offset is added."""
    body = ghz_body(flags=BOUNDED | Flags.TAI_OFFSET_VALID, tai_offset_sec=-37)
    bounds = bounds_at(snapshot_of(body, time_type=TimeType.TAI), 10**12, counter_id=CounterId.X86_TSC)
    assert bounds == ((YEAR_2026 - 37) * 10**9 - 1000, (YEAR_2026 - 37) * 10**9 + 1000)


def test_age_limits_are_inclusive() -> None:
    """A reference is good from exactly 1 s ahead of the counter to exactly the greatest age, and not beyond."""
    half = {"counter_period_shift": 0, "counter_period_frac_sec": 2**63, "time_sec": YEAR_2026}  # 2 Hz
    snapshot = snapshot_of(ghz_body(**half))
    for ticks in (-2, 20):
        bounds_at(snapshot, 10**12 + ticks, counter_id=CounterId.X86_TSC, max_age_s=10)
    with pytest.raises(ClockDisruptedError):
        bounds_at(snapshot, 10**12 - 3, counter_id=CounterId.X86_TSC, max_age_s=10)
    with pytest.raises(ClockStaleError):
        bounds_at(snapshot, 10**12 + 21, counter_id=CounterId.X86_TSC, max_age_s=10)
    # Three ticks of this period are a second and half a unit of 2**-64 s: too old for a second.
    period = {"counter_period_shift": 1, "counter_period_frac_sec": (2**65 + 1) // 3}
    with pytest.raises(ClockStaleError):
        bounds_at(snapshot_of(ghz_body(**period)), 10**12 + 3, counter_id=CounterId.X86_TSC, max_age_s=1)


@pytest.mark.parametrize("tai", [False, True])
@pytest.mark.parametrize(
    ("indicator", "until_end_s", "widened"),
    [
        (LeapIndicator.NONE, 0, (0, 0, 0, 0)),
        (LeapIndicator.PRE_POS, 1, (0, 0, 0, 10**9)),  # the second that will be repeated begins
        (LeapIndicator.PRE_POS, 0, (0, 10**9, 10**9, 10**9)),
        (LeapIndicator.PRE_NEG, 1, (0, 0, 0, 10**9)),  # the month's last is left out
        (LeapIndicator.POST_POS, 0, (0, 0, 0, 0)),
        (LeapIndicator.POST_NEG, 0, (0, 0, 0, 0)),
    ],
)
def test_leap_second_ahead(
    indicator: LeapIndicator, until_end_s: int, widened: tuple[int, int, int, int], tai: bool
) -> None:
    """An interval that reaches the leap at the month's end holds both readings; a nanosecond before, not."""
    offset_s = -37 if tai else 0
    earlier_before, later_before, earlier_ns, later_ns = widened
    body = ghz_body(
        flags=BOUNDED | Flags.TAI_OFFSET_VALID,
        tai_offset_sec=-37,
        leap_indicator=indicator,
        time_sec=YEAR_2026 - 10 - offset_s,  # the month that ends is December
    )
    snapshot = snapshot_of(body, time_type=TimeType.TAI if tai else TimeType.UTC)
    end_ns = (YEAR_2026 - until_end_s) * 10**9
    at_end = 10**12 + (10 - until_end_s) * 10**9
    # The latest is 1001 ns past the reading: the period at 1 GHz is a little less than a nanosecond.
    before = bounds_at(snapshot, at_end - 1001, counter_id=CounterId.X86_TSC)
    assert before == (end_ns - 2002 - earlier_before, end_ns - 1 + later_before)
    reached = bounds_at(snapshot, at_end - 1000, counter_id=CounterId.X86_TSC)
    assert reached == (end_ns - 2001 - earlier_ns, end_ns + later_ns)


@pytest.mark.parametrize(
    ("indicator", "earlier_ns", "later_ns"),
    [(LeapIndicator.POST_POS, 0, 10**9), (LeapIndicator.POST_NEG, 10**9, 0), (LeapIndicator.NONE, 0, 0)],
)
def test_leap_second_behind(indicator: LeapIndicator, earlier_ns: int, later_ns: int) -> None:
    """Carried back past the beginning of the reference's month, where the leap was, it holds both readings."""
    body = ghz_body(flags=BOUNDED, leap_indicator=indicator, time_sec=YEAR_2026 + 2)
    snapshot, second = snapshot_of(body), 10**9

    def back(ticks: int) -> Bounds:
        return bounds_at(snapshot, body.counter_value - ticks, counter_id=CounterId.X86_TSC, max_past_s=10)

    after, before = back(second), back(3 * second)
    assert YEAR_2026 * second < after.earliest_ns < after.latest_ns < (YEAR_2026 + 1) * second + 2000
    middle_ns = (YEAR_2026 - 1) * second
    assert -earlier_ns - 2000 < before.earliest_ns - middle_ns < -earlier_ns
    assert later_ns < before.latest_ns - middle_ns < later_ns + 2000


def test_leap_second_in_progress() -> None:
    """A body from within a positive leap second may be read when it is over: UTC is then a second less.

    And it is not before what was read while the second went by for the first time.
    """
    body = ghz_body(flags=BOUNDED, leap_indicator=LeapIndicator.POS, time_sec=YEAR_2026)
    bounds = bounds_at(snapshot_of(body), body.counter_value, counter_id=CounterId.X86_TSC)
    assert bounds == (YEAR_2026 * 10**9 - 1000 - 10**9, YEAR_2026 * 10**9 + 1000 + 10**9)


@given(reading=readings(), max_age_s=st.sampled_from([0, 5, 1000, 2**33]), leap=st.booleans())
@settings(max_examples=1500, deadline=None)
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
