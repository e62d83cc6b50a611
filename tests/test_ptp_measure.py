"""The ptp source's figures by hand, and a simulated machine on which true time is always inside."""

import math
from fractions import Fraction
from typing import Any

import pytest

from kit.kernel_readings import NS, PPM, RAW, US, timex
from kit.notes import bounds
from kit.simulated_ptp import SimulatedPtp
from vmclock_async import ClockStatus, ClockUnboundedError, LeapIndicator, TimeType
from vmclock_async.timebase import COUNTER_ID, ClockState, Pairing, Rate, Slope, ticks_between
from vmclock_ptp.measure import Measurement, Steadiness, error_terms, explanation, tai_offset_s
from vmclock_ptp.reading import read

THEN_NS = 1_790_000_000 * NS


def measured(counter: int = 1000, clock_ns: int = THEN_NS, *, window: int = 0, **changes: Any) -> Measurement:
    """A reading of a clock in UTC, on a machine whose kernel knows no TAI offset; the clock may be off by 20 us."""
    values: dict[str, Any] = {
        "pairing": Pairing(counter, clock_ns, window),
        "time_type": TimeType.UTC,
        "tai_offset_s": None,
        "timex": None,
        "claimed_ns": None,
        "assumed_ns": 20 * US,
    }
    return Measurement(**{**values, **changes})


# The bound


def test_bound_is_the_sum_of_its_terms() -> None:
    """Claim, assumption, half a window at the longest tick, 2 ns; each by its name, and their sum is published."""
    measurement = measured(7, window=2001, claimed_ns=31_000, assumed_ns=900)
    rate = Rate(Fraction(1, 2), Fraction(1, 100))
    terms = error_terms(measurement, rate)
    assert terms is not None
    assert {term.name: term.ns for term in terms} == {
        "claimed error": 31_000,
        "assumed error": 900,
        "pairing": math.ceil(1002 * Fraction(51, 100)),
        "clock": 2,
    }
    explained = explanation(measurement, rate)
    assert explained == (7, terms)
    assert measurement.update(rate).time_maxerror_nanosec == sum(term.ns for term in terms)


@pytest.mark.parametrize(
    ("claimed_ns", "assumed_ns", "error_ns"),
    [(None, None, None), (5, None, 5), (None, 7, 7), (5, 7, 12), (None, 0, 0)],
)
def test_clock_of_unknown_error_has_no_bound(
    claimed_ns: int | None, assumed_ns: int | None, error_ns: int | None
) -> None:
    """What the device claims and what the setting says add up; where neither is known, nothing counts as zero."""
    measurement = measured(claimed_ns=claimed_ns, assumed_ns=assumed_ns)
    assert measurement.clock_error_ns == error_ns
    update = measurement.update(RAW)
    assert (update.time_maxerror_nanosec is None) is (error_ns is None)
    assert (explanation(measurement, RAW) is None) is (error_ns is None)
    if error_ns is None:
        with pytest.raises(ClockUnboundedError, match="time_maxerror_nanosec"):
            bounds(update, 1000)


# The timescale


def test_clock_in_utc_is_published_in_utc() -> None:
    """Where the kernel knows no TAI offset; there is no word of leap seconds where the kernel may not be asked."""
    update = measured(clock_ns=THEN_NS + 1).update(RAW)
    assert (update.counter_id, update.time_type, update.tai_offset_sec) == (COUNTER_ID, TimeType.UTC, None)
    assert (update.time_sec, update.time_frac_sec) == (1_790_000_000, 2**64 // NS)
    assert (update.clock_status, update.counter_value) == (ClockStatus.SYNCHRONIZED, 1000)
    assert "leap_indicator" not in update.model_fields_set


@pytest.mark.parametrize(("time_type", "seconds"), [(TimeType.UTC, 1_790_000_037), (TimeType.TAI, 1_790_000_000)])
def test_time_is_published_in_tai_where_the_offset_is_known(time_type: TimeType, seconds: int) -> None:
    """A clock in UTC is 37 s behind TAI, one in TAI shows it; UTC is the same for readers, and leaps are announced."""
    state = timex(state=ClockState.INS, status=0x10)
    update = measured(time_type=time_type, tai_offset_s=-37, timex=state).update(RAW)
    assert (update.time_type, update.tai_offset_sec, update.time_sec) == (TimeType.TAI, -37, seconds)
    assert update.leap_indicator == LeapIndicator.PRE_POS


def test_tai_offset_is_the_kernels_where_it_knows_one() -> None:
    """Else the setting's, for a clock that counts in TAI; a clock in UTC needs none."""
    known, unknown = timex(), timex(tai_offset_s=0)
    assert tai_offset_s(known, TimeType.TAI, -38) == -37
    assert tai_offset_s(known, TimeType.UTC, None) == -37
    assert tai_offset_s(unknown, TimeType.TAI, -38) == -38
    assert tai_offset_s(None, TimeType.TAI, -38) == -38
    assert tai_offset_s(None, TimeType.TAI, None) is None
    assert tai_offset_s(unknown, TimeType.UTC, -38) is None


MIDNIGHT_NS = THEN_NS - THEN_NS % (86_400 * NS)


@pytest.mark.parametrize(
    ("since_midnight_ns", "is_near"),
    [(-2 * NS - 1, False), (-2 * NS, True), (-1, True), (0, True), (2 * NS - 1, True), (2 * NS, False)],
)
def test_measurement_at_a_leap_second_is_known(since_midnight_ns: int, is_near: bool) -> None:
    """Within two seconds of midnight, by UTC, on the day of a leap: kernel and clock need not leap at one moment."""
    announced = timex(state=ClockState.INS, status=0x10)
    for state in (announced, timex(state=ClockState.OOP), timex(state=ClockState.WAIT)):
        assert measured(clock_ns=MIDNIGHT_NS + since_midnight_ns, timex=state).is_at_leap is is_near
    tai_ns = MIDNIGHT_NS + since_midnight_ns + 37 * NS
    in_tai = measured(clock_ns=tai_ns, time_type=TimeType.TAI, tai_offset_s=-37, timex=announced)
    assert in_tai.is_at_leap is is_near
    for none in (timex(), None):
        assert not measured(clock_ns=MIDNIGHT_NS + since_midnight_ns, timex=none).is_at_leap


# The rate

SECOND = 2 * NS


def test_first_rate_is_the_nominal_one() -> None:
    """RAW's period, its own uncertainty and 500 ppm."""
    raw = Rate(Fraction(1, 2), Fraction(3, 10**9))
    assert Steadiness().rate(measured(), raw) == (Fraction(1, 2), Fraction(3, 10**9) + Fraction(1, 2) * 500 * PPM)


def test_later_rate_is_the_clocks_own_where_that_is_tighter() -> None:
    """The slope, its uncertainty, 50 ppm, and the clock's errors at both ends over the ticks between them."""
    steadiness, slope = Steadiness(), Slope()
    for second in range(3):
        measurement = measured(
            1000 + second * SECOND, THEN_NS + second * (NS + 30_000), window=100, claimed_ns=1000 * second
        )
        slope.add(measurement.pairing)
        rate = steadiness.rate(measurement, RAW)
    by_slope = slope.rate()
    assert rate.ns_per_tick == by_slope.ns_per_tick == Fraction(1, 2) * (1 + 30 * PPM)
    assert rate.error == by_slope.error + by_slope.ns_per_tick * 50 * PPM + Fraction(42_000, 2 * SECOND)


def test_slope_of_an_inaccurate_clock_is_never_taken() -> None:
    """A clock that may be off by 10 ms may be slewed by that within seconds: its own rate says less than RAW's."""
    steadiness = Steadiness()
    for second in range(30):
        measurement = measured(second * SECOND, THEN_NS + second * (NS + 30_000), assumed_ns=10**7)
        assert steadiness.rate(measurement, RAW).ns_per_tick == RAW.ns_per_tick


def test_only_the_last_readings_count() -> None:
    """The baseline is that of the slope, whose oldest reading drops out after 16."""
    steadiness = Steadiness()
    for second in range(40):
        measurement = measured(second * SECOND, THEN_NS + second * NS, claimed_ns=10**6 if second < 20 else 0)
        rate = steadiness.rate(measurement, RAW)
    ends = Fraction(40_000, 15 * SECOND)
    assert Fraction(1, 2) * 50 * PPM + ends < rate.error < Fraction(1, 2) * 51 * PPM + ends


def test_clock_of_unknown_error_has_the_nominal_rate() -> None:
    """Nothing is concluded from its readings, nor from those of before once its error is known again."""
    steadiness = Steadiness()
    nominal = Steadiness().rate(measured(), RAW)
    rates = [
        steadiness.rate(measured(second * SECOND, THEN_NS + second * NS, assumed_ns=assumed_ns), RAW)
        for second, assumed_ns in enumerate((20 * US, 20 * US, 20 * US, None, 20 * US))
    ]
    assert rates[2].error < nominal.error
    assert rates[3:] == [nominal, nominal]


@pytest.mark.parametrize(
    ("moved_ns", "stepped_ns"),
    [(0, 0), (10**8 + 100, 0), (-(10**8), 0), (10**8 + 200, 10**8 + 200), (-(10**9), -(10**9))],
)
def test_clock_that_moves_faster_than_any_slew_was_stepped(moved_ns: int, stepped_ns: int) -> None:
    """By more than a tenth of the time and both windows: the step is known, and the slope begins again, which is soon
    tighter than the nominal rate; a slope across the step would not be."""
    steadiness = Steadiness()
    for second in range(4):
        steadiness.rate(measured(second * SECOND, THEN_NS + second * NS, window=100), RAW)
        assert steadiness.stepped_ns == 0
    after = measured(4 * SECOND, THEN_NS + 4 * NS + moved_ns, window=100)
    rate = steadiness.rate(after, RAW)
    assert steadiness.stepped_ns == stepped_ns
    if stepped_ns:
        assert rate == Steadiness().rate(after, RAW)
        for second in (5, 6):
            rate = steadiness.rate(measured(second * SECOND, THEN_NS + second * NS + moved_ns, window=100), RAW)
            assert steadiness.stepped_ns == 0
        assert rate.error < Fraction(1, 2) * 100 * PPM


# A machine of which everything is known


@pytest.mark.parametrize("way", ["precise", "extended", "clock_gettime"])
@pytest.mark.parametrize(("error_ns", "slew_ppm"), [(0, 0), (20 * US, 3), (20 * US, 80_000), (10**7, 5000)])
def test_true_time_is_inside(way: str, error_ns: int, slew_ppm: int) -> None:
    """From one poll to the next, whatever the host does to its clock within its error, on an oscillator that is 449
    ppm off its nominal rate and changes by up to 48 ppm: the interval contains true time."""
    for seed in range(4):
        machine = SimulatedPtp(seed, way, error_ns=error_ns, slew_ppm=slew_ppm)
        calibration = machine.calibration()
        machine.advance(NS // 10)
        steadiness = Steadiness()
        for _ in range(24):
            reading = read(machine, 3)
            measurement = measured(*reading.pairing[:2], window=reading.pairing.window_ticks, assumed_ns=error_ns)
            update = measurement.update(steadiness.rate(measurement, calibration.rate()))
            assert steadiness.stepped_ns == 0
            machine.wander()
            for ns in (0, 1000, NS // 2, NS // 2):
                machine.advance(ns)
                found = bounds(update, machine.counter)
                assert found.earliest_ns <= machine.true_ns <= found.latest_ns


def test_interval_of_an_accurate_clock_is_tight() -> None:
    """A clock that is off by 20 us at most, read each second: after two seconds it is 54 ppm and a window on top."""
    machine = SimulatedPtp(1, "precise", error_ns=20 * US, slew_ppm=3)
    calibration = machine.calibration()
    machine.advance(NS // 10)
    steadiness = Steadiness()
    for _ in range(17):
        reading = read(machine, 3)
        measurement = measured(*reading.pairing[:2], window=reading.pairing.window_ticks)
        update = measurement.update(steadiness.rate(measurement, calibration.rate()))
        machine.advance(NS)
    found = bounds(update, machine.counter)
    grown_ns = (found.latest_ns - found.earliest_ns) // 2 - 20 * US
    assert 50 * US < grown_ns < 60 * US
    assert ticks_between(update.counter_value or 0, machine.counter) > 0
