"""What one source has said, and which of it still counts."""

import pytest

from kit.merging import SECOND, committed, measurement, merger, page, time_page, told
from vmclock_async import BodyUpdate, ClockStatus, Flags, LeapIndicator, TimeType, VMClockBody
from vmclock_async._publishing.merger import Observed
from vmclock_async.timebase import COUNTER_ID


def test_flags_of_the_time_are_no_notice() -> None:
    """A source of time that sets TIME_MONOTONIC does not take the notices from the device after it."""
    merged = merger("chrony", "device")
    told(merged, "chrony", measurement(0, flags=Flags.TIME_MONOTONIC), 0)
    contents = told(merged, "device", page(flags=Flags.DISRUPTION_SOON | Flags.NOTIFICATION_PRESENT), 0)
    assert contents.body.flags & (Flags.DISRUPTION_SOON | Flags.TIME_MONOTONIC) == (
        Flags.DISRUPTION_SOON | Flags.TIME_MONOTONIC
    )
    assert not contents.body.flags & Flags.NOTIFICATION_PRESENT  # of the device's descriptor, not of a file


def test_page_that_is_said_again_is_no_measurement() -> None:
    """After a suspend the same page (a notice was raised, its reader was restarted) is as old as before."""
    merged = merger("device", "chrony")
    old = measurement(0)
    told(merged, "device", time_page(old, disruption_marker=7), 0)
    merged.notice(Observed(SECOND, broken="suspended"))
    committed(merged)
    notice = time_page(old, disruption_marker=7, flags=Flags.DISRUPTION_SOON)
    contents = told(merged, "device", notice, 2 * SECOND)
    assert contents.body.flags & Flags.DISRUPTION_SOON
    assert contents.body.clock_status == ClockStatus.UNKNOWN
    assert told(merged, "device", notice, 3 * SECOND).body.clock_status == ClockStatus.UNKNOWN
    fresh = time_page(measurement(4 * SECOND), disruption_marker=7)
    assert told(merged, "device", fresh, 4 * SECOND).body.clock_status == ClockStatus.SYNCHRONIZED


def test_void_page_stays_void_for_the_next_publisher() -> None:
    """What the segment holds as void is not believed because a new publisher reads it from the device."""
    first = merger("device", "chrony")
    device = time_page(measurement(0), disruption_marker=7)
    told(first, "device", device, 0)
    first.notice(Observed(SECOND, broken="suspended"))
    left = committed(first)
    second = merger("device", "chrony", contents=left)
    assert told(second, "device", device, 2 * SECOND).body.clock_status == ClockStatus.UNKNOWN


def test_page_without_a_time_hides_no_calendar() -> None:
    """A page that names this counter, but tells no time, has no calendar either."""
    merged = merger("device", "chrony")
    empty = BodyUpdate.from_body(VMClockBody(disruption_marker=7), counter_id=COUNTER_ID, time_type=TimeType.UTC)
    told(merged, "device", empty, 0)
    contents = told(merged, "chrony", measurement(1000, tai_offset_sec=-37, leap_indicator=1), 1000)
    assert contents.body.leap_indicator == LeapIndicator.PRE_POS
    assert contents.body.flags & Flags.TAI_OFFSET_VALID


@pytest.mark.parametrize("as_page", [False, True], ids=["update", "page"])
def test_bound_is_at_least_the_estimated_error(as_page: bool) -> None:
    """A bound below the estimate of the same body is raised to it, now and as both grow; so is that of an overlap."""
    merged = merger("own", "other")
    error = {"time_esterror_nanosec": 300_000, "counter_period_esterror_rate_frac_sec": 2**62}
    update = measurement(0, error_ns=50_000, **error)
    body = told(merged, "own", time_page(update) if as_page else update, 0).body
    assert body.time_maxerror_nanosec == body.time_esterror_nanosec == 300_000
    assert body.counter_period_maxerror_rate_frac_sec == body.counter_period_esterror_rate_frac_sec == 2**62
    merged = merger("own")
    told(merged, "own", measurement(0, error_ns=1000, time_esterror_nanosec=1000), 0)
    body = told(merged, "own", measurement(0, error_ns=1000, off_ns=900, time_esterror_nanosec=1000), 0).body
    assert body.time_maxerror_nanosec < 1000
    assert body.time_esterror_nanosec <= body.time_maxerror_nanosec


def test_bound_that_is_not_there_is_not_raised() -> None:
    """An estimated error alone makes no bound, and an estimate that is not valid raises none."""
    body = told(merger("own"), "own", measurement(0, time_maxerror_nanosec=None), 0).body
    assert not body.flags & Flags.TIME_MAXERROR_VALID
    update = measurement(0, time_esterror_nanosec=2**60)
    body = told(merger("own"), "own", update.model_copy(update={"time_esterror_nanosec": None}), 0).body
    assert body.time_maxerror_nanosec == 100


def test_update_without_a_counter_is_of_this_machines() -> None:
    """A new segment's zero would be Arm's counter."""
    fields = measurement(0).model_dump(exclude_unset=True)
    del fields["counter_id"]
    assert told(merger("own"), "own", BodyUpdate(**fields), 0).counter_id == COUNTER_ID
