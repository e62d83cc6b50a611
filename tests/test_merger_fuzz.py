"""No value that a valid update can hold ends the publisher: what one source says never ends what others say."""

import logging
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from kit.merging import Silent
from vmclock_async import BodyUpdate, CounterId, Flags, InvalidUpdateError, SegmentWriter, VMClockBody
from vmclock_async._publishing.agreement import Agreement
from vmclock_async._publishing.committer import Committer
from vmclock_async._publishing.complaints import Complaints
from vmclock_async._publishing.merger import Merger, Observed
from vmclock_async._publishing.standstill import Standstill
from vmclock_async.models import Contents
from vmclock_async.timebase import COUNTER_ID

LOG = logging.getLogger("vmclock_async.publisher")
U64 = st.sampled_from([0, 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 10**9, 2**34]) | st.integers(0, 2**64 - 1)
U8 = st.integers(0, 5) | st.integers(0, 255)
COUNTERS = st.sampled_from([COUNTER_ID, COUNTER_ID, CounterId.INVALID, 0, 1, 7])
I16 = st.sampled_from([-37, -36, 37, 0, -1, -0x8000, 0x7FFF])
SECONDS = st.integers(1_790_000_000, 1_790_000_100) | st.sampled_from([1_790_812_799, 1_790_812_800]) | U64
PERIODS = st.sampled_from([2**63, 2**63 // 5 * 7, 0, 1]) | U64
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "disruption_marker": st.integers(0, 3) | U64,
    "flags": U64.map(Flags),
    "clock_status": st.sampled_from([2, 2, 3]) | U8,
    "leap_second_smearing_hint": U8,
    "tai_offset_sec": st.none() | I16,
    "leap_indicator": U8,
    "counter_period_shift": st.sampled_from([30, 31, 0, 63, 64]) | U8,
    "counter_value": st.integers(0, 10**10) | U64,
    "counter_period_frac_sec": PERIODS,
    "counter_period_esterror_rate_frac_sec": st.none() | U64,
    "counter_period_maxerror_rate_frac_sec": st.none() | st.integers(0, 2**40) | U64,
    "time_sec": SECONDS,
    "time_frac_sec": U64,
    "time_esterror_nanosec": st.none() | st.integers(0, 10**6) | U64,
    "time_maxerror_nanosec": st.none() | st.integers(0, 10**6) | U64,
    "vm_generation_counter": st.none() | U64,
    "counter_id": COUNTERS,
    "time_type": st.sampled_from([0, 1, 0, 1, 2, 4]) | U8,
}
UPDATES = st.fixed_dictionaries({}, optional=FIELDS).map(BodyUpdate.model_validate)
WHOLE = st.fixed_dictionaries(FIELDS).map(BodyUpdate.model_validate)
"""Those of a source that says everything at once."""


@st.composite
def pages(draw: st.DrawFn) -> BodyUpdate:
    """A device's page, of any size and with any flags."""
    body = draw(WHOLE).applied_to(VMClockBody())
    if draw(st.booleans()):
        body = body.model_copy(update={"vm_generation_counter": None})  # a page of 104 bytes
    body = body.model_copy(update={"flags": Flags(draw(U64))})
    if body.vm_generation_counter is not None:
        body = body.model_copy(update={"flags": Flags(body.flags | Flags.VM_GEN_COUNTER_PRESENT)})
    return BodyUpdate.from_body(body, counter_id=draw(st.none() | COUNTERS), time_type=draw(st.none() | U8))


ANY = WHOLE | UPDATES | pages()
STEPS = st.lists(st.tuples(st.integers(0, 2), ANY, st.integers(0, 10**10) | U64), max_size=8)


pytestmark = pytest.mark.usefixtures("quiet_log")


@pytest.mark.long
@given(steps=STEPS, left=ANY, cold=st.booleans(), closes=st.booleans())
@settings(max_examples=100, deadline=None)
def test_no_value_raises_in_merging(
    steps: list[tuple[int, BodyUpdate, int]], left: BodyUpdate, cold: bool, closes: bool
) -> None:
    """Any updates from three sources, at any counter values, on any segment, make bodies that a page can hold.

    And the same ones where the sources are compared.
    """
    contents = Contents(VMClockBody(), 0, 0) if cold else Contents(VMClockBody(), 0, 0).updated(left)
    merger, compared = (Merger(("0", "1", "2"), contents, cold=cold) for _ in range(2))
    agreement = Agreement("012", Complaints(LOG))
    for source, update, counter in steps:
        for each in (merger, compared):
            each.notice(Observed(counter))
            each.hear(str(source), update)
        found = merger.compose()
        found.body.pack()
        VMClockBody.model_validate(found.body.__dict__)
        merger.committed()
        assert compared.compose() == found
        agreement.compare(compared.claims())
        compared.committed()
    if closes:
        merger.final_contents().body.pack()


class Device(Silent):
    """A source whose marker can be asked for, whatever its page says."""

    marker = 7

    def disruption_marker(self) -> int | None:
        return self.marker


@pytest.mark.long
@given(
    updates=st.lists(
        st.tuples(st.sampled_from(["device", "strange", "other"]), ANY, st.integers(0, 2)), max_size=8
    )
)
@settings(max_examples=50, deadline=None)
def test_device_goes_on_whatever_else_is_said(
    tmp_path_factory: pytest.TempPathFactory, updates: list[tuple[str, BodyUpdate, int]]
) -> None:
    """Each update is committed, or is its source's own fault, which no page is; the marker goes on being published."""
    path = tmp_path_factory.mktemp("fuzz") / "shm0"
    device = Device()
    with SegmentWriter(path, size=112) as writer:
        committer = Committer(
            writer, {"device": device, "strange": Silent(), "other": Silent()}, standstill=Standstill(1.0)
        )
        for name, update, disruptions in updates:
            try:
                committer.publish(name, update, None)
            except InvalidUpdateError:
                assert not update.verbatim
            device.marker += disruptions
            committer.publish_due()
            assert writer.body.disruption_marker % 2**32 == device.marker
            assert VMClockBody.unpack(writer.body.pack()) == writer.body
        committer.close()
