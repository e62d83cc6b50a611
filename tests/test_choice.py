"""Of several sources, which one the time, the calendar and the marker come from."""

import pytest

from kit.merging import NOW_NS, SECOND, assert_given, composed, measurement, merger, page, told
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    CounterId,
    Flags,
    LeapIndicator,
    SmearingHint,
    TimeType,
    VMClockBody,
)
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import COUNTER_ID

YEAR_2027_NS = 1_798_761_600 * SECOND
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


# Each group has a source of its own


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


# Sources that go quiet, and sources without a time


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


def test_initializing_after_the_void_is_told() -> None:
    """It displaces nothing that holds; where nothing does, it is what there is to say."""
    merged = merger("chrony")
    told(merged, "chrony", measurement(0), 0)
    told(merged, "chrony", BodyUpdate(clock_status=ClockStatus.UNKNOWN), 10)
    contents = told(merged, "chrony", BodyUpdate(clock_status=ClockStatus.INITIALIZING), 20)
    assert contents.body.clock_status == ClockStatus.INITIALIZING


# Times that nobody here can use


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


# chrony, a host's clock, servers


@pytest.mark.parametrize("kind", USELESS)
def test_first_of_several_that_has_a_time_gives_it(kind: str) -> None:
    """Whatever those in front lack, they hide none behind them, and come back to the front with a time."""
    merged = merger("device", "chrony", "ptp", "ntp", "kernel")
    told(merged, "device", page(disruption_marker=7), 0)
    told(merged, "kernel", measurement(0, time_maxerror_nanosec=None), 0)
    told(merged, "ptp", useless(kind, 0), 0)
    told(merged, "chrony", BodyUpdate(clock_status=ClockStatus.INITIALIZING), 0)
    told(merged, "ntp", measurement(0), 0)
    assert merged.groups["time"] == "ntp"
    for at, (name, behind) in enumerate((("ptp", "ntp"), ("chrony", "ptp")), 1):
        told(merged, name, measurement(at), at)
        assert merged.groups["time"] == name
        told(merged, name, BodyUpdate(clock_status=ClockStatus.UNKNOWN), at)
        assert merged.groups["time"] == behind
        told(merged, name, measurement(at), at)
    assert_given(composed(merged, 3), 3, -97, 103)


@pytest.mark.parametrize("status", [ClockStatus.INITIALIZING, ClockStatus.UNKNOWN, ClockStatus.FREERUNNING])
def test_chronyd_that_was_never_synchronized_hides_no_clock_of_the_host(status: ClockStatus) -> None:
    """A status alone is no time, whichever comes first."""
    for first in ("chrony", "ptp"):
        merged = merger("chrony", "ptp")
        updates = {"chrony": BodyUpdate(clock_status=status), "ptp": measurement(0)}
        for name in (first, *(updates.keys() - {first})):
            told(merged, name, updates[name], 0)
        assert merged.groups["time"] == "ptp"
        assert_given(composed(merged, 1), 1, -99, 101)


def test_chronyd_that_has_lost_its_servers_gives_way() -> None:
    """Its last measurement runs free for the grace; then the host's clock, which measures on, is in front."""
    merged = merger("chrony", "ptp")
    told(merged, "chrony", measurement(0), 0)
    contents = told(merged, "chrony", BodyUpdate(clock_status=ClockStatus.FREERUNNING), SECOND)
    assert contents.body.clock_status == ClockStatus.FREERUNNING
    told(merged, "ptp", measurement(4 * SECOND), 4 * SECOND)
    assert merged.groups["time"] == "chrony"
    contents = told(merged, "ptp", measurement(6 * SECOND), 6 * SECOND)
    assert merged.groups["time"] == "ptp"
    assert contents.body.clock_status == ClockStatus.SYNCHRONIZED


def test_hint_about_smearing_changes_no_time() -> None:
    """It advises guests how to smear other clocks; the time beside it is UTC, counts, and brings its hint along."""
    merged = merger("chrony", "ptp")
    told(merged, "ptp", measurement(0), 0)
    smearing = {"leap_second_smearing_hint": SmearingHint.NOON_LINEAR}
    contents = told(merged, "chrony", measurement(0, **smearing), 0)
    assert merged.groups["time"] == "chrony"
    assert contents.body.leap_second_smearing_hint == SmearingHint.NOON_LINEAR
    assert_given(contents, 0, -100, 100)


def test_monotonic_flag_belongs_to_the_time() -> None:
    """A time that never goes back is as good as another; its flag goes with it, and with nothing else."""
    merged = merger("chrony", "ptp", "ntp")
    told(merged, "ntp", measurement(0), 0)
    contents = told(merged, "ptp", measurement(0, flags=Flags.TIME_MONOTONIC), 0)
    assert merged.groups["time"] == "ptp"
    assert contents.body.flags & Flags.TIME_MONOTONIC
    contents = told(merged, "chrony", measurement(1), 1)
    assert merged.groups["time"] == "chrony"
    assert not contents.body.flags & Flags.TIME_MONOTONIC
