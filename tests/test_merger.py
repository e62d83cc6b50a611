"""One body from what several sources say: what voids a time, what is held, what is relayed.

The rules one by one: test_choice.py, test_testimony.py, test_disruptions.py, test_nesting.py, test_ageing.py and
test_constants.py.
"""

import pytest

from kit.merging import (
    BOUNDS,
    SECOND,
    assert_given,
    committed,
    composed,
    measurement,
    merger,
    page,
    time_page,
    told,
)
from vmclock_async import BodyUpdate, ClockStatus, CounterId, Flags, TimeType, VMClockBody
from vmclock_async._publishing.merger import Observed
from vmclock_async.models import Contents
from vmclock_async.timebase import COUNTER_ID

# A marker, and the time that it voids


def test_new_marker_voids_the_time_in_the_same_commit() -> None:
    """UNKNOWN and no bounds along with the marker; a new epoch; time is back with the next measurement."""
    merged = merger("device", "chrony")
    told(merged, "device", page(disruption_marker=7), 0)
    told(merged, "chrony", measurement(0), 0)
    contents = told(merged, "device", page(disruption_marker=8), 10)
    assert (contents.body.disruption_marker, contents.body.clock_status) == (8, ClockStatus.UNKNOWN)
    assert not contents.body.flags & BOUNDS
    assert merged.epoch == 1
    assert told(merged, "chrony", BodyUpdate(clock_status=2), 20).body.clock_status == ClockStatus.UNKNOWN
    contents = told(merged, "chrony", measurement(30, off_ns=-5 * SECOND), 30)
    assert_given(contents, 30, -70 - 5 * SECOND, 130 - 5 * SECOND)
    assert contents.body.disruption_marker == 8  # void time promises nothing that could be broken


@pytest.mark.parametrize("change", [{"vm_generation_counter": 2}, {"flags": Flags.DISRUPTION_IMMINENT}])
def test_neither_generation_nor_notice_is_a_disruption(change: dict[str, object]) -> None:
    """What is orthogonal to the marker leaves the time as it is."""
    merged = merger("device", "chrony")
    told(merged, "device", page(disruption_marker=7), 0)
    told(merged, "chrony", measurement(0), 0)
    contents = told(merged, "device", page(disruption_marker=7, **change), 10)
    assert contents.body.clock_status == ClockStatus.SYNCHRONIZED
    assert merged.epoch == 0


def test_time_that_came_with_the_marker_holds() -> None:
    """The source that tells of the disruption is believed the time it tells in the same update, and no other."""
    merged = merger("device", "chrony")
    body = measurement(0).applied_to(VMClockBody(disruption_marker=3))
    told(merged, "device", BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=0), 0)
    told(merged, "chrony", measurement(0), 0)
    body = measurement(100, off_ns=SECOND).applied_to(VMClockBody(disruption_marker=4))
    contents = told(merged, "device", BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=0), 100)
    assert (contents.body.disruption_marker, contents.body.clock_status) == (4, ClockStatus.SYNCHRONIZED)
    assert_given(contents, 100, SECOND, 200 + SECOND)


def test_marker_that_was_seen_first_overtakes_its_update() -> None:
    """Looked at, 9 is published at once; the update with 8, still on its way, is neither marker nor time."""
    merged = merger("device", "chrony")
    told(merged, "device", page(disruption_marker=7), 0)
    merged.notice(Observed(0, marker=("device", 9)))
    assert committed(merged).body.disruption_marker == 9
    body = measurement(100).applied_to(VMClockBody(disruption_marker=8))
    merged.notice(Observed(100, marker=("device", 9)))
    merged.hear("device", BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=0))
    contents = committed(merged)
    assert (contents.body.disruption_marker, contents.body.clock_status) == (9, ClockStatus.UNKNOWN)
    assert merged.epoch == 1


def test_time_before_the_first_marker_is_not_published() -> None:
    """Whether the machine was migrated in between nobody knows; to readers of a new segment it is no event."""
    merged = merger("device", "chrony")
    merged.notice(Observed(0))
    merged.hear("chrony", measurement(0))
    contents = told(merged, "device", page(disruption_marker=8), 10)
    assert (contents.body.disruption_marker, merged.epoch) == (8, 0)
    assert contents.body.clock_status != ClockStatus.SYNCHRONIZED
    assert told(merged, "chrony", measurement(20), 20).body.clock_status == ClockStatus.SYNCHRONIZED


# The counter


def test_counter_that_went_back_is_a_disruption() -> None:
    """The time is void under a new marker, and does not come back when the counter reaches it again."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(100 * SECOND), 100 * SECOND)
    contents = composed(merged, 0)
    assert (contents.body.clock_status, contents.body.disruption_marker) == (ClockStatus.UNKNOWN, 2**32)
    assert merged.epoch == 1
    for counter in (50 * SECOND, 99 * SECOND, 100 * SECOND, 101 * SECOND):
        assert composed(merged, counter).body.clock_status == ClockStatus.UNKNOWN
    told(merged, "chrony", measurement(102 * SECOND, off_ns=100 * SECOND), 102 * SECOND)
    assert merged.contents.body.disruption_marker == 2**32


def test_measurement_after_a_reset_is_of_the_new_epoch() -> None:
    """One that was made before the reset was noticed is dropped along with the rest: it may be from before."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(1000 * SECOND), 1000 * SECOND)
    contents = told(merged, "chrony", measurement(5 * SECOND, off_ns=1000 * SECOND), 5 * SECOND)
    assert (contents.body.clock_status, contents.body.disruption_marker) == (ClockStatus.UNKNOWN, 2**32)


def test_segment_ahead_of_the_counter_is_of_before_a_reset() -> None:
    """A publisher that finds a time more than a second ahead begins with the void, and a new marker."""
    body = measurement(100 * SECOND).applied_to(VMClockBody(disruption_marker=7))
    warm = merger("chrony", contents=Contents(body, COUNTER_ID, TimeType.UTC))
    contents = told(warm, "chrony", measurement(5 * SECOND), 5 * SECOND)
    assert (contents.body.clock_status, contents.body.disruption_marker) == (ClockStatus.UNKNOWN, 7 + 2**32)


def test_cores_that_are_not_in_step_are_no_disruption() -> None:
    """A counter that goes back by less than a millisecond is read on another core."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(SECOND), SECOND)
    assert composed(merged, SECOND - 10_000).body.clock_status == ClockStatus.SYNCHRONIZED
    assert merged.epoch == 0


def test_counter_that_went_back_with_the_marker_is_one_disruption() -> None:
    """A migration that resets the counter moves the marker once."""
    merged = merger("device", "chrony")
    told(merged, "device", page(disruption_marker=7), 0)
    told(merged, "chrony", measurement(100 * SECOND), 100 * SECOND)
    merged.notice(Observed(5, marker=("device", 8)))
    assert committed(merged).body.disruption_marker == 8
    assert told(merged, "device", page(disruption_marker=8), 5).body.disruption_marker == 8


def test_jump_that_nobody_saw_voids_what_others_measured() -> None:
    """A contradiction may be the counter's: no time from before it is published under the new marker."""
    merged = merger("a", "b")
    told(merged, "b", measurement(0), 0)
    told(merged, "a", measurement(0), 0)
    contents = told(merged, "a", measurement(4 * SECOND, off_ns=-3 * SECOND), 4 * SECOND)
    assert contents.body.disruption_marker == 2**32
    contents = told(merged, "a", BodyUpdate(clock_status=ClockStatus.UNKNOWN), 4 * SECOND)
    assert contents.body.clock_status == ClockStatus.UNKNOWN


def test_time_of_an_unfit_counter_is_withdrawn() -> None:
    """counter_id INVALID from the source of the time: no time, and the page says so."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0), 0)
    contents = told(merged, "chrony", BodyUpdate(counter_id=CounterId.INVALID), 1)
    assert contents.counter_id == CounterId.INVALID
    assert contents.body.clock_status == ClockStatus.UNKNOWN
    assert not contents.body.flags & BOUNDS


# What is held, and what is relayed


def test_without_a_measurement_nothing_is_anchored_anew() -> None:
    """A status alone changes the status, and flags; what was nested stays to the bit."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0, error_ns=1000), 0)
    nested = told(merged, "chrony", measurement(0, error_ns=1000, off_ns=600), 0)
    contents = told(merged, "chrony", BodyUpdate(clock_status=ClockStatus.FREERUNNING), SECOND)
    assert contents.body == nested.body.model_copy(update={"clock_status": ClockStatus.FREERUNNING})


def test_short_page_with_the_flag_of_a_generation_is_relayed_without() -> None:
    """A page of 104 bytes has no generation counter, whatever its flags say; ours has room for one."""
    flags = Flags.VM_GEN_COUNTER_PRESENT | Flags.NOTIFICATION_PRESENT
    body = VMClockBody(disruption_marker=3).model_copy(update={"flags": flags})
    contents = merger("own").relay(BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=TimeType.UTC))
    assert contents.body.flags == Flags.NOTIFICATION_PRESENT
    assert contents.body.disruption_marker == 3


def test_status_after_a_relayed_page_is_heard() -> None:
    """A sole source that sent a whole body, and then a status alone, is merged from there on."""
    merged = merger("own")
    merged.relay(time_page(measurement(0)))
    contents = told(merged, "own", BodyUpdate(clock_status=ClockStatus.UNKNOWN), 10)
    assert contents.body.clock_status == ClockStatus.UNKNOWN
