"""What goes wrong around merging: counters that jump, pages that repeat themselves, sources that talk nonsense."""

import pytest

from kit.merging import NOW_NS, SECOND, assert_given, committed, composed, measurement, merger, page, told
from vmclock_async import BodyUpdate, ClockStatus, CounterId, Flags, LeapIndicator, TimeType, VMClockBody
from vmclock_async._publishing.merger import Observed
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import COUNTER_ID

YEAR_2027_NS = 1_798_761_600 * SECOND


def time_page(update: BodyUpdate, **fields: object) -> BodyUpdate:
    """The page of a device that tells the time of *update*."""
    body = update.applied_to(VMClockBody.model_validate(fields))
    return BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=TimeType.UTC)


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


# Pages


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


def test_marker_that_goes_back_is_a_new_one() -> None:
    """QEMU repeats markers; what is published never repeats, and its low half is still the device's."""
    merged = merger("device")
    published = [
        told(merged, "device", page(disruption_marker=marker), 0).body.disruption_marker for marker in (7, 8, 7)
    ]
    assert published == [7, 8, 7 + 2**32]


def test_time_before_the_first_marker_is_not_published() -> None:
    """Whether the machine was migrated in between nobody knows; to readers of a new segment it is no event."""
    merged = merger("device", "chrony")
    merged.notice(Observed(0))
    merged.hear("chrony", measurement(0))
    contents = told(merged, "device", page(disruption_marker=8), 10)
    assert (contents.body.disruption_marker, merged.epoch) == (8, 0)
    assert contents.body.clock_status != ClockStatus.SYNCHRONIZED
    assert told(merged, "chrony", measurement(20), 20).body.clock_status == ClockStatus.SYNCHRONIZED


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


# Calendars


def test_time_brings_its_own_leap_announcement() -> None:
    """The source that took over knows of the leap second; the one before did not say, or was wrong."""
    merged = merger("chrony", "kernel")
    at = YEAR_2027_NS - NOW_NS - 10 * SECOND
    told(merged, "chrony", measurement(at, leap_indicator=0), at)
    at += 9 * SECOND
    told(merged, "kernel", measurement(at, leap_indicator=1), at)
    assert merged.groups == {"disruption": None, "time": "kernel", "calendar": "kernel"}
    at += 2 * SECOND
    given = bounds_at(composed(merged, at), at, counter_id=COUNTER_ID)
    assert given.earliest_ns <= NOW_NS + at - SECOND <= given.latest_ns


# Times that nobody here can use


OTHER_COUNTER = CounterId.ARM_VCNT if COUNTER_ID == CounterId.X86_TSC else CounterId.X86_TSC
USELESS: dict[str, dict[str, int | None]] = {
    "no rate": {"counter_period_frac_sec": 0},
    "no bound": {"time_maxerror_nanosec": None},
    "no bound of the rate": {"counter_period_maxerror_rate_frac_sec": None},
    "a bound beyond the years": {"time_maxerror_nanosec": 2**63},
    "an estimated error beyond the years": {"time_esterror_nanosec": 2**64 - 1},
    "another counter": {"counter_id": OTHER_COUNTER},
    "a counter without a name": {"counter_id": CounterId.INVALID - 1},
    "shift beyond 63": {"counter_period_shift": 64},
    "MONOTONIC": {"time_type": TimeType.MONOTONIC},
    "smeared": {"time_type": TimeType.INVALID_SMEARED},
    "maybe smeared": {"time_type": TimeType.INVALID_MAYBE_SMEARED},
    "a timescale without a name": {"time_type": 77},
    "TAI without its offset": {"time_type": TimeType.TAI, "tai_offset_sec": None},
    "TAI with the old sign": {"time_type": TimeType.TAI, "tai_offset_sec": 37},
    "UNKNOWN": {"clock_status": ClockStatus.UNKNOWN},
    "INITIALIZING": {"clock_status": ClockStatus.INITIALIZING},
    "UNRELIABLE": {"clock_status": ClockStatus.UNRELIABLE},
    "a status without a name": {"clock_status": 200},
    "after 2262": {"time_sec": 2**34},
    "the last second of all": {"time_sec": 2**64 - 1},
    "older than any reader takes": {"counter_value": -1001 * SECOND % 2**64},
    "ahead of the counter": {"counter_value": 2 * SECOND},
}


def useless(kind: str, at: int) -> BodyUpdate:
    """A time at *at* that no reader on this machine can use."""
    return BodyUpdate.model_validate(measurement(at).model_dump(exclude_unset=True) | USELESS[kind])


@pytest.mark.parametrize("first", ["strange", "chrony"])
@pytest.mark.parametrize("kind", USELESS)
@pytest.mark.parametrize("as_page", [False, True], ids=["update", "page"])
def test_time_that_no_reader_can_use_hides_none(kind: str, as_page: bool, first: str) -> None:
    """Whatever keeps readers from using a time, it gives way to a lower-listed source's, which was or comes there."""
    merged = merger("strange", "chrony")
    update = useless(kind, 0)
    if as_page:
        body = update.applied_to(VMClockBody(disruption_marker=7))
        update = BodyUpdate.from_body(body, counter_id=update.counter_id, time_type=update.time_type)
    updates = {"strange": update, "chrony": measurement(0)}
    told(merged, "strange", page(disruption_marker=7), 0)
    for name in (first, *(updates.keys() - {first})):
        told(merged, name, updates[name], 0)
    assert merged.groups["time"] == "chrony"
    assert_given(composed(merged, 1), 1, -99, 101)


@pytest.mark.parametrize("kind", USELESS)
def test_time_that_no_reader_can_use_displaces_none_that_is_held(kind: str) -> None:
    """Neither what a source that has gone quiet told, nor what the publisher before left, as long as it holds."""
    merged = merger("strange", "chrony")
    told(merged, "chrony", measurement(0), 0)
    at = 20 * SECOND
    told(merged, "strange", useless(kind, at), at)
    assert_given(composed(merged, at), at, at - 100 - 1_000_000, at + 100 + 1_000_000)
    after = merger("strange", contents=merged.contents)
    told(after, "strange", useless(kind, at), at)
    assert_given(composed(after, at), at, at - 100 - 1_000_000, at + 100 + 1_000_000)


def test_time_without_a_bound_is_shown_where_there_is_no_other() -> None:
    """Readers that state a drift can use it, and the others are told what it lacks."""
    merged = merger("strange", "kernel")
    told(merged, "strange", measurement(0, counter_id=OTHER_COUNTER), 0)
    contents = told(merged, "kernel", measurement(0, time_maxerror_nanosec=None), 0)
    assert merged.groups["time"] == "kernel"
    assert (contents.counter_id, contents.body.clock_status) == (COUNTER_ID, ClockStatus.SYNCHRONIZED)


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


def test_initializing_after_the_void_is_told() -> None:
    """It displaces nothing that holds; where nothing does, it is what there is to say."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0), 0)
    told(merged, "chrony", BodyUpdate(clock_status=ClockStatus.UNKNOWN), 10)
    contents = told(merged, "chrony", BodyUpdate(clock_status=ClockStatus.INITIALIZING), 20)
    assert contents.body.clock_status == ClockStatus.INITIALIZING


def test_estimated_error_stays_within_its_field() -> None:
    """An intersection that shifts the midpoint adds to an estimate that is as large as can be."""
    merged = merger("own")
    told(merged, "own", measurement(0, error_ns=1000), 0)
    contents = told(merged, "own", measurement(0, off_ns=900, time_esterror_nanosec=2**64 - 1), 0)
    assert contents.body.time_esterror_nanosec == 2**64 - 1
