"""Bounds case by case: each reason for which there is none, ages, timescales, leap seconds.

Over the whole range of every field, against exact fractions: test_reckoning.py.
"""

import pytest

from kit.snapshots import snapshot_of
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
    TimeType,
    VMClockBody,
)
from vmclock_async.reckoning import Bounds, bounds_at

BOUNDED = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
YEAR_2026 = 1_767_225_600
"""2026-01-01 00:00:00 UTC."""
GHZ = {"counter_period_shift": 29, "counter_period_frac_sec": 0x89705F4136B4A597}


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
