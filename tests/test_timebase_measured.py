"""``BodyUpdate.measured``: a source's numbers in the ABI's fixed point, with every rounding outward."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, strategies as st

from vmclock_async import BodyUpdate, ClockStatus, CounterId, LeapIndicator, TimeType, VMClockBody
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at, reckon
from vmclock_async.timebase import COUNTER_ID, Rate, fixed_point_period

NS = 10**9
NOW_NS = 1_790_000_000 * NS
GHZ = Rate(Fraction(1), Fraction(0))
"""A counter of 1 GHz, known exactly."""
NOTHING: Any = None
FLOAT: Any = 1.0


def measured(**changes: Any) -> BodyUpdate:
    """A measurement of that counter at a whole second, exact but for *changes*."""
    values: dict[str, Any] = {"counter_ticks": 7, "utc_ns": NOW_NS, "error_ns": 0, "rate": GHZ, "drift": 0}
    return BodyUpdate.measured(**(values | changes))


def contents(update: BodyUpdate) -> Contents:
    """What a segment holds after *update* alone."""
    return Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC).updated(update)


PARTS = st.fractions(-1, 1, max_denominator=10**6)


@pytest.mark.long
@given(
    counter=st.integers(0, 2**64 - 1),
    ticks=st.integers(-(10**9), 900 * 10**9),
    utc_ns=st.fractions(100 * NS, 2**62, max_denominator=10**12),
    error_ns=st.fractions(0, 10**12, max_denominator=10**6),
    ns_per_tick=st.fractions(Fraction(1, 10), 100, max_denominator=10**9),
    rate_error=st.fractions(0, Fraction(1, 1000), max_denominator=10**12),
    drift=st.fractions(0, Fraction(1, 1000), max_denominator=10**9),
    tai_offset_sec=st.sampled_from([None, 0, -37, 37]),
    parts=st.tuples(PARTS, PARTS, PARTS) | st.sampled_from([(1, 1, 1), (-1, -1, -1), (1, -1, -1), (0, 0, 0)]),
)
def test_true_time_is_inside(
    counter: int, ticks: int, utc_ns: Fraction, error_ns: Fraction, ns_per_tick: Fraction, rate_error: Fraction,
    drift: Fraction, tai_offset_sec: int | None, parts: tuple[Fraction, Fraction, Fraction],
) -> None:  # fmt: skip
    """However the errors that were given come together, each to its full amount, the interval contains true time."""
    update = measured(
        counter_ticks=counter,
        utc_ns=utc_ns,
        error_ns=error_ns,
        rate=Rate(ns_per_tick, rate_error),
        drift=drift,
        tai_offset_sec=tai_offset_sec,
    )
    then, measuring, drifting = parts
    true_ns_per_tick = ns_per_tick + measuring * rate_error + drifting * drift * ns_per_tick
    true_ns = utc_ns + then * error_ns + ticks * true_ns_per_tick
    seen = reckon(contents(update).body, (counter + ticks) % 2**64)
    offset_ns = (tai_offset_sec or 0) * NS
    assert Fraction(seen.low * NS, 2**64) + offset_ns - seen.maxerror_ns <= true_ns
    assert true_ns <= Fraction(seen.high * NS, 2**64) + offset_ns + seen.maxerror_ns


def test_exact_measurement_stays_exact() -> None:
    """What the fixed point can hold costs nothing: no error at a whole second, and one unit for the period."""
    update = measured(error_ns=5)
    assert (update.counter_value, update.time_sec, update.time_frac_sec) == (7, NOW_NS // NS, 0)
    assert update.time_maxerror_nanosec == 5
    period = fixed_point_period(1, 1)
    assert (update.counter_period_frac_sec, update.counter_period_shift) == period
    assert update.counter_period_maxerror_rate_frac_sec == 1
    assert bounds_at(contents(update), 7, counter_id=COUNTER_ID).error_ns == 5


@pytest.mark.parametrize(
    ("utc_ns", "error_ns", "bound_ns"),
    [
        (NOW_NS + NS // 2, 5, 5),
        (NOW_NS + 1, 5, 6),
        (NOW_NS, Fraction(9, 2), 5),
        (NOW_NS + Fraction(1, 3), Fraction(9, 2), 5),
        (NOW_NS, 2**64 - 1, 2**64 - 1),
        (NOW_NS, 2**64, None),
        (NOW_NS + 1, 2**64 - 1, None),
        (NOW_NS + 1, None, None),
    ],
)
def test_bound_is_rounded_up(
    utc_ns: int | Fraction, error_ns: int | Fraction | None, bound_ns: int | None
) -> None:
    """A nanosecond has no exact fraction of a second in binary: what is cut off is in the bound. None: no bound."""
    assert measured(utc_ns=utc_ns, error_ns=error_ns).time_maxerror_nanosec == bound_ns


def test_rate_error_is_its_own_and_the_drift() -> None:
    """The period's bound is the rate's error and the drift's share of the period, and a unit for the rounding."""
    period = fixed_point_period(1, 1)
    rate = Rate(Fraction(1), Fraction(3, 10**6))
    expected = period.error_frac_sec(Fraction(53, 10**6))
    assert measured(rate=rate, drift=Fraction(50, 10**6)).counter_period_maxerror_rate_frac_sec == expected
    assert measured(rate=rate, drift=2).counter_period_maxerror_rate_frac_sec is None


def test_measurement_speaks_for_all_that_a_measurement_is() -> None:
    """An estimate that is not given clears the one of the measurement before; offset and leap second are left alone."""
    update = measured()
    header = {"counter_id", "time_type", "clock_status"}
    assert update.model_fields_set == BodyUpdate.MEASURED_FIELDS | header
    assert (update.counter_id, update.time_type) == (COUNTER_ID, TimeType.UTC)
    assert update.clock_status == ClockStatus.SYNCHRONIZED
    assert update.time_esterror_nanosec is None
    assert update.counter_period_esterror_rate_frac_sec is None
    more = measured(
        est_error_ns=Fraction(5, 2),
        est_error_ns_per_tick=Fraction(1, 10**6),
        leap_indicator=LeapIndicator.PRE_POS,
        clock_status=ClockStatus.FREERUNNING,
    )
    assert more.model_fields_set == update.model_fields_set | {"leap_indicator"}
    assert (more.clock_status, more.leap_indicator) == (ClockStatus.FREERUNNING, LeapIndicator.PRE_POS)
    assert more.time_esterror_nanosec == 3
    expected = fixed_point_period(1, 1).error_frac_sec(Fraction(1, 10**6))
    assert more.counter_period_esterror_rate_frac_sec == expected


def test_measurement_in_tai_is_the_same_time() -> None:
    """With an offset the page has TAI, and a reader gets the same UTC."""
    update = measured(tai_offset_sec=-37, error_ns=1)
    assert (update.time_type, update.tai_offset_sec) == (TimeType.TAI, -37)
    assert update.time_sec == NOW_NS // NS + 37
    assert bounds_at(contents(update), 7, counter_id=COUNTER_ID).midpoint_ns == NOW_NS


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"counter_ticks": -1}, ValueError, "counter_ticks must be from 0 to 2**64 - 1, not -1"),
        ({"counter_ticks": 2**64}, ValueError, "counter_ticks must be from 0"),
        ({"counter_ticks": 1.0}, TypeError, "counter_ticks must be an int, not 1.0"),
        ({"counter_ticks": None}, TypeError, "counter_ticks must be an int, not None"),
        ({"counter_ticks": True}, TypeError, "counter_ticks must be an int, not True"),
        ({"utc_ns": 1.5e18}, TypeError, "utc_ns must be an int or a Fraction, not 1.5e+18"),
        ({"utc_ns": None}, TypeError, "utc_ns must be an int or a Fraction, not None"),
        ({"utc_ns": -1}, ValueError, "utc_ns must be a time from 1970 on"),
        ({"utc_ns": 2**64 * NS}, ValueError, "utc_ns must be a time from 1970 on"),
        ({"utc_ns": NS, "tai_offset_sec": 2}, ValueError, "utc_ns must be a time from 1970 on"),
        ({"error_ns": -1}, ValueError, "error_ns must not be negative: -1"),
        ({"error_ns": 0.5}, TypeError, "error_ns must be an int or a Fraction, not 0.5"),
        ({"est_error_ns": -1}, ValueError, "est_error_ns must not be negative"),
        ({"est_error_ns": True}, TypeError, "est_error_ns must be an int or a Fraction"),
        ({"est_error_ns_per_tick": -1}, ValueError, "est_error_ns_per_tick must not be negative"),
        ({"drift": 5e-05}, TypeError, "drift must be an int or a Fraction, not 5e-05"),
        ({"drift": None}, TypeError, "drift must be an int or a Fraction, not None"),
        ({"drift": -1}, ValueError, "drift must not be negative"),
        ({"rate": Fraction(1)}, TypeError, "rate must be a timebase.Rate, not Fraction(1, 1)"),
        (
            {"rate": GHZ._replace(ns_per_tick=FLOAT)},
            TypeError,
            "rate.ns_per_tick must be an int or a Fraction, not 1.0",
        ),
        ({"rate": Rate(Fraction(0), Fraction(0))}, ValueError, "rate.ns_per_tick must be from 0 to 10**9, not 0"),
        ({"rate": Rate(Fraction(NS), Fraction(0))}, ValueError, "rate.ns_per_tick must be from 0 to 10**9"),
        ({"rate": Rate(Fraction(1), -Fraction(1))}, ValueError, "rate.error must not be negative"),
        ({"rate": GHZ._replace(error=NOTHING)}, TypeError, "rate.error must be an int or a Fraction, not None"),
        ({"tai_offset_sec": "-37"}, TypeError, "tai_offset_sec must be an int, not '-37'"),
        ({"tai_offset_sec": 2**15}, ValueError, "tai_offset_sec"),
        ({"clock_status": "SYNCHRONIZED"}, ValueError, "clock_status"),
        ({"leap_indicator": 256}, ValueError, "leap_indicator"),
    ],
)
def test_wrong_argument_is_refused_by_its_name(changes: dict[str, Any], error: type[Exception], said: str) -> None:
    """A value of another type or out of its range is refused at once: the message names it and shows it."""
    with pytest.raises(error) as caught:
        measured(**changes)
    assert said in str(caught.value)


def test_drift_cannot_be_forgotten() -> None:
    """A source that leaves out the drift promises an oscillator that does not exist: it has to say so itself."""
    with pytest.raises(TypeError, match="drift"):
        BodyUpdate.measured(counter_ticks=7, utc_ns=NOW_NS, error_ns=0, rate=GHZ)  # type: ignore[call-arg]
