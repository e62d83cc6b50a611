"""What the chrony source makes of one answer: each term of its formulas alone, against fractions made here."""

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kit.exchanges import NOW_NS, NS, PPM, RAW, TICK_NS, estimator, exchange, timex
from vmclock_async import BodyUpdate, CounterId, TimeType, VMClockBody
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import (
    COUNTER_ID,
    Rate,
    fixed_point_period,
)
from vmclock_chrony.measure import Exchange

WIRE = Fraction(1, 2**24)


def max_error(measured: Exchange, **settings: Any) -> int:
    """The bound of *measured* alone."""
    bound = estimator(**settings).measure(measured, RAW).time_maxerror_nanosec
    assert bound is not None
    return bound


def rates(update: BodyUpdate) -> tuple[Fraction, Fraction]:
    """P and R of *update*, nanoseconds a tick."""
    shift = update.counter_period_shift
    assert shift is not None
    assert update.counter_period_frac_sec is not None
    assert update.counter_period_maxerror_rate_frac_sec is not None
    unit_ns = Fraction(NS, 2 ** (64 + shift))
    return update.counter_period_frac_sec * unit_ns, update.counter_period_maxerror_rate_frac_sec * unit_ns


def has_rates(update: BodyUpdate, period: Fraction, maxerror: Fraction) -> bool:
    """Whether P is *period* rounded down to the unit, and R *maxerror* rounded up, and one for P's rounding."""
    frac_sec, shift = fixed_point_period(period.numerator, period.denominator)
    unit_ns = Fraction(NS, 2 ** (64 + shift))
    expected = (shift, frac_sec, math.ceil(maxerror / unit_ns) + 1)
    return expected == (
        update.counter_period_shift,
        update.counter_period_frac_sec,
        update.counter_period_maxerror_rate_frac_sec,
    )


# The bound


def test_terms_are_explained_one_by_one() -> None:
    """Each term by its name, exact; rounded up, their sum is the bound that is published."""
    said: dict[str, Any] = {
        "root_delay_ns": Fraction(3001, 2),
        "root_dispersion_ns": Fraction(701),
        "offset_ns": Fraction(-(2**24)),
    }
    measuring = estimator(reference_error_ns=77)
    update = measuring.measure(
        exchange(
            counter=5, trip_ticks=2000, trip_ns=1100, windows=(30, 40), ref_time_ns=Fraction(NOW_NS - NS), **said
        ),
        RAW,
        missing_ns=Fraction(10**9),
        forgotten_ns=Fraction(3),
    )
    assert measuring.explanation is not None
    assert measuring.explanation.counter_value == 5
    terms = {term.name: term.ns for term in measuring.explanation.terms}
    rest = sum(ns for name, ns in terms.items() if name not in ("doubled", "forgotten"))
    assert terms == {
        "root delay": Fraction(3001, 4),
        "root dispersion": 701,
        "oscillator": 49 * PPM * (NS - 2**24),
        "round trip": 2000 * (TICK_NS * 50 * PPM),
        "pairing": 20 * TICK_NS,
        "slew": 100,
        "rounding of time": 2,
        "rounding by chronyd": 1 + (Fraction(3001, 2) + 701) / 2**24,
        "reference clock": 77,
        "doubled": rest,
        "forgotten": 10**9,
    }
    assert update.time_maxerror_nanosec == math.ceil(2 * rest + 10**9)


def test_error_without_any_term_is_two_nanoseconds() -> None:
    """The clock's own last nanosecond and the rounding of the reference are all that a perfect answer leaves."""
    assert max_error(exchange()) == 2


@pytest.mark.parametrize(
    ("said", "error_ns"),
    [
        ({"root_delay_ns": Fraction(2 * NS)}, NS + WIRE * 2 * NS),
        ({"root_dispersion_ns": Fraction(2 * NS)}, 2 * NS + WIRE * 2 * NS),
        ({"offset_ns": Fraction(NS), "ref_time_ns": Fraction(NOW_NS + NS)}, WIRE * NS),
        ({"offset_ns": Fraction(-NS), "ref_time_ns": Fraction(NOW_NS - NS)}, WIRE * NS),
        ({"ref_time_ns": Fraction(NOW_NS - 10 * NS)}, 49 * PPM * 10 * NS),
        ({"ref_time_ns": Fraction(NOW_NS + 10 * NS)}, 49 * PPM * 10 * NS),
        ({"ref_time_ns": Fraction(NOW_NS), "offset_ns": Fraction(10 * NS)}, 49 * PPM * 10 * NS + WIRE * 10 * NS),
        ({"skew_ppm": Fraction(7), "residual_freq_ppm": Fraction(-3)}, 0),
        ({"windows": (2001, 10)}, Fraction(2001, 4)),
        ({"windows": (10, 2001)}, Fraction(2001, 4)),
        ({"trip_ticks": 2000, "trip_ns": 1090}, 50 * PPM * 1000 + 90),
        ({"trip_ticks": 2000, "trip_ns": 910}, 50 * PPM * 1000 + 90),
        ({"trip_ticks": 2 * NS, "skew_ppm": Fraction(7), "residual_freq_ppm": Fraction(-3)}, 60 * PPM * NS),
    ],
    ids=[
        "half the root delay", "root dispersion", "wire, clock slow", "wire, clock fast", "age", "negative age",
        "age by true time", "rates alone", "half the first window", "half the second window", "slewed forward",
        "slewed back", "drift over the round trip",
    ],
)  # fmt: skip
def test_each_term_of_the_error(said: dict[str, Any], error_ns: Fraction) -> None:
    """Each term alone is there, at its full size, rounded up to a nanosecond."""
    assert max_error(exchange(**said)) == math.ceil(error_ns + 2)


@pytest.mark.parametrize(
    ("drift_ppm", "chrony_ppm", "understated_ppm"),
    [("50", "1", 49), ("50", "50", 0), ("5", "20", 0), ("7.5", "0", 7.5)],
)
def test_only_what_chronyd_understates_is_added(drift_ppm: str, chrony_ppm: str, understated_ppm: float) -> None:
    """chronyd's own maxclockerror is in root_dispersion already; one larger than ours takes nothing off."""
    measured = exchange(ref_time_ns=Fraction(NOW_NS - 100 * NS))
    error_ns = Fraction(understated_ppm) * PPM * 100 * NS
    assert max_error(measured, drift_ppm=drift_ppm, chrony_ppm=chrony_ppm) == math.ceil(error_ns + 2)


def test_age_in_tai_is_that_in_utc() -> None:
    """The reference time is UTC, though the counter is paired with TAI."""
    kernel = timex(tai_offset_s=37)
    measured = exchange(clock_ns=NOW_NS + 37 * NS, ref_time_ns=Fraction(NOW_NS - 10 * NS), kernel=kernel)
    assert measured.age_ns == 10 * NS


@pytest.mark.parametrize("offset_ns", [Fraction(3 * NS, 7), Fraction(-3 * NS, 7)])
def test_reference_is_true_time_at_the_first_pairing(offset_ns: Fraction) -> None:
    """System clock plus offset, rounded down, at the counter value of before the request."""
    update = estimator().measure(exchange(counter=2**64 + 5, offset_ns=offset_ns, trip_ticks=4000), RAW)
    assert update.counter_value == 5
    assert update.time_sec is not None
    assert update.time_frac_sec is not None
    found = Fraction(update.time_sec * 2**64 + update.time_frac_sec, 2**64) * NS
    assert 0 <= NOW_NS + offset_ns - found < Fraction(NS, 2**64)


def test_estimated_error_is_rms_offset() -> None:
    """Rounded up; and never beyond the bound, because for hours after a step rms_offset tells of what is corrected."""
    update = estimator().measure(exchange(rms_offset_ns=Fraction(25, 2), root_dispersion_ns=Fraction(NS)), RAW)
    assert update.time_esterror_nanosec == 13
    update = estimator().measure(exchange(rms_offset_ns=Fraction(5 * NS), root_dispersion_ns=Fraction(NS)), RAW)
    assert update.time_esterror_nanosec == update.time_maxerror_nanosec


# The rates


@pytest.mark.parametrize("frequency_ppm", [Fraction(20), Fraction(-20)])
def test_first_period_is_raws_less_the_frequency(frequency_ppm: Fraction) -> None:
    """A clock that runs fast has counted too many nanoseconds a tick. chronyd steers it: the kernel's correction
    is that frequency, of which R has as much again."""
    kernel = timex(frequency_ppb=int(-1000 * frequency_ppm))
    update = estimator().measure(exchange(frequency_ppm=frequency_ppm, kernel=kernel), RAW)
    period = TICK_NS * (1 - frequency_ppm * PPM)
    assert has_rates(update, period, period * (50 + 20) * PPM)


@pytest.mark.parametrize(
    ("kernel_ppm", "frequency_ppm", "unknown_ppm"), [(0, 0, 0), (30, 0, 30), (-30, 0, 30), (30, 5, 35), (0, -5, 5)]
)
def test_first_bound_covers_what_chronyd_does_not_know(
    kernel_ppm: int, frequency_ppm: int, unknown_ppm: int
) -> None:
    """The kernel's correction, and its sum with the frequency: under ``chronyd -x`` they do not cancel out."""
    measured = exchange(kernel=timex(frequency_ppb=1000 * kernel_ppm), frequency_ppm=Fraction(frequency_ppm))
    period = TICK_NS * (1 - frequency_ppm * PPM)
    assert has_rates(estimator().measure(measured, RAW), period, period * (50 + unknown_ppm) * PPM)


@pytest.mark.parametrize("residual_ppm", [3, -3])
def test_bound_of_the_first_period(residual_ppm: int) -> None:
    """Drift, skew and residual frequency, and what measuring RAW left open."""
    measured = exchange(skew_ppm=Fraction(7), residual_freq_ppm=Fraction(residual_ppm))
    raw = Rate(TICK_NS, Fraction(1, 10**7))
    update = estimator("20").measure(measured, raw)
    assert has_rates(update, TICK_NS, TICK_NS * (20 + 7 + 3) * PPM + Fraction(1, 10**7))


def measured_once_a_second(
    count: int, *, fast_ppm: int, offsets_ns: dict[int, int] | None = None, first: int = 0, **said: Any
) -> list[BodyUpdate]:
    """Updates of one estimator whose true time takes *fast_ppm* more nanoseconds a tick than RAW."""
    measuring = estimator()
    updates = []
    for second in range(count):
        clock_ns = NOW_NS + second * (NS + 1000 * fast_ppm)
        offset_ns = Fraction((offsets_ns or {}).get(second, 0))
        updates.append(
            measuring.measure(
                exchange(counter=first + 2 * NS * second, clock_ns=clock_ns, offset_ns=offset_ns, **said), RAW
            )
        )
    return updates


def test_later_periods_are_the_slope() -> None:
    """From the fifth measurement on, that of the four before: its own uncertainty, and its distance from the
    frequency's period, are in R."""
    updates = measured_once_a_second(5, fast_ppm=7, frequency_ppm=Fraction(3), skew_ppm=Fraction(2))
    by_frequency, slope = TICK_NS * (1 - 3 * PPM), TICK_NS * (1 + 7 * PPM)
    assert all(has_rates(update, by_frequency, by_frequency * 55 * PPM) for update in updates[:4])
    # Two ticks of rounding, and two nanoseconds, over three seconds.
    own = (2 * slope + 2) / (6 * NS - 2)
    assert has_rates(updates[4], slope, slope * 52 * PPM + own + TICK_NS * 10 * PPM)


def test_measurements_go_on_past_the_counters_end() -> None:
    """Counter values are modulo 2**64: whether their end lies between pairings or exchanges changes nothing."""
    told = measured_once_a_second(6, fast_ppm=7, trip_ticks=4000)
    for first in (2**64 - 5 * NS, 2**64 - 6 * NS - 2000):
        past_the_end = measured_once_a_second(6, fast_ppm=7, trip_ticks=4000, first=first)
        for update, same in zip(past_the_end, told, strict=True):
            assert same.counter_value is not None
            assert update == same.model_copy(update={"counter_value": (first + same.counter_value) % 2**64})


def test_slope_is_of_true_time() -> None:
    """A clock that is being slewed is not: its reading and the offset together are."""
    measuring = estimator()
    for second in range(5):
        slewed_ns = 60_000_000 * second
        measured = exchange(
            counter=2 * NS * second, clock_ns=NOW_NS + second * NS - slewed_ns, offset_ns=Fraction(slewed_ns)
        )
        update = measuring.measure(measured, RAW)
    assert rates(update)[1] < TICK_NS * 51 * PPM


@pytest.mark.parametrize(
    ("jump_ns", "goes_on"),
    [(2_040_000, True), (-2_040_000, True), (2_080_000, False), (-2_080_000, False)],
)
def test_estimate_beyond_both_errors_begins_the_slope_anew(jump_ns: int, goes_on: bool) -> None:
    """A jump within what both measurements may be off, and R between them, is no reason to; a larger one is."""
    # 1 ms each; 50 ppm of a second, 7 for the slope that is not the frequency's, and next to nothing.
    updates = measured_once_a_second(
        7, fast_ppm=7, offsets_ns={5: jump_ns, 6: jump_ns}, root_dispersion_ns=Fraction(1_000_000)
    )
    assert rates(updates[5])[0] == pytest.approx(TICK_NS * (1 + 7 * PPM), rel=1e-12)
    assert (abs(rates(updates[6])[0] / TICK_NS - 1) > PPM) == goes_on


def test_estimates_that_go_backward_begin_the_slope_anew() -> None:
    """They have no slope: the frequency tells the period again."""
    measuring = estimator()
    for second in range(5):
        clock_ns = NOW_NS - second * NS
        measured = exchange(counter=2 * NS * second, clock_ns=clock_ns, root_dispersion_ns=Fraction(100 * NS))
        update = measuring.measure(measured, RAW)
    assert has_rates(update, TICK_NS, TICK_NS * 50 * PPM)


def test_uncertainty_beyond_the_abi_is_no_bound() -> None:
    """chronyd's first skew is 1,000,000 ppm; where R is more than its field can hold, there is none."""
    raw = Rate(Fraction(NS, 2**31) * Fraction(99_999, 100_000), Fraction(0))  # P is all ones, or nearly
    measured = exchange(skew_ppm=Fraction(10**6))
    update = estimator().measure(measured, raw)
    assert update.counter_period_maxerror_rate_frac_sec is None
    assert rates(estimator().measure(measured, RAW))[1] > TICK_NS


SIGNS = st.sampled_from([-1, 1])
PARTS = st.fractions(-1, 1, max_denominator=1000)


@pytest.mark.long
@given(
    offset_ns=st.integers(-(10**10), 10**10),
    wire=PARTS,
    root_delay_ns=st.integers(1, 10**9),
    root_dispersion_ns=st.integers(0, 10**9),
    age_ns=st.integers(0, 1000 * NS),
    sign=SIGNS,
    drift_sign=SIGNS,
    slew=PARTS,
    trip_ticks=st.integers(0, 2 * 10**8),
    answered=st.fractions(0, 1, max_denominator=1000),
    windows=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
    shift=PARTS,
    later_ticks=st.integers(0, 1900 * NS),
    tai=st.sampled_from([0, 37]),
)
def test_true_time_is_inside(
    offset_ns: int, wire: Fraction, root_delay_ns: int, root_dispersion_ns: int, age_ns: int, sign: int,
    drift_sign: int, slew: Fraction, trip_ticks: int, answered: Fraction, windows: tuple[int, int],
    shift: Fraction, later_ticks: int, tai: int,
) -> None:  # fmt: skip
    """However the parts of the error come together, each to its full amount, the interval contains true time.

    The oscillator is off by 50 ppm, of which chronyd counted on 1; it slewed the clock as fast as it may, and
    answered at any time in between.
    """
    true_tick_ns = TICK_NS * (1 + drift_sign * 50 * PPM)
    clock_tick_ns = TICK_NS * (1 + slew * 83_333 * PPM)
    # The first pairing's clock was read this many ticks after its counter value, the second's as many before.
    early = shift * windows[0] / 2
    chronyd_ticks = early + answered * (trip_ticks - early - shift * windows[1] / 2)
    clock_then_ns = NOW_NS + (chronyd_ticks - early) * clock_tick_ns
    clock_after_ns = NOW_NS + (trip_ticks - shift * windows[1] / 2 - early) * clock_tick_ns
    error_ns = Fraction(root_delay_ns, 2) + root_dispersion_ns + 49 * PPM * age_ns
    true_then_ns = clock_then_ns + offset_ns + sign * error_ns
    true_at_zero_ns = true_then_ns - chronyd_ticks * true_tick_ns
    measured = exchange(
        clock_ns=NOW_NS + tai * NS,
        trip_ticks=trip_ticks,
        trip_ns=math.floor(clock_after_ns) - NOW_NS,
        windows=windows,
        kernel=timex(tai_offset_s=tai),
        offset_ns=offset_ns * (1 + wire * WIRE),
        root_delay_ns=root_delay_ns * (1 - wire * WIRE),
        root_dispersion_ns=root_dispersion_ns * (1 - wire * WIRE),
        ref_time_ns=NOW_NS + offset_ns * (1 + wire * WIRE) - age_ns,
    )
    if measured.is_stepped(RAW):
        return  # windows as wide as the trip: dropped
    contents = Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC).updated(estimator().measure(measured, RAW))
    found = bounds_at(contents, later_ticks, counter_id=COUNTER_ID)
    assert found.earliest_ns <= true_at_zero_ns + later_ticks * true_tick_ns <= found.latest_ns
