"""How far CLOCK_REALTIME may be off by an interval of true time: the arithmetic, and what it promises to clients."""

from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from kit.clockbound import NS, answer, fields
from vmclock_async import TimeInterval
from vmclock_async.clockbound import ErrorBound, ErrorBoundStatus, Layout
from vmclock_async.clockbound._layout import pack
from vmclock_async.clockbound._widening import (
    LONGEST_USE_NS,
    Instant,
    bound_ns,
    max_drift_ppb,
    void_after_ns,
)
from vmclock_async.timebase import LARGEST_CORRECTION_PPB

PPM = 1000
T = 1_790_000_000 * NS


def instant(before: int, earliest: int, latest: int, after: int) -> Instant:
    """An instant by nanoseconds around T."""
    return Instant(100 * NS, T + before, TimeInterval(T + earliest, T + latest), T + after)


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((0, -100, 100, 0), 100),  # in the middle
        ((0, -100, 300, 0), 300),  # the later end is farther
        ((0, -300, 100, 0), 300),  # the earlier end is farther
        ((1000, -100, 100, 1000), 1100),  # the clock is fast, outside
        ((-1000, -100, 100, -1000), 1100),  # slow
        ((0, -100, 100, 50), 150),  # read in 50 ns, at whose end it may have been
        ((-50, -100, 100, 0), 150),  # or at whose beginning
        ((0, -100, 100, -70), 170),  # it was set back meanwhile, and stays there
        ((0, -300, 100, -70), 300),  # and was where it was before at the interval's own instant
        ((0, -100, 100, 70), 170),  # or forward
    ],
)
def test_bound_is_the_distance_to_the_farther_end(at: tuple[int, int, int, int], expected: int) -> None:
    """From wherever the clock was while the interval was read; and two nanoseconds for the client's own rounding."""
    assert bound_ns(instant(*at), 0, 0) == expected + 2


@pytest.mark.parametrize("after", [-70, 70])
def test_window_is_wide_if_the_clock_was_set_within(after: int) -> None:
    """Either way: another instant is better."""
    assert instant(0, -100, 100, after).window_ns == 70


def test_bound_has_what_the_clock_may_make_in_a_tick() -> None:
    """112 ppm of four milliseconds are 448 ns; a part of a nanosecond counts whole."""
    assert bound_ns(instant(0, 0, 0, 0), 112 * PPM, 4_000_000) == 448 + 2
    assert bound_ns(instant(0, 0, 0, 0), 1, 1) == 1 + 2


@pytest.mark.parametrize(
    ("slew_ppb", "counter_off", "expected"),
    [
        (0, Fraction(0), 500_251),  # 500 ppm of 0.9995: the oscillator's
        (500 * PPM, Fraction(0), 1_001_002),
        (0, Fraction(499, 10**6), 500_251),
        (0, Fraction(700, 10**6), 700_491),  # the page says more of the oscillator
        (500 * PPM, Fraction(700, 10**6), 1_201_442),
        (LARGEST_CORRECTION_PPB, Fraction(0), 112_347_053),
        (499_499_999, Fraction(0), 999_999_997),
        (499_500_000, Fraction(0), None),  # which clients refuse
        (0, Fraction(1), None),
        (0, Fraction(2), None),
    ],
)
def test_rate_is_by_the_slowed_clock(slew_ppb: int, counter_off: Fraction, expected: int | None) -> None:
    """A clock that is slewed down makes less than a second in a second, and its client counts by it."""
    assert max_drift_ppb(slew_ppb, counter_off) == expected


@pytest.mark.parametrize(
    ("left_ns", "expected"),
    [(1000 * NS, LONGEST_USE_NS), (NS, 899_000_000), (1, 0), (0, 0), (-NS, 0)],
)
def test_use_ends_with_the_segments_time(left_ns: int, expected: int) -> None:
    """Even if CLOCK_MONOTONIC is as slow as it can be; at most after a minute."""
    assert void_after_ns(7, left_ns) == 7 + expected


def test_generation_does_not_come_round_within_a_clients_use() -> None:
    """A client that looks after 32,767 commits of 5 ms has a bound that is void."""
    assert 32_767 * 5_000_000 > 2 * LONGEST_USE_NS


@given(
    error_ns=st.integers(0, 10**9),
    truth=st.fractions(-1, 1),
    offset_ns=st.integers(-(10**10), 10**10),
    slew_ppb=st.integers(0, 400_000_000),
    slewed=st.fractions(-1, 1),
    counter_ppm=st.integers(0, 1000),
    counted=st.fractions(-1, 1),
    elapsed_ns=st.integers(0, 60 * NS),
    lag_ns=st.integers(1, 10**7),
    lags=st.tuples(st.fractions(0, 1), st.fractions(0, 1)),
)
def test_truth_is_inside_whatever_the_clock_does(
    error_ns: int,
    truth: Fraction,
    offset_ns: int,
    slew_ppb: int,
    slewed: Fraction,
    counter_ppm: int,
    counted: Fraction,
    elapsed_ns: int,
    lag_ns: int,
    lags: tuple[Fraction, Fraction],
) -> None:
    """For any truth in the interval, any slew up to the greatest, and a coarse clock that is late at each end."""
    counter_off = Fraction(counter_ppm, 10**6)
    drift_ppb = max_drift_ppb(slew_ppb, counter_off)
    assert drift_ppb is not None
    # True time goes on by elapsed_ns; the two system clocks go wrong by the slew and by the counter's own rate.
    wrong = slewed * Fraction(slew_ppb, 10**9) + counted * max(Fraction(500, 10**6), counter_off)
    made_ns = elapsed_ns * (1 + wrong)
    realtime_ns, coarse_ns = T + offset_ns, 100 * NS
    as_of_ns = coarse_ns - int(lag_ns * lags[0])
    bound = ErrorBound(
        as_of_ns=as_of_ns,
        void_after_ns=as_of_ns + LONGEST_USE_NS,
        bound_ns=bound_ns(
            Instant(as_of_ns, realtime_ns, TimeInterval(T - error_ns, T + error_ns), realtime_ns),
            drift_ppb,
            lag_ns,
        ),
        max_drift_ppb=drift_ppb,
        status=ErrorBoundStatus.SYNCHRONIZED,
    )
    true_ns = T + error_ns * truth + elapsed_ns
    monotonic_ns = max(as_of_ns, int(coarse_ns + made_ns - lag_ns * lags[1]))
    told = answer(fields(pack(Layout.V2, bound)), int(realtime_ns + made_ns), monotonic_ns)
    assert told.earliest <= true_ns <= told.latest + 1  # the clock's own last nanosecond
