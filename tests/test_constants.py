"""What a segment keeps for life, as UAPI.13 lets readers take it: the timescale and the counter it has begun with."""

from collections.abc import Callable, Sequence

import pytest

from kit.merging import COLD, NOW_NS, SECOND, assert_given, committed, composed, measurement, merger, page, told
from vmclock_async import BodyUpdate, ClockStatus, CounterId, Flags, LeapIndicator, TimeType, VMClockBody
from vmclock_async._publishing.merger import Merger, Observed
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import COUNTER_ID

OTHER_COUNTER = CounterId.ARM_VCNT if COUNTER_ID == CounterId.X86_TSC else CounterId.X86_TSC
OFFSET_S = -37
Kind = Callable[..., BodyUpdate]
MONTH_END_NS = 1_790_812_800 * SECOND
"""2026-10-01T00:00:00Z."""


def tai(counter: int, **more: int | None) -> BodyUpdate:
    """True time at *counter*, in TAI."""
    update = measurement(counter, off_ns=-OFFSET_S * SECOND).model_dump(exclude_unset=True)
    return BodyUpdate.model_validate(update | {"time_type": TimeType.TAI, "tai_offset_sec": OFFSET_S} | more)


def utc(counter: int, **more: int | None) -> BodyUpdate:
    """True time at *counter*, in UTC."""
    return BodyUpdate.model_validate(measurement(counter).model_dump(exclude_unset=True) | more)


def assert_true_for_all(contents: Contents, began: Contents, at: int) -> None:
    """A reader that took the constants of *began* for constant is given the same true interval as any other."""
    assert (contents.counter_id, contents.time_type) == (began.counter_id, began.time_type)
    assert_given(contents, at, at - 100, at + 100)


@pytest.mark.parametrize(
    "kinds",
    [(utc, tai), (tai, utc), (utc, tai, utc, tai), (tai, utc, tai, utc)],
    ids=lambda kinds: kinds[0].__name__,
)
def test_timescale_stays_when_the_kernel_learns_its_offset_or_forgets_it(kinds: Sequence[Kind]) -> None:
    """The time is turned into what the segment has begun with, and is the same to the nanosecond."""
    merged = merger("chrony")
    began = told(merged, "chrony", kinds[0](0), 0)
    for at, kind in enumerate(kinds[1:], start=1):
        assert_true_for_all(told(merged, "chrony", kind(at), at), began, at)


def test_timescale_of_a_time_without_a_bound_stays() -> None:
    """A daemon that writes no bound gives a time that other readers use; they may take its timescale for constant."""
    merged = merger("kernel")
    unbounded = BodyUpdate.model_validate(utc(0).model_dump(exclude_unset=True) | {"time_maxerror_nanosec": None})
    began = told(merged, "kernel", unbounded, 0)
    assert not began.body.flags & Flags.TIME_MAXERROR_VALID
    assert_true_for_all(told(merged, "kernel", tai(1), 1), began, 1)


@pytest.mark.parametrize(("first", "then"), [(utc, tai), (tai, utc)])
def test_timescale_outlives_the_publisher(first: Kind, then: Kind) -> None:
    """A warm start keeps it, also where what is there has become void or stale."""
    merged = merger("chrony")
    began = told(merged, "chrony", first(0), 0)
    merged.notice(Observed(1, broken="suspended"))
    left = committed(merged)
    for contents in (began, left):
        for at in (2, 900 * SECOND):
            warm = merger("chrony", contents=contents)
            found = told(warm, "chrony", then(at), at)
            assert found.time_type == began.time_type
            assert_given(found, at, at - 100, at + 100)


def test_source_in_the_other_timescale_takes_over_in_the_segments() -> None:
    """Two sources that disagree on the timescale are one segment, also while only a status or a calendar comes."""
    merged = merger("first", "second")
    began = told(merged, "first", tai(0), 0)
    at = 6 * SECOND
    assert_true_for_all(told(merged, "second", utc(at), at), began, at)
    assert_true_for_all(told(merged, "second", BodyUpdate(leap_indicator=0), at), began, at)
    assert_true_for_all(told(merged, "second", BodyUpdate(tai_offset_sec=-38), at), began, at)
    assert_true_for_all(told(merged, "second", BodyUpdate(clock_status=ClockStatus.FREERUNNING), at), began, at)


def test_page_without_a_time_fixes_nothing() -> None:
    """A device that tells of disruptions alone says UTC because it is zero; the segment begins with the first time."""
    merged = merger("device", "status", "chrony")
    contents = told(merged, "device", page(disruption_marker=7), 0)
    assert contents.counter_id == COUNTER_ID, "INVALID would say that this machine's counter became unfit"
    told(merged, "status", BodyUpdate(clock_status=ClockStatus.INITIALIZING), 0)
    contents = told(merged, "chrony", tai(0), 0)
    assert (contents.counter_id, contents.time_type) == (COUNTER_ID, TimeType.TAI)


@pytest.mark.parametrize(
    "strange",
    [
        {"counter_id": OTHER_COUNTER},
        {"time_type": TimeType.MONOTONIC},
        {"time_type": TimeType.INVALID_MAYBE_SMEARED},
        {"time_type": 77},
        {"time_type": TimeType.TAI},
        {"time_type": TimeType.TAI, "tai_offset_sec": 37},
        {"time_type": TimeType.TAI, "tai_offset_sec": -37, "time_sec": 5},
    ],
)
def test_time_that_is_none_in_the_segments_constants_is_void(
    strange: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    """Smeared time in place of UTC, another counter: a reader that looks at neither again is given none."""
    merged = merger("own")
    began = told(merged, "own", utc(0), 0)
    contents = told(merged, "own", utc(1, **strange), 1)
    assert (contents.counter_id, contents.time_type) == (began.counter_id, began.time_type)
    assert contents.body.clock_status == ClockStatus.UNKNOWN
    assert not contents.body.flags & (Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID)
    assert "own tells a time in " in caplog.text
    assert composed(merged, 2).body.clock_status == ClockStatus.UNKNOWN
    assert_true_for_all(told(merged, "own", utc(3, counter_id=COUNTER_ID, time_type=0), 3), began, 3)


def test_time_without_its_offset_comes_when_the_offset_does() -> None:
    """A TAI time that waits for a calendar is published, newly nested, when another source brings one."""
    merged = merger("own", "calendar")
    began = told(merged, "own", utc(0), 0)
    bare = {
        name: value for name, value in tai(1).model_dump(exclude_unset=True).items() if name != "tai_offset_sec"
    }
    assert told(merged, "own", BodyUpdate(**bare), 1).body.clock_status == ClockStatus.UNKNOWN
    assert_true_for_all(told(merged, "calendar", BodyUpdate(tai_offset_sec=OFFSET_S), 1), began, 1)


def at_month_end(kind: Kind, before_ns: int, **more: int | None) -> tuple[BodyUpdate, int]:
    """A time so much before the month's end (after it: negative), and its counter value."""
    counter = MONTH_END_NS - NOW_NS - before_ns
    return kind(counter, **more), counter


@pytest.mark.parametrize(
    ("announced", "after"),
    [(LeapIndicator.NONE, -37), (LeapIndicator.PRE_POS, -38), (LeapIndicator.PRE_NEG, -36)],
)
def test_offset_changes_as_announced_at_a_months_end(announced: LeapIndicator, after: int) -> None:
    """A kernel that forgot its offset: the last known one goes on, by the leap second that was announced."""
    merged = merger("own")
    update, at = at_month_end(tai, 5 * SECOND, leap_indicator=announced)
    told(merged, "own", update, at)
    update, at = at_month_end(utc, -5 * SECOND, tai_offset_sec=None, leap_indicator=0)
    contents = told(merged, "own", update, at)
    assert (contents.time_type, contents.body.tai_offset_sec) == (TimeType.TAI, after)
    assert contents.body.clock_status == ClockStatus.SYNCHRONIZED
    assert_given(contents, at, at - 100, at + 100)


def test_tai_is_let_go_of_when_nobody_knows_the_offset_and_nobody_has_a_time() -> None:
    """An old body of another month: the segment begins again, and says that its offset is not valid."""
    merged = merger("own")
    update, at = at_month_end(tai, 2000 * SECOND)
    left = told(merged, "own", update, at)
    update, at = at_month_end(utc, -5 * SECOND, tai_offset_sec=None)
    contents = told(merger("own", contents=left), "own", update, at)
    assert contents.time_type == TimeType.UTC
    assert not contents.body.flags & Flags.TAI_OFFSET_VALID
    assert_given(contents, at, at - 100, at + 100)
    again, at = at_month_end(tai, -6 * SECOND)
    warm = merger("own", contents=contents)
    assert told(warm, "own", again, at).time_type == TimeType.UTC


def test_unfit_counter_is_the_one_change_of_the_counter() -> None:
    """INVALID is the publisher's answer to a counter that became unfit, and ends when it is fit again."""
    merged = merger("chrony")
    began = told(merged, "chrony", tai(0), 0)
    unfit = told(merged, "chrony", BodyUpdate(counter_id=CounterId.INVALID), 1)
    assert (unfit.counter_id, unfit.time_type) == (CounterId.INVALID, TimeType.TAI)
    assert_true_for_all(told(merged, "chrony", utc(2), 2), began, 2)
    warm = merger("chrony", contents=unfit)
    assert_true_for_all(told(warm, "chrony", utc(2), 2), began, 2)


def test_constants_that_a_source_said_once_are_its_own() -> None:
    """A source that says TAI once, and then that the counter was unfit for a while, still tells TAI."""
    merged = merger("first", "second")
    began = told(merged, "first", utc(0), 0)
    told(merged, "second", tai(0), 0)
    told(merged, "second", BodyUpdate(counter_id=CounterId.INVALID), 1)
    at = 6 * SECOND
    bare = tai(at).model_dump(exclude_unset=True, exclude={"counter_id", "time_type", "tai_offset_sec"})
    assert_true_for_all(told(merged, "second", BodyUpdate.model_validate(bare), at), began, at)
    assert merged.groups["time"] == "second"


def test_page_that_tells_no_time_does_not_make_the_counter_unfit() -> None:
    """Neither before there is a time, nor after the page's own: a reader that looked then would stay without one."""
    merged = merger("device", "chrony")
    body = utc(0).applied_to(VMClockBody(disruption_marker=7))
    told(merged, "device", BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=0), 0)
    contents = told(merged, "device", page(disruption_marker=7), 1)
    assert (contents.counter_id, contents.body.clock_status) == (COUNTER_ID, ClockStatus.UNKNOWN)


def test_relayed_pages_have_their_own_constants() -> None:
    """What is replayed speaks for itself, bit for bit; a merged time after it keeps what the page has begun with."""
    merged = merger("replay")
    for kind, time_type in ((tai, TimeType.TAI), (utc, TimeType.UTC), (tai, TimeType.TAI)):
        body = kind(0).applied_to(VMClockBody(disruption_marker=7))
        update = BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=time_type)
        assert merged.relay(update) == Contents(body, COUNTER_ID, time_type)
    began = merged.contents
    after = Merger(("chrony",), began, cold=False)
    assert_true_for_all(told(after, "chrony", utc(5), 5), began, 5)


def test_cold_start_begins_again() -> None:
    """Nobody can have looked at what a cold segment says."""
    assert COLD.time_type == TimeType.UTC
    contents = told(merger("chrony"), "chrony", tai(0), 0)
    assert contents.time_type == TimeType.TAI
    assert bounds_at(contents, 0, counter_id=COUNTER_ID).midpoint_ns == NOW_NS
