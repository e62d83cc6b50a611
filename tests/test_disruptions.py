"""The marker that is published, and the epochs that disruptions begin."""

import pytest

from kit.merging import committed, measurement, merger, page, told
from vmclock_async import ClockStatus, TimeType, VMClockBody
from vmclock_async._publishing.merger import Merger, Observed
from vmclock_async.models import Contents
from vmclock_async.timebase import COUNTER_ID


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


def test_marker_that_goes_back_is_a_new_one() -> None:
    """QEMU repeats markers; what is published never repeats, and its low half is still the device's."""
    merged = merger("device")
    published = [
        told(merged, "device", page(disruption_marker=marker), 0).body.disruption_marker for marker in (7, 8, 7)
    ]
    assert published == [7, 8, 7 + 2**32]
