"""Times that cannot be true: wrong units, another counter's period, fields that are missing."""

from fractions import Fraction

import pytest

from vmclock_async import BodyUpdate, ClockStatus, CounterId
from vmclock_async._publishing.plausibility import CounterRate, Plausibility
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID, Rate, fixed_point_period

MEASURED = (
    "clock_status",
    "counter_value",
    "counter_period_shift",
    "counter_period_frac_sec",
    "counter_period_maxerror_rate_frac_sec",
    "time_sec",
    "time_frac_sec",
    "time_maxerror_nanosec",
)


def fields() -> dict[str, int]:
    """Those of a time as it is now, of this machine's counter."""
    body = make_body()
    return {"counter_id": COUNTER_ID} | {name: getattr(body, name) for name in MEASURED}


def update(**others: int | None) -> BodyUpdate:
    """The time as it is now, with *others* in place of its own values."""
    return BodyUpdate.model_validate(fields() | others)


def scaled(numerator: int, denominator: int = 1, *, ppm_stated: int = 50) -> BodyUpdate:
    """The time as it is now, its period multiplied."""
    body = make_body()
    ns = Fraction(body.counter_period_frac_sec * 10**9, 2 ** (64 + body.counter_period_shift))
    ns *= Fraction(numerator, denominator)
    period = fixed_point_period(ns.numerator, ns.denominator)
    return update(
        counter_period_frac_sec=period.frac_sec,
        counter_period_shift=period.shift,
        counter_period_maxerror_rate_frac_sec=period.frac_sec * ppm_stated // 10**6,
    )


def test_honest_time_is_plausible() -> None:
    """This machine's own counter and clock, first and later, and a period that is off by less than 1000 ppm."""
    shown = Plausibility()
    assert shown.objection(update()) is None
    assert shown.objection(scaled(1_000_900, 10**6)) is None
    assert shown.objection(scaled(999_100, 10**6)) is None
    assert shown.objection(BodyUpdate(clock_status=ClockStatus.FREERUNNING)) is None


@pytest.mark.parametrize(
    ("frac_sec", "shift"),
    [
        pytest.param(4, 0, id="2e-19 s"),
        pytest.param(400, 0, id="femtoseconds"),
        pytest.param(2**63, 0, id="half a second"),
        pytest.param(2**63, 63, id="shift too large"),
        pytest.param(2**63, 200, id="shift beyond all"),
        pytest.param(2**63, 20, id="shift too small"),
    ],
)
def test_period_in_a_wrong_unit_is_a_fault(frac_sec: int, shift: int) -> None:
    """What is off by a factor of two or more was computed wrongly; the objection says what was expected."""
    found = Plausibility().objection(
        update(
            counter_period_frac_sec=frac_sec,
            counter_period_shift=shift,
            counter_period_maxerror_rate_frac_sec=frac_sec // 20_000,
        )
    )
    assert found is not None
    assert found.is_fault
    assert f"sent counter_period_frac_sec {frac_sec} with shift {shift}, a period of" in found.reason
    assert "expected about" in found.reason
    assert "is the unit 2**-(64 + shift) s?" in found.reason


@pytest.mark.parametrize(("numerator", "denominator"), [(1_002_000, 10**6), (998_000, 10**6), (5, 4), (3, 4)])
def test_period_of_another_counter_is_no_fault(numerator: int, denominator: int) -> None:
    """More than 1000 ppm is not this counter's period; it may be that of the host which the machine has left."""
    found = Plausibility().objection(scaled(numerator, denominator))
    assert found is not None
    assert not found.is_fault
    assert "expected about" in found.reason


def test_period_is_believed_the_error_that_it_states() -> None:
    """A clock that is slewed by 80,000 ppm has such a period for a while; its stated error says so."""
    assert Plausibility().objection(scaled(1_080_000, 10**6, ppm_stated=90_000)) is None


def test_period_of_nothing_is_a_fault() -> None:
    """A period of zero, with a status that promises a time, is a clock that stands still."""
    found = Plausibility().objection(update(counter_period_frac_sec=0))
    assert found is not None
    assert found.is_fault


def test_another_machines_counter_is_not_held_against_this_one() -> None:
    """Nothing here tells how fast it goes."""
    other = CounterId.ARM_VCNT if COUNTER_ID == CounterId.X86_TSC else CounterId.X86_TSC
    assert Plausibility().objection(update(counter_id=other, counter_period_frac_sec=1)) is None
    assert Plausibility().objection(update(counter_id=CounterId.INVALID, counter_period_frac_sec=1)) is None


def test_counter_that_is_fit_again_is_held_against_this_one() -> None:
    """To measure after saying that the counter is not fit is to say that it is."""
    shown = Plausibility()
    assert shown.objection(BodyUpdate(counter_id=CounterId.INVALID)) is None
    values = fields() | {"counter_period_frac_sec": 1}
    del values["counter_id"]
    assert shown.objection(BodyUpdate.model_validate(values)) is not None


def test_time_that_promises_nothing_is_plausible() -> None:
    """A source that does not know the time yet may send what it likes besides; with the status it has to be true."""
    shown = Plausibility()
    unknown = update(clock_status=ClockStatus.INITIALIZING, counter_period_frac_sec=0, time_frac_sec=5)
    assert shown.objection(unknown) is None
    assert shown.objection(BodyUpdate(clock_status=ClockStatus.SYNCHRONIZED)) is not None


@pytest.mark.parametrize("fraction", [1, 999_999_999, 500_000, 2**32 - 1])
def test_fraction_in_nanoseconds_is_a_fault(fraction: int) -> None:
    """Nanoseconds, microseconds and 32-bit fractions are next to nothing in units of 2**-64 s."""
    shown = Plausibility()
    assert shown.objection(update(time_frac_sec=0)) is None
    found = shown.objection(update(time_frac_sec=fraction))
    assert found is not None
    assert found.is_fault
    assert str(fraction) in found.reason
    assert "2**-64 s" in found.reason


def test_fraction_that_is_small_by_chance_is_none() -> None:
    """A source that has shown its unit may meet the beginning of a second."""
    shown = Plausibility()
    assert shown.objection(update(time_frac_sec=2**64 // 10**9)) is None
    assert shown.objection(update(time_frac_sec=5)) is None


@pytest.mark.parametrize("unit", [10**3, 10**9])
def test_seconds_in_a_smaller_unit_are_objected_to(unit: int) -> None:
    """No reader gets a time from them, so that they are no fault that ends a run; what was expected is said."""
    found = Plausibility().objection(update(time_sec=1_790_000_000 * unit))
    assert found is not None
    assert (found.is_fault, found.is_harmless) == (False, True)
    assert "expected seconds since 1970" in found.reason


@pytest.mark.parametrize("missing", ["counter_value", "counter_period_frac_sec", "time_sec", "clock_status"])
def test_incomplete_time_names_what_is_missing(missing: str) -> None:
    """A time without one of these was never told, whatever else it has."""
    values = fields()
    del values[missing]
    found = Plausibility().objection(BodyUpdate.model_validate(values))
    assert found is not None
    assert found.is_fault
    assert f"a time without {missing}," in found.reason


def test_time_in_parts_is_complete() -> None:
    """What was said before need not be said again."""
    shown = Plausibility()
    assert shown.objection(BodyUpdate(clock_status=ClockStatus.SYNCHRONIZED)) is None
    values = fields()
    del values["clock_status"]
    assert shown.objection(BodyUpdate.model_validate(values)) is None
    assert shown.objection(BodyUpdate(counter_value=5, time_sec=1_790_000_000)) is None


def test_reference_alone_claims_nothing() -> None:
    """A time without rate and status is none; that is said, and is no fault."""
    found = Plausibility().objection(BodyUpdate(counter_value=5, time_sec=7))
    assert found is not None
    assert not found.is_fault
    assert Plausibility().objection(BodyUpdate(counter_value=5)) is None


class Hosts:
    """A counter whose rate is that of the host which the machine is on, and a clock that a test sets."""

    def __init__(self) -> None:
        self.ns_per_tick = Fraction(1, 2)
        self.now_ns = 0

    def rate(self) -> Rate:
        return Rate(self.ns_per_tick, Fraction(1, 10**9))

    def tick(self) -> int:
        self.now_ns += 10**6
        return self.now_ns


def test_rate_that_changed_is_measured_again() -> None:
    """After a move to a host with another counter its period is the plausible one, and the old one is not."""
    hosts = Hosts()
    rate = CounterRate(calibration=lambda: hosts, now_ns=hosts.tick)  # type: ignore[arg-type,return-value]
    assert rate.other_than(5e-10, 0.0) is None
    hosts.ns_per_tick = Fraction(2, 5)
    assert rate.other_than(4e-10, 0.0) == pytest.approx(5e-10)  # measured a moment ago
    hosts.now_ns += 2 * 10**9
    assert rate.other_than(4e-10, 0.0) is None
    assert rate.other_than(5e-10, 0.0) == pytest.approx(4e-10)


def test_same_period_is_judged_again_after_a_move() -> None:
    """What was refused may be right on another host, and what was plausible wrong, though it is sent as before."""
    hosts = Hosts()
    rate = CounterRate(calibration=lambda: hosts, now_ns=hosts.tick)  # type: ignore[arg-type,return-value]
    one, other = Plausibility(rate), Plausibility(rate)

    def of_period(ns_per_tick: Fraction) -> BodyUpdate:
        period = fixed_point_period(ns_per_tick.numerator, ns_per_tick.denominator)
        return update(
            counter_period_frac_sec=period.frac_sec,
            counter_period_shift=period.shift,
            counter_period_maxerror_rate_frac_sec=0,
        )

    half, less = of_period(Fraction(1, 2)), of_period(Fraction(2, 5))
    assert [one.objection(half), one.objection(half)] == [None, None]
    refused = other.objection(less)
    assert refused is not None
    assert other.objection(less) is refused
    hosts.ns_per_tick = Fraction(2, 5)
    assert other.objection(less) is refused  # measured a moment ago
    hosts.now_ns += 2 * 10**9
    assert other.objection(less) is None
    assert one.objection(half) is not None
