"""Merging, disruptions, nesting and quiet sources, rule by rule, at counter values of the tests' own."""

import re
from pathlib import Path

import pytest

from kit.merging import (
    BOUNDS,
    NOW_NS,
    SECOND,
    Silent,
    assert_given,
    committed,
    composed,
    measurement,
    merger,
    page,
    told,
)
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    CounterId,
    Flags,
    LeapIndicator,
    SegmentWriter,
    TimeType,
    VMClockBody,
)
from vmclock_async._publishing.committer import Committer
from vmclock_async._publishing.merger import Merger, Observed
from vmclock_async._publishing.standstill import Standstill
from vmclock_async.models import Contents
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID

# Relaying


@pytest.mark.parametrize(
    ("names", "is_whole", "is_relayed"),
    [(["one"], True, True), (["one", "other"], True, False), (["one"], False, False)],
    ids=["a sole source's page", "a page beside another source", "a sole source's partial update"],
)
def test_only_sole_source_of_whole_bodies_is_relayed(
    names: list[str], is_whole: bool, is_relayed: bool, segment_path: Path
) -> None:
    """What is merged is left running free at the end; what is relayed stays as the source said it."""
    body = make_body()
    fields = {name: getattr(body, name) for name in (*BodyUpdate.MEASURED_FIELDS, "clock_status")}
    update = (
        BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=0)
        if is_whole
        else BodyUpdate.model_validate(fields)
    )
    with SegmentWriter(segment_path, size=112) as writer:
        committer = Committer(writer, {name: Silent() for name in names}, standstill=Standstill(1.0))
        assert committer.publish("one", update, None)
        committer.close()
        assert (writer.body.clock_status == ClockStatus.SYNCHRONIZED) is is_relayed


# Groups


def test_device_tells_of_disruptions_and_chrony_the_time() -> None:
    """A page without a counter has no time and no calendar to give: these come from the other source."""
    merged = merger("device", "chrony")
    device = page(disruption_marker=7, vm_generation_counter=9, flags=Flags.DISRUPTION_SOON)
    told(merged, "device", device, 0)
    contents = told(merged, "chrony", measurement(1000, tai_offset_sec=-37, leap_indicator=1), 1000)
    assert merged.groups == {"disruption": "device", "time": "chrony", "calendar": "chrony"}
    body = contents.body
    assert (body.disruption_marker, body.vm_generation_counter) == (7, 9)
    assert body.flags == (
        Flags.DISRUPTION_SOON
        | Flags.VM_GEN_COUNTER_PRESENT
        | Flags.TAI_OFFSET_VALID
        | Flags.TIME_MAXERROR_VALID
        | Flags.TIME_ESTERROR_VALID
        | Flags.PERIOD_MAXERROR_VALID
    )
    assert (body.clock_status, contents.counter_id) == (ClockStatus.SYNCHRONIZED, COUNTER_ID)
    assert (body.tai_offset_sec, body.leap_indicator) == (-37, LeapIndicator.PRE_POS)


def test_page_with_a_counter_tells_everything() -> None:
    """A device that tells the time, listed first, leaves the other source nothing to add while it is fresh."""
    merged = merger("device", "chrony")
    body = measurement(1000).applied_to(VMClockBody(disruption_marker=3))
    device = BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=TimeType.UTC)
    first = told(merged, "device", device, 1000)
    assert told(merged, "chrony", measurement(2000, off_ns=50), 2000) == first
    assert merged.groups == {"disruption": "device", "time": "device", "calendar": "device"}


@pytest.mark.parametrize("order", [("device", "notices"), ("notices", "device")])
def test_announcing_maintenance_hides_no_marker(order: tuple[str, str]) -> None:
    """A source of notices alone, listed first or last, leaves the marker to the device."""
    merged = merger(*order)
    told(merged, "device", page(disruption_marker=7), 0)
    contents = told(merged, "notices", BodyUpdate(flags=Flags.DISRUPTION_IMMINENT), 0)
    assert contents.body.disruption_marker == 7
    assert bool(contents.body.flags & Flags.DISRUPTION_IMMINENT) == (order[0] == "notices")
    contents = told(merged, "device", page(disruption_marker=8), 0)
    assert contents.body.disruption_marker == 8


def test_flags_of_the_time_are_no_notice() -> None:
    """A source of time that sets TIME_MONOTONIC does not take the notices from the device after it."""
    merged = merger("chrony", "device")
    told(merged, "chrony", measurement(0, flags=Flags.TIME_MONOTONIC), 0)
    contents = told(merged, "device", page(flags=Flags.DISRUPTION_SOON | Flags.NOTIFICATION_PRESENT), 0)
    assert contents.body.flags & (Flags.DISRUPTION_SOON | Flags.TIME_MONOTONIC) == (
        Flags.DISRUPTION_SOON | Flags.TIME_MONOTONIC
    )
    assert not contents.body.flags & Flags.NOTIFICATION_PRESENT  # of the device's descriptor, not of a file


def test_tai_time_brings_its_own_offset() -> None:
    """Another source's offset, a leap second early or late, would move the time by a second."""
    merged = merger("calendar", "time")
    told(merged, "calendar", BodyUpdate(tai_offset_sec=-38), 0)
    tai = {"time_type": TimeType.TAI, "tai_offset_sec": -37}
    assert told(merged, "time", measurement(0, **tai), 0).body.tai_offset_sec == -37
    assert told(merged, "calendar", BodyUpdate(tai_offset_sec=-39), 0).body.tai_offset_sec == -37
    left = merged.final_contents()
    after = merger("calendar", "time", contents=left)
    assert told(after, "calendar", BodyUpdate(tai_offset_sec=-38), 1).body.tai_offset_sec == -37


# Disruptions and epochs


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


def test_suspend_is_a_marker_of_our_own() -> None:
    """The published marker is the device's plus n times 2**32, and goes on from the device's next."""
    merged = merger("device", "chrony")
    told(merged, "device", page(disruption_marker=7), 0)
    told(merged, "chrony", measurement(0), 0)
    merged.notice(Observed(10, broken="suspended"))
    contents = committed(merged)
    assert contents.body.disruption_marker == 7 + 2**32
    assert contents.body.clock_status == ClockStatus.UNKNOWN
    assert told(merged, "device", page(disruption_marker=8), 20).body.disruption_marker == 8 + 2**32


@pytest.mark.parametrize(
    ("left", "device", "published", "disrupted"),
    [
        (7 + 3 * 2**32, 7, 7 + 3 * 2**32, False),
        (7, 7, 7, False),
        (7 + 2**32, 8, 8 + 2**32, True),
        (8, 3, 3 + 2**32, True),
        (2**32, 2**33, 2**33, True),
        (7, 7 + 2**32, 7 + 2**32, True),
    ],
)
def test_warm_start_finds_out_whether_it_missed_one(
    left: int, device: int, published: int, disrupted: bool
) -> None:
    """A difference that is a multiple of 2**32 was our own, unless it is negative; any other happened unseen."""
    body = measurement(0).applied_to(VMClockBody(disruption_marker=left))
    warm = merger("device", "chrony", contents=Contents(body, COUNTER_ID, TimeType.UTC))
    contents = told(warm, "device", page(disruption_marker=device), 10)
    assert contents.body.disruption_marker == published
    assert (contents.body.clock_status == ClockStatus.UNKNOWN) == disrupted
    assert warm.epoch == disrupted


@pytest.mark.parametrize("moved", [7 + 2**32, 7 + 5 * 2**32, 7 + 2**63])
def test_marker_that_moves_by_a_multiple_is_a_disruption(moved: int) -> None:
    """A running publisher compares all 64 bits, up and down again; each marker that it publishes is a new one."""
    merged = merger("device", "chrony")
    told(merged, "device", page(disruption_marker=7), 0)
    published = [7]
    for epoch, marker in enumerate((moved, 7, moved), start=1):
        told(merged, "chrony", measurement(epoch), epoch)
        contents = told(merged, "device", page(disruption_marker=marker), epoch)
        assert contents.body.clock_status == ClockStatus.UNKNOWN
        assert contents.body.disruption_marker % 2**32 == 7
        published.append(contents.body.disruption_marker)
        assert merged.epoch == epoch
    assert len(set(published)) == 4


@pytest.mark.parametrize(("seen", "disrupted"), [(7, False), (7 + 2**32, True)])
def test_marker_that_the_run_before_saw_is_compared_whole(seen: int, disrupted: bool) -> None:
    """What looks like two disruptions of our own is the device's, where it is known that it said another marker."""
    body = measurement(0).applied_to(VMClockBody(disruption_marker=7 + 2**33))
    left = Contents(body, COUNTER_ID, TimeType.UTC)
    again = Merger(("device", "chrony"), left, cold=False, device_marker=seen)
    contents = told(again, "device", page(disruption_marker=7), 10)
    assert (contents.body.clock_status == ClockStatus.UNKNOWN) == disrupted
    assert contents.body.disruption_marker == 7 + (3 if disrupted else 2) * 2**32


def test_first_marker_of_a_new_segment_is_no_disruption() -> None:
    """A cold start has no time that could be void."""
    merged = merger("device")
    assert told(merged, "device", page(disruption_marker=7), 0).body.disruption_marker == 7
    assert merged.epoch == 0


# Nesting


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


def test_without_a_measurement_nothing_is_anchored_anew() -> None:
    """A status alone changes the status, and flags; what was nested stays to the bit."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0, error_ns=1000), 0)
    nested = told(merged, "chrony", measurement(0, error_ns=1000, off_ns=600), 0)
    contents = told(merged, "chrony", BodyUpdate(clock_status=ClockStatus.FREERUNNING), SECOND)
    assert contents.body == nested.body.model_copy(update={"clock_status": ClockStatus.FREERUNNING})


# Sources that go quiet


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


def test_lower_listed_source_takes_over_after_the_grace() -> None:
    """And gives way at once when the higher one measures again."""
    merged = merger("chrony", "kernel")
    told(merged, "chrony", measurement(0), 0)
    told(merged, "kernel", measurement(4 * SECOND, error_ns=900), 4 * SECOND)
    assert merged.groups["time"] == "chrony"
    contents = told(merged, "kernel", measurement(6 * SECOND, off_ns=7, error_ns=900_000), 6 * SECOND)
    assert merged.groups["time"] == "kernel"
    assert contents.body.clock_status == ClockStatus.SYNCHRONIZED
    # The kernel's is wider than what chrony promised, grown by 50 ppm for six seconds:
    assert_given(contents, 6 * SECOND, 6 * SECOND - 300_100, 6 * SECOND + 300_100)
    told(merged, "chrony", measurement(7 * SECOND), 7 * SECOND)
    assert merged.groups["time"] == "chrony"


def test_source_that_knows_no_time_gives_way_at_once() -> None:
    """UNKNOWN is not quiet, it is no time."""
    merged = merger("chrony", "kernel")
    told(merged, "chrony", measurement(0), 0)
    told(merged, "kernel", measurement(SECOND), SECOND)
    told(merged, "chrony", BodyUpdate(clock_status=ClockStatus.UNKNOWN), 2 * SECOND)
    assert merged.groups["time"] == "kernel"


def test_source_that_has_not_measured_displaces_nothing() -> None:
    """A restart is no outage: INITIALIZING leaves the predecessor's time, which runs free until it is void."""
    left = told(merger("chrony"), "chrony", measurement(0), 0)
    warm = merger("chrony", contents=left)
    body = told(warm, "chrony", BodyUpdate(clock_status=ClockStatus.INITIALIZING), 6 * SECOND).body
    assert body == left.body.model_copy(update={"clock_status": ClockStatus.FREERUNNING})
    assert warm.groups["time"] is None
    body = told(warm, "chrony", BodyUpdate(clock_status=ClockStatus.INITIALIZING), 1001 * SECOND).body
    assert body.clock_status == ClockStatus.UNKNOWN
    assert composed(warm, 1001 * SECOND).body.clock_status == ClockStatus.INITIALIZING


def test_source_that_begins_again_keeps_its_own_time() -> None:
    """INITIALIZING from the source of the time: what it measured before runs free."""
    merged = merger("chrony")
    body = told(merged, "chrony", measurement(0), 0).body
    again = told(merged, "chrony", BodyUpdate(clock_status=ClockStatus.INITIALIZING), SECOND).body
    assert again == body.model_copy(update={"clock_status": ClockStatus.FREERUNNING})


def test_time_of_an_unfit_counter_is_withdrawn() -> None:
    """counter_id INVALID from the source of the time: no time, and the page says so."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0), 0)
    contents = told(merged, "chrony", BodyUpdate(counter_id=CounterId.INVALID), 1)
    assert contents.counter_id == CounterId.INVALID
    assert contents.body.clock_status == ClockStatus.UNKNOWN
    assert not contents.body.flags & BOUNDS


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
