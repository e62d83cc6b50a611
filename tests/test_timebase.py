"""Periods, rates and their errors against exact fractions; the counter beside the kernel's clocks."""

import platform
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings, strategies as st

from vmclock_async.timebase import (
    COUNTER_ID,
    Calibration,
    Pairing,
    Slope,
    _rate_between,
    counter_ticks,
    fixed_point_period,
    pair,
)

NS = 10**9
DURATIONS_NS = st.integers(1, 10**6) | st.integers(1, 2**64) | st.integers(0, 63).map(lambda bit: 2**bit)
TICKS = DURATIONS_NS


def slope_of(samples: list[Pairing]) -> Slope:
    """The slope through *samples*."""
    slope = Slope()
    for sample in samples:
        slope.add(sample)
    return slope


TRUE_RATES = st.fractions(Fraction(1, 20), 20, max_denominator=10**6)


def test_period_at_1_ghz() -> None:
    """At 1 GHz the period is the one that UAPI.13 gives as its example."""
    assert fixed_point_period(10**9, 10**9) == (0x89705F4136B4A597, 29)
    assert fixed_point_period(1, 1) == (0x89705F4136B4A597, 29)


@given(duration_ns=DURATIONS_NS, ticks=TICKS)
@settings(deadline=None)
def test_period_is_exact_to_its_last_bit(duration_ns: int, ticks: int) -> None:
    """frac_sec has its top bit set, and is the exact period in its unit, rounded down."""
    exact = Fraction(duration_ns, ticks * 10**9)
    if exact >= 1:
        with pytest.raises(ValueError, match="a second or more"):
            fixed_point_period(duration_ns, ticks)
        return
    period = fixed_point_period(duration_ns, ticks)
    assert period.shift >= 0
    if exact >= Fraction(1, 2):
        assert period.shift == 0
    assert 2**63 <= period.frac_sec < 2**64
    assert 0 <= exact * 2 ** (64 + period.shift) - period.frac_sec < 1


@pytest.mark.parametrize(("duration_ns", "ticks"), [(0, 1), (1, 0), (-1, 1), (1, -1)])
def test_period_of_nothing(duration_ns: int, ticks: int) -> None:
    """A period needs time that passed and a counter that counted: the error gives both numbers."""
    with pytest.raises(ValueError, match=f"not {duration_ns} ns and {ticks}"):
        fixed_point_period(duration_ns, ticks)


def test_counter_is_the_machines() -> None:
    """The counter is numbered as the ABI numbers this architecture's, and never goes back."""
    assert COUNTER_ID == (1 if platform.machine() == "x86_64" else 0)
    values = [counter_ticks() for _ in range(1000)]
    assert values == sorted(values)


@pytest.mark.parametrize("clock_id", [time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_MONOTONIC_RAW])
def test_pair_reads_both_at_once(clock_id: int) -> None:
    """A pairing lies between what counter and clock read before and after, its whole window too."""
    counter_before, clock_before = counter_ticks(), time.clock_gettime_ns(clock_id)
    pairing = pair(clock_id)
    counter_after, clock_after = counter_ticks(), time.clock_gettime_ns(clock_id)
    assert pairing.window_ticks >= 0
    assert counter_before <= pairing.counter_ticks - pairing.window_ticks // 2
    assert pairing.counter_ticks + pairing.window_ticks // 2 <= counter_after
    assert clock_before <= pairing.clock_ns <= clock_after


@pytest.mark.parametrize("windows", [(100, 300), (300, 100)])
def test_both_windows_count_in_a_rate(windows: tuple[int, int]) -> None:
    """Half of each and a tick of rounding at each end, and each clock's last nanosecond, over what is left."""
    rate = _rate_between(Pairing(0, 0, windows[0]), Pairing(2 * 10**9, 10**9, windows[1]))
    assert rate.ns_per_tick == Fraction(1, 2)
    assert rate.error == (Fraction(202, 2) + 2) / (2 * 10**9 - 202)


def test_calibration_is_the_rate_against_raw() -> None:
    """It lies within its own error of the rate over a baseline around it, and grows better with time."""
    calibration = Calibration()
    first = pair(time.CLOCK_MONOTONIC_RAW)
    deadline = time.monotonic_ns() + 5_000_000
    early = calibration.rate()
    while time.monotonic_ns() < deadline:
        pass
    late = calibration.rate()
    last = pair(time.CLOCK_MONOTONIC_RAW)
    reference = Fraction(last.clock_ns - first.clock_ns, last.counter_ticks - first.counter_ticks)
    assert abs(early.ns_per_tick - late.ns_per_tick) <= early.error + late.error
    assert abs(late.ns_per_tick - reference) <= 4 * late.error
    assert late.error < early.error


def test_rate_as_the_abi_has_it() -> None:
    """The period is rounded down, an error up, and by one more for that; an error that does not fit is none."""
    rate = slope_of([Pairing(0, 0, 0), Pairing(3 * 10**6, 10**6, 0)]).rate()
    period = rate.period()
    unit_ns = Fraction(10**9, 2 ** (64 + period.shift))
    assert 0 <= rate.ns_per_tick - period.frac_sec * unit_ns < unit_ns
    assert period.error_frac_sec(Fraction(0)) == 1
    assert period.error_frac_sec(unit_ns * 5) == 6
    assert period.error_frac_sec(unit_ns * 5 + unit_ns / 9) == 7
    assert period.error_frac_sec(rate.ns_per_tick * 2) is None


@pytest.mark.parametrize("to_the_end", [5 * 10**5, 15 * 10**5, 10**6])
def test_slope_goes_on_past_the_counters_end(to_the_end: int) -> None:
    """Counter values are modulo 2**64: the slope across their end is that of any other place."""
    rates = [
        slope_of([Pairing((first + i * 10**6) % 2**64, i * 500_000 + i % 2, 10) for i in range(4)]).rate()
        for first in (10**6, 2**64 - to_the_end)
    ]
    assert rates[0] == rates[1]


@pytest.mark.long
@given(
    true=TRUE_RATES,
    origin_ns=st.fractions(0, 10**19, max_denominator=1000),
    steps=st.lists(
        st.tuples(st.integers(1, 10**9), st.integers(0, 10**5), st.fractions(0, 1)), min_size=2, max_size=20
    ),
)
def test_slope_is_off_by_no_more_than_its_error(
    true: Fraction, origin_ns: Fraction, steps: list[tuple[int, int, Fraction]]
) -> None:
    """Wherever in its window each clock was read: the true rate is within the error, or it says it cannot tell."""
    slope = Slope()
    counter = 2**62
    for gap, window, part in steps:
        counter += gap + window
        # Read between two reads of the counter, each of which shows whole ticks.
        read_at = counter + part * (window + 1)
        slope.add(Pairing(counter + window // 2, int(origin_ns + read_at * true), window))
        counter += window
    try:
        rate = slope.rate()
    except ValueError:
        return
    assert abs(rate.ns_per_tick - true) <= rate.error


def test_slope_is_least_squares_over_the_last_sixteen() -> None:
    """The line of least squares, with what the farthest sample leaves open; what came before has left."""
    samples = [Pairing(0, 5 * 10**9, 0)] + [Pairing(n * 2000, n * 1000 + n % 2, 0) for n in range(100, 116)]
    rate = slope_of(samples).rate()
    assert len(slope_of(samples)) == 16
    x = [Fraction(sample.counter_ticks) for sample in samples[1:]]
    y = [Fraction(sample.clock_ns) for sample in samples[1:]]
    none = Fraction(0)
    mean_x, mean_y = sum(x, none) / 16, sum(y, none) / 16
    points = [(a - mean_x, b - mean_y) for a, b in zip(x, y, strict=True)]
    expected = sum((a * b for a, b in points), none) / sum((a * a for a, _ in points), none)
    farthest = max(abs(b - expected * a) for a, b in points)
    assert rate.ns_per_tick == expected
    assert rate.error == (2 * expected + 4 * farthest + 2) / (30_000 - 2)


def test_jump_widens_the_error_until_it_has_left() -> None:
    """A millisecond all at once is no rate: while it is among the samples, the error covers the true rate."""
    slope = Slope()
    true = Fraction(1, 2)
    errors = []
    for second in range(40):
        jumped = 10**6 if second >= 10 else 0
        slope.add(Pairing(second * 2 * 10**9, second * 10**9 + jumped, 100))
        if second:
            rate = slope.rate()
            assert abs(rate.ns_per_tick - true) <= rate.error
            errors.append(rate.error / true)
    assert errors[8] < Fraction(1, 10**7)
    assert all(error > Fraction(1, 10**6) for error in errors[9:24])
    assert errors[25] < Fraction(1, 10**7)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [Pairing(1, 1, 0)],
        [Pairing(1000, 1, 0), Pairing(1000, 2, 0)],
        [Pairing(1000, 2, 0), Pairing(2000, 1, 0)],
        [Pairing(1000, 1, 300), Pairing(1300, 2, 300)],
    ],
    ids=["none", "one", "no ticks", "backwards", "within the windows"],
)
def test_slope_of_too_little(samples: list[Pairing]) -> None:
    """No rate where there is none to be told; the error says why."""
    with pytest.raises(ValueError, match=r"two measurements|go forward|more ticks"):
        slope_of(samples).rate()


def test_counter_that_stands_still_has_no_rate() -> None:
    """A tick that takes a second or more fits no page: it is an answer that there is no rate, as for one set back."""
    slope = slope_of([Pairing(0, 0, 0), Pairing(8, 8 * NS, 0)])
    with pytest.raises(ValueError, match="stands still"):
        slope.rate()
