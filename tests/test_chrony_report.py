"""How the chrony source reads a report: whom chronyd follows, how old that is, steps, and leap seconds."""

from fractions import Fraction
from typing import Any

import pytest

from kit.exchanges import NOW_NS, NS, PPM, RAW, TICK_NS, estimator, exchange, timex, tracking
from vmclock_async import BodyUpdate, ClockStatus, LeapIndicator, TimeType
from vmclock_async.timebase import (
    COUNTER_ID,
)
from vmclock_chrony.measure import UNKNOWN_TIMEX, Tracking, leap_of


def rates(update: BodyUpdate) -> tuple[Fraction, Fraction]:
    """P and R of *update*, nanoseconds a tick."""
    shift = update.counter_period_shift
    assert shift is not None
    assert update.counter_period_frac_sec is not None
    assert update.counter_period_maxerror_rate_frac_sec is not None
    unit_ns = Fraction(NS, 2 ** (64 + shift))
    return update.counter_period_frac_sec * unit_ns, update.counter_period_maxerror_rate_frac_sec * unit_ns


# What was said


def test_report_in_seconds_becomes_nanoseconds() -> None:
    """Exactly, as the floats have it; parts per million and the interval stay as they are."""
    made = pytest.importorskip("pychrony.testing").make_tracking
    report = made(
        offset=-0.5, last_offset=0.75, ref_time=3.25, rms_offset=0.125, root_delay=2.0**-10, root_dispersion=2.0**-20,
        frequency=-1.5, residual_freq=0.5, skew=0.25, update_interval=64.5, reference_id=9, stratum=3,
    )  # fmt: skip
    assert Tracking.of(report) == Tracking(
        reference_id=9,
        stratum=3,
        leap=0,
        ref_time_ns=Fraction(3_250_000_000),
        offset_ns=Fraction(-500_000_000),
        last_offset_ns=Fraction(750_000_000),
        rms_offset_ns=Fraction(125_000_000),
        frequency_ppm=Fraction(-3, 2),
        residual_freq_ppm=Fraction(1, 2),
        skew_ppm=Fraction(1, 4),
        root_delay_ns=Fraction(NS, 2**10),
        root_dispersion_ns=Fraction(NS, 2**20),
        update_interval_s=Fraction(129, 2),
        is_of_reference_clock=False,
        reference_name="127.0.0.1",
    )


@pytest.mark.parametrize(
    ("changes", "has_reference"),
    [
        ({}, True),
        ({"root_delay_ns": Fraction(0)}, True),
        ({"root_dispersion_ns": Fraction(0)}, True),
        ({"root_delay_ns": Fraction(0), "root_dispersion_ns": Fraction(0)}, False),
        ({"leap": 1}, True),
        ({"leap": 2}, True),
        ({"leap": 3}, False),
        ({"stratum": 0}, False),
        ({"stratum": 1}, True),
        ({"reference_id": 0x7F7F0101}, False),
        ({"reference_id": 0x4D414E55}, False),
    ],
)
def test_whom_chronyd_follows(changes: dict[str, Any], has_reference: bool) -> None:
    """Nobody: leap status 3, stratum 0, ``local`` (127.127.1.1), ``manual`` (MANU), or no error at all."""
    said = tracking(**{"root_delay_ns": Fraction(1), "root_dispersion_ns": Fraction(1), **changes})
    assert said.has_reference == has_reference


@pytest.mark.parametrize(
    ("interval_s", "age_s", "fresh"),
    [
        (0, "10.99", True),
        (0, "11.01", False),
        (1, "10.99", True),
        (1, "11.01", False),
        (64, "512.99", True),
        (64, "513.01", False),
        (0, "-10.99", True),
        (0, "-11.01", False),
    ],
)
def test_how_old_a_reference_may_be(interval_s: int, age_s: str, fresh: bool) -> None:
    """Eight intervals, or ten seconds (the interval is 0 at first), and the second by which chronyd fuzzes it. A
    reference that lies so far ahead is of a clock that was set back: it is none either."""
    ref_ns = NOW_NS - Fraction(age_s) * NS
    assert exchange(ref_time_ns=ref_ns, update_interval_s=Fraction(interval_s)).is_fresh == fresh


@pytest.mark.parametrize(("leap", "name"), [(0, "NONE"), (1, "PRE_POS"), (2, "PRE_NEG"), (3, "NONE")])
def test_leap_indicators(leap: int, name: str) -> None:
    """Insert and delete are announcements for the end of the month."""
    assert leap_of(tracking(leap=leap)) == LeapIndicator[name]
    assert estimator().measure(exchange(leap=leap), RAW).leap_indicator == LeapIndicator[name]


def test_update_in_utc_says_nothing_of_the_offset() -> None:
    """The kernel does not know it: another source may."""
    update = estimator().measure(exchange(), RAW)
    assert (update.counter_id, update.time_type) == (COUNTER_ID, TimeType.UTC)
    assert update.clock_status == ClockStatus.SYNCHRONIZED
    assert "tai_offset_sec" not in update.model_fields_set


def test_update_in_tai_brings_its_offset() -> None:
    """TAI minus UTC is 37: what leads from TAI to UTC is -37."""
    update = estimator().measure(exchange(clock_ns=NOW_NS + 37 * NS, kernel=timex(tai_offset_s=37)), RAW)
    assert (update.time_type, update.tai_offset_sec, update.time_sec) == (TimeType.TAI, -37, 1_790_000_037)


# One exchange


@pytest.mark.parametrize(
    ("trip_ns", "stepped"),
    [(1_083_333, False), (916_667, False), (1_101_000, False), (1_101_001, True), (898_999, True)],
)
def test_slewing_is_no_step(trip_ns: int, stepped: bool) -> None:
    """chronyd slews by up to 83,333 ppm; a tenth of the round trip and a microsecond are allowed."""
    assert exchange(trip_ticks=2_000_000, trip_ns=trip_ns).is_stepped(RAW) == stepped


def test_counter_that_went_backward_is_a_step() -> None:
    """A machine that was moved between the pairings."""
    assert exchange(trip_ticks=-(10**9)).is_stepped(RAW)


@pytest.mark.parametrize(
    ("before_ns", "after_ns", "tai_after", "consistent"),
    [
        (0, 0, 0, True),
        (-5, -995, 0, True),
        (1, 0, 0, False),
        (0, -1001, 0, False),
        (-NS, 0, 0, True),
        (0, 0, 37, False),
    ],
)
def test_exchange_is_of_one_state_of_the_clock(
    before_ns: int, after_ns: int, tai_after: int, consistent: bool
) -> None:
    """The clock lies between what the kernel said before and, cut to microseconds, after: a leap second that is
    due, which the clock makes with the next tick, is not measured half done."""
    kernel = timex(realtime_ns=NOW_NS + before_ns)
    later = timex(realtime_ns=NOW_NS + 500 + after_ns, tai_offset_s=tai_after)
    assert exchange(kernel=kernel, trip_ticks=1000).is_consistent(later) == consistent


def test_kernel_that_does_not_tell_is_consistent_with_itself() -> None:
    """A seccomp filter refuses adjtimex each time, or not at all."""
    silent = exchange(kernel=UNKNOWN_TIMEX)
    assert silent.is_consistent(UNKNOWN_TIMEX)
    assert not silent.is_consistent(timex(realtime_ns=NOW_NS))
    period, maxerror = rates(estimator().measure(silent, RAW))
    assert period == pytest.approx(TICK_NS, rel=1e-12)
    assert maxerror == pytest.approx(TICK_NS * (100_500 + 50) * PPM, rel=1e-9)
