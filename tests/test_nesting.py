"""Intervals that agree with those given earlier, or a new marker where they cannot."""

import re

import pytest

from kit.merging import NOW_NS, SECOND, assert_given, measurement, merger, told
from vmclock_async import BodyUpdate, ClockStatus, Flags, LeapIndicator


def test_inside_is_published_as_it_is() -> None:
    """A fresh interval inside the earlier one is the measurement itself, to the bit."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0, error_ns=1000), 0)
    contents = told(merged, "chrony", measurement(SECOND, error_ns=100), SECOND)
    assert contents.body.counter_value == SECOND
    assert contents.body.time_maxerror_nanosec == 100


@pytest.mark.parametrize("off_ns", [500, -500])
def test_inside_to_two_nanoseconds_is_inside(off_ns: int) -> None:
    """An interval that ends with the earlier one is the measurement itself: roundings do not make it another."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0, error_ns=1000), 0)
    contents = told(merged, "chrony", measurement(0, error_ns=500, off_ns=off_ns), 1)
    assert contents.body.counter_value == 0
    assert contents.body.time_maxerror_nanosec == 500


def test_overlap_is_published_as_the_intersection() -> None:
    """Both contain true time, so the intersection does; the estimated error grows by the midpoint's shift."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0, error_ns=1000), 0)
    contents = told(merged, "chrony", measurement(0, error_ns=1000, off_ns=600), 0)
    assert_given(contents, 0, -400, 1000)
    assert contents.body.counter_value == 0
    assert abs(contents.body.time_esterror_nanosec - (10 + 300)) <= 2
    assert contents.body.disruption_marker == 0


def test_intersection_is_of_the_commit_and_not_of_the_measurement() -> None:
    """A measurement that took a second: the common part is that of the commit, and its reference is the commit's."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0, error_ns=1000, ppm=0), 0)
    contents = told(merged, "chrony", measurement(SECOND, error_ns=1000, off_ns=600, ppm=0), 2 * SECOND)
    assert_given(contents, 2 * SECOND, 2 * SECOND - 400, 2 * SECOND + 1000)
    assert contents.body.counter_value == 2 * SECOND


@pytest.mark.parametrize("off_ns", [1101, -1101, 10 * SECOND])
def test_contradiction_is_a_new_marker_with_the_fresh_time(off_ns: int, caplog: pytest.LogCaptureFixture) -> None:
    """A midpoint outside of what was promised: the fresh interval alone, a new marker, the same epoch."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0, error_ns=1000), 0)
    contents = told(merged, "chrony", measurement(0, error_ns=500, off_ns=off_ns), 0)
    assert_given(contents, 0, off_ns - 500, off_ns + 500)
    assert contents.body.disruption_marker == 2**32
    assert merged.epoch == 0
    assert re.search(r"chrony contradicts .*: measured \d+ to \d+ ns, promised \d+ to \d+ ns;", caplog.text)


def test_midpoint_decides() -> None:
    """A midpoint just inside of the promise's edge still nests."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0, error_ns=1000), 0)
    contents = told(merged, "chrony", measurement(0, error_ns=500, off_ns=998), 0)
    assert_given(contents, 0, 498, 1000)
    assert contents.body.disruption_marker == 0


def test_time_without_a_bound_promises_nothing() -> None:
    """It contradicts nothing, and takes nothing back of what was promised before it."""
    merged = merger("kernel")
    told(merged, "kernel", measurement(0), 0)
    unbounded = told(merged, "kernel", measurement(0, off_ns=SECOND, time_maxerror_nanosec=None), 0)
    assert not unbounded.body.flags & Flags.TIME_MAXERROR_VALID
    assert unbounded.body.disruption_marker == 0
    contents = told(merged, "kernel", measurement(0, off_ns=2 * SECOND), 0)
    assert_given(contents, 0, 2 * SECOND - 100, 2 * SECOND + 100)
    assert contents.body.disruption_marker == 2**32


def test_leap_second_is_no_contradiction() -> None:
    """After a positive leap second UTC is a second less: that was promised by announcing it."""
    month_end_ns = 1_790_812_800 * SECOND  # 2026-10-01T00:00:00Z
    start = month_end_ns - NOW_NS - SECOND
    merged = merger("chrony")
    told(merged, "chrony", measurement(start, leap_indicator=LeapIndicator.PRE_POS), start)
    after = start + 3 * SECOND
    contents = told(merged, "chrony", measurement(after, off_ns=-SECOND, leap_indicator=0), after)
    assert contents.body.disruption_marker == 0
    assert_given(contents, after, after - SECOND - 100, after - SECOND + 100)


@pytest.mark.parametrize("between", [ClockStatus.UNKNOWN, ClockStatus.UNRELIABLE])
def test_step_behind_a_void_status_is_a_contradiction(between: ClockStatus) -> None:
    """What was promised before the void still binds."""
    merged = merger("kernel")
    told(merged, "kernel", measurement(0), 0)
    told(merged, "kernel", BodyUpdate(clock_status=between), SECOND)
    contents = told(merged, "kernel", measurement(2 * SECOND, off_ns=SECOND), 2 * SECOND)
    assert contents.body.disruption_marker == 2**32
    assert_given(contents, 2 * SECOND, 3 * SECOND - 100, 3 * SECOND + 100)


def test_promise_binds_however_old_it_is() -> None:
    """Its interval has grown by R, and is held against the next; after an hour at 50 ppm that is 180 ms."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0), 0)
    hour = 3600 * SECOND
    contents = told(merged, "chrony", measurement(hour, off_ns=SECOND), hour)
    assert contents.body.disruption_marker == 2**32
    assert told(merged, "chrony", measurement(hour, off_ns=SECOND), hour).body.disruption_marker == 2**32


def test_estimated_error_stays_within_its_field() -> None:
    """An intersection that shifts the midpoint adds to an estimate that is as large as can be."""
    merged = merger("own")
    told(merged, "own", measurement(0, error_ns=1000), 0)
    contents = told(merged, "own", measurement(0, off_ns=900, time_esterror_nanosec=2**64 - 1), 0)
    assert contents.body.time_esterror_nanosec == 2**64 - 1
