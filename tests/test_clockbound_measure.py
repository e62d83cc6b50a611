"""The clockbound source's figures by hand, and the truth inside them by ClockBound's own claim."""

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kit.kernel_readings import NS, PPM, RAW, US, realtime_of, timex
from kit.notes import bounds
from vmclock_async import ClockStatus, LeapIndicator, TimeType
from vmclock_async.clockbound import ErrorBound, ErrorBoundStatus
from vmclock_async.timebase import ClockState, ClockStatusBits, Pairing, Rate, Steering, Timex
from vmclock_clockbound.measure import Reading, Steps, drift, error_terms, explanation, time_update

AS_OF = 500 * NS
FIFTY = 50 * PPM
"""How far an oscillator may be off."""


def bound(bound_ns: int = 10_000, drift_ppb: int = 1000) -> ErrorBound:
    """A bound of AS_OF."""
    return ErrorBound(
        as_of_ns=AS_OF,
        void_after_ns=AS_OF + 1000 * NS,
        bound_ns=bound_ns,
        max_drift_ppb=drift_ppb,
        status=ErrorBoundStatus.SYNCHRONIZED,
    )


def reading(
    counter: int = 1000,
    clock_ns: int | None = None,
    *,
    window: int = 0,
    of: ErrorBound | None = None,
    age_ns: int = 0,
    **changes: Any,
) -> Reading:
    """A reading *age_ns* after AS_OF, of a kernel that keeps TAI unless *changes* say otherwise."""
    state = timex(**changes)
    if clock_ns is None:
        clock_ns = realtime_of(state) + state.tai_offset_s * NS
    now_ns = AS_OF + age_ns
    return Reading(of or bound(), state, now_ns, Pairing(counter, clock_ns, window), now_ns, state, None)


def at(read: Reading, before: Timex, after: Timex) -> Reading:
    return read._replace(before=before, after=after)


# The bound


def test_max_error_is_the_sum_of_its_terms() -> None:
    """ClockBound's bound, its growth since as_of, half a window and two ticks, and 2 ns."""
    read = reading(window=2001, of=bound(7000, 2_000_000), age_ns=1500)
    terms = {term.name: term.ns for term in error_terms(read, Fraction(1, 2))}
    assert terms == {"bound": 7000, "growth": 3, "pairing": 501, "clock": 2}
    update = time_update(read, RAW, RAW, Fraction(0), status=ClockStatus.SYNCHRONIZED)
    # 1002 ticks of half a ns and 2000 ppm make 502.002 ns.
    assert update.time_maxerror_nanosec == math.ceil(7000 + 3 + Fraction(502_002, 1000) + 2)
    explained = explanation(read, RAW, RAW, Fraction(0))
    assert explained.counter_value == 1000
    assert math.ceil(sum(term.ns for term in explained.terms)) == update.time_maxerror_nanosec


def test_bound_grows_from_as_of_to_the_end_of_the_pairing() -> None:
    """By CLOCK_MONOTONIC after it, which is the later of the two that are read around it."""
    read = reading(of=bound(0, 10**8), age_ns=1000)
    later = read._replace(after_ns=read.after_ns + 500)
    assert [error_terms(each, Fraction(1, 2))[1].ns for each in (read, later)] == [100, 150]
    ahead = read._replace(
        after_ns=AS_OF - 500
    )  # the clocks of two processors, as ClockBound's clients tolerate it
    assert error_terms(ahead, Fraction(1, 2))[1].ns == 0


@pytest.mark.parametrize(
    ("rate", "raw", "drift_ppb", "clock_error", "expected"),
    [
        (RAW, RAW, 0, FIFTY, Fraction(1, 2) * 50 * PPM),
        (RAW, RAW, 60_000, FIFTY, Fraction(1, 2) * 60 * PPM),  # ClockBound says more than the oscillator's
        (Rate(Fraction(1, 2) * (1 + 20 * PPM), Fraction(0)), RAW, 0, FIFTY, Fraction(1, 2) * 70 * PPM),
        (Rate(Fraction(1, 2) * (1 - 20 * PPM), Fraction(0)), RAW, 0, FIFTY, Fraction(1, 2) * 70 * PPM),
        (Rate(Fraction(1, 2), Fraction(1, 100)), RAW, 0, Fraction(0), Fraction(1, 100)),
    ],
)
def test_drift(rate: Rate, raw: Rate, drift_ppb: int, clock_error: Fraction, expected: Fraction) -> None:
    """The oscillator's, or ClockBound's if that is more; the distance of the two rates; the measurement's own error."""
    assert drift(rate, raw, bound(0, drift_ppb), clock_error) == expected


def test_update_has_what_was_measured() -> None:
    """The time in TAI where the kernel knows the offset, else in UTC; leap second, status, no estimated error."""
    read = reading(state=ClockState.INS, status=ClockStatusBits.INS)
    update = time_update(read, RAW, RAW, FIFTY, status=ClockStatus.FREERUNNING)
    assert (update.time_type, update.tai_offset_sec) == (TimeType.TAI, -37)
    assert update.time_sec == realtime_of(read.before) // NS + 37
    assert (update.leap_indicator, update.clock_status) == (LeapIndicator.PRE_POS, ClockStatus.FREERUNNING)
    assert update.time_esterror_nanosec is None
    # R is 50 ppm of half a ns; and 1 for the period's own rounding.
    assert update.counter_period_shift is not None
    units = Fraction(1, 2) * FIFTY * 2 ** (64 + update.counter_period_shift) / NS
    assert update.counter_period_maxerror_rate_frac_sec == math.ceil(units) + 1
    utc = reading(tai_offset_s=0)
    update = time_update(utc, RAW, RAW, FIFTY, status=ClockStatus.SYNCHRONIZED)
    assert (update.time_type, update.time_sec) == (TimeType.UTC, realtime_of(utc.before) // NS)


@given(
    bound_ns=st.integers(0, 10**9),
    drift_ppb=st.integers(0, 200_000),
    age_ns=st.integers(0, 5 * NS),
    off=st.fractions(-1, 1),
    oscillator=st.fractions(-1, 1),
    steered_ppm=st.fractions(-500, 500),
    later_ns=st.integers(0, 100 * NS),
)
def test_truth_is_inside(
    bound_ns: int,
    drift_ppb: int,
    age_ns: int,
    off: Fraction,
    oscillator: Fraction,
    steered_ppm: Fraction,
    later_ns: int,
) -> None:
    """If ClockBound is right, and the oscillator within its limit: now, and later by the counter alone."""
    read = reading(of=bound(bound_ns, drift_ppb), age_ns=age_ns)
    rate = Rate(RAW.ns_per_tick * (1 + steered_ppm * PPM), Fraction(0))
    update = time_update(read, rate, RAW, FIFTY, status=ClockStatus.SYNCHRONIZED)
    wrong_ns = off * (bound_ns + age_ns * Fraction(drift_ppb, 10**9))
    ticks = int(later_ns / RAW.ns_per_tick)
    true_ns = read.utc_ns + wrong_ns + ticks * RAW.ns_per_tick * (1 + oscillator * FIFTY)
    found = bounds(update, 1000 + ticks)
    assert found.earliest_ns <= true_ns <= found.latest_ns


# The rate


def walk(steering: Steering, rates: list[Fraction], step: int = 2 * NS) -> list[Rate]:
    """The rates that *steering* gives while the clock goes by one of *rates* after the other, in TAI."""
    counter, clock_ns = 1000, Fraction(realtime_of(timex()) + 37 * NS)
    found = [steering.rate(reading(counter, round(clock_ns)), RAW)]
    for rate in rates:
        counter, clock_ns = counter + step, clock_ns + step * rate
        found.append(steering.rate(reading(counter, round(clock_ns)), RAW))
    return found


def test_rate_is_the_clocks_slope() -> None:
    """At first RAW's with the kernel's correction; from the second reading on what the clock really does."""
    fast = Fraction(1, 2) * (1 + 300 * PPM)
    first, *others = walk(Steering(), [fast] * 5)
    assert first == Rate(Fraction(1, 2), Fraction(1, 2) / 10**9)
    assert all(abs(rate.ns_per_tick - fast) <= rate.error <= PPM for rate in others)


def test_first_rate_has_the_kernels_correction() -> None:
    """Positive: the clock is faster, so a tick is longer. Where it is unknown, its limit is the error."""
    faster = Steering().rate(reading(frequency_ppb=100_000), RAW._replace(error=Fraction(1, 1000)))
    assert faster.ns_per_tick == Fraction(1, 2) * (1 + 100 * PPM)
    assert faster.error == Fraction(1, 1000) * (1 + 100 * PPM) + Fraction(1, 2) / 10**9
    unknown = Steering().rate(reading(frequency_ppb=None), RAW._replace(error=Fraction(1, 1000)))
    assert unknown.ns_per_tick == Fraction(1, 2)
    assert unknown.error == Fraction(1, 1000) + Fraction(1, 2) * 100_500 * PPM


@pytest.mark.parametrize("step_ppm", [-110_000, 110_000])
def test_step_starts_the_slope_over(step_ppm: int) -> None:
    """No slew is that fast: the rate after it is that of the beginning, not a slope across the step."""
    rates = walk(Steering(), [Fraction(1, 2), Fraction(1, 2) * (1 + step_ppm * PPM), Fraction(1, 2)])
    assert rates[2] == rates[0]
    assert abs(rates[3].ns_per_tick - Fraction(1, 2)) <= rates[3].error


@pytest.mark.parametrize("changes", [{"tai_offset_s": 38}, {"state": ClockState.INS}])
def test_other_timescale_starts_the_slope_over(changes: dict[str, Any]) -> None:
    """Another TAI offset, another state of a leap second."""
    steering = Steering()
    first, _ = walk(steering, [Fraction(1, 2) * (1 + 300 * PPM)])
    assert steering.rate(reading(10**12, 10**19, **changes), RAW) == first


# What belongs together


def test_reading_of_one_state_is_consistent() -> None:
    """CLOCK_REALTIME between the kernel's own times, give or take what adjtimex cuts; else a step or leap second."""
    read = reading()
    now_ns = realtime_of(read.before)
    assert read.is_consistent
    assert at(read, timex(realtime_ns=now_ns - 1), timex(realtime_ns=now_ns - 1000)).is_consistent
    assert not at(read, timex(realtime_ns=now_ns + 1), timex(realtime_ns=now_ns + 2)).is_consistent
    assert not at(read, read.before, timex(realtime_ns=now_ns - 1001)).is_consistent
    assert not at(read, read.before, timex(tai_offset_s=38)).is_consistent
    assert not at(read, read.before, timex(state=ClockState.OOP)).is_consistent
    assert at(read, timex(realtime_ns=None), timex(realtime_ns=None)).is_consistent


def realtime_read(realtime_ns: int, before_ns: int, after_ns: int) -> Reading:
    """A reading of CLOCK_REALTIME between two of CLOCK_MONOTONIC."""
    return reading(clock_ns=10**18 + realtime_ns, tai_offset_s=0)._replace(before_ns=before_ns, after_ns=after_ns)


@pytest.mark.parametrize("step_ns", [-NS, -21 * US, 21 * US, NS])
def test_clock_that_was_set_is_noticed(step_ns: int) -> None:
    """By more than the readings leave open and a sandbox's clocks differ: once, and then it goes on from there."""
    steps = Steps()
    assert [steps.seen(realtime_read(n * 1000, n * 1000 - 50, n * 1000 + 50)) for n in range(3)] == [False] * 3
    assert steps.seen(realtime_read(5000 + step_ns, 4950, 5050))
    assert not steps.seen(realtime_read(6000 + step_ns, 5950, 6050))


@pytest.mark.parametrize("off_ns", [-9 * US, 9 * US])
def test_clocks_that_differ_a_little_were_not_set(off_ns: int) -> None:
    """Nor do slow readings look like a step; a slew moves both clocks alike."""
    steps = Steps()
    assert not steps.seen(realtime_read(0, -50, 50))
    assert not steps.seen(realtime_read(1000 + off_ns, 950, 1050))
    assert not steps.seen(realtime_read(NS + off_ns, -NS, 2 * NS))


@pytest.mark.parametrize("step_ns", [-100 * US, 100 * US])
def test_narrow_readings_are_remembered(step_ns: int) -> None:
    """A slow reading does not hide a step that comes after it, if others were quick."""
    steps = Steps()
    assert not steps.seen(realtime_read(0, -10, 10))
    assert not steps.seen(realtime_read(0, -NS, NS))
    assert steps.seen(realtime_read(step_ns, -10, 10))
