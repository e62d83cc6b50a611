"""What becomes of a time while nobody measures it again."""

from kit.merging import BOUNDS, SECOND, composed, measurement, merger, told
from vmclock_async import BodyUpdate, ClockStatus, CounterId, TimeType, VMClockBody
from vmclock_async.timebase import COUNTER_ID


def test_measurement_ages_by_its_counter_value() -> None:
    """Five seconds after it SYNCHRONIZED becomes FREERUNNING, after a thousand UNKNOWN without bounds."""
    merged = merger("chrony")
    body = told(merged, "chrony", measurement(0), 0).body
    assert composed(merged, 5 * SECOND).body == body
    free = composed(merged, 5 * SECOND + 2)
    assert free.body == body.model_copy(update={"clock_status": ClockStatus.FREERUNNING})
    assert composed(merged, 1000 * SECOND).body.clock_status == ClockStatus.FREERUNNING
    void = composed(merged, 1000 * SECOND + 2)
    assert void.body.clock_status == ClockStatus.UNKNOWN
    assert not void.body.flags & BOUNDS
    assert merged.groups["time"] == "chrony"


def test_counter_that_went_back_is_as_old_as_can_be() -> None:
    """More than a second behind a page's time the counter is none that it was measured by: that is void."""
    merged = merger("device", "chrony")
    body = measurement(10 * SECOND).applied_to(VMClockBody(disruption_marker=3))
    device = BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=TimeType.UTC)
    assert told(merged, "device", device, 9 * SECOND).body.clock_status == ClockStatus.SYNCHRONIZED
    merged = merger("device", "chrony")
    assert told(merged, "device", device, 9 * SECOND - 2).body.clock_status == ClockStatus.UNKNOWN


def test_what_another_counter_tells_does_not_age() -> None:
    """How old it is cannot be told here, so it is passed on as it is."""
    merged = merger("elsewhere")
    other = CounterId.ARM_VCNT if COUNTER_ID == CounterId.X86_TSC else CounterId.X86_TSC
    told(merged, "elsewhere", measurement(0, counter_id=other), 0)
    assert composed(merged, 10_000 * SECOND).body.clock_status == ClockStatus.SYNCHRONIZED


def test_clean_stop_leaves_a_time_that_runs_free() -> None:
    """SYNCHRONIZED becomes FREERUNNING, and nothing else changes; a status without a time is left alone."""
    merged = merger("chrony")
    body = told(merged, "chrony", measurement(0), 0).body
    assert merged.final_contents().body == body.model_copy(update={"clock_status": ClockStatus.FREERUNNING})
    merged = merger("status")
    body = told(merged, "status", BodyUpdate(clock_status=2), 0).body
    assert merged.final_contents().body == body
