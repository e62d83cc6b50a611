"""From updates to commits: which updates make one, and what is left behind at the end."""

import time
from pathlib import Path
from typing import Any

import anyio
import pytest

from kit.merging import Silent
from kit.publishing import a_page, publish, published, time_fields, until
from kit.sources import Scripted, measured, saying
from kit.waits import settled
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    Emit,
    Flags,
    InvalidUpdateError,
    Publisher,
    SegmentReader,
    SegmentWriter,
    TimeType,
    VMClockBody,
)
from vmclock_async._publishing.committer import Committer
from vmclock_async._publishing.standstill import Standstill
from vmclock_async.reckoning import bounds_at, gives_interval
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID


@pytest.fixture
def void_segment(segment_path: Path) -> Path:
    """A segment that says nothing but that its marker is 7."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(VMClockBody(disruption_marker=7))
    return segment_path


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


@pytest.mark.anyio
async def test_sole_page_is_relayed_whatever_it_says(segment_path: Path) -> None:
    """A recording of another machine is copied bit for bit, its period too."""
    page = a_page(time_fields() | {"counter_period_frac_sec": 2**62, "time_frac_sec": 7})
    snapshot = await published(segment_path, {"replay": saying(page)})
    assert (snapshot.body.counter_period_frac_sec, snapshot.body.time_frac_sec) == (2**62, 7)
    assert snapshot.counter_id == COUNTER_ID


@pytest.mark.anyio
async def test_of_several_sources_what_changes_nothing_is_no_commit(void_segment: Path) -> None:
    """Readers are not woken for a measurement that is not the one published."""

    async def quiet(emit: Emit) -> None:
        for _ in range(10):
            await emit(measured(error_ns=10**7))
        told.set()

    async def chosen(emit: Emit) -> None:
        await emit(measured())
        await first.wait()

    first, told = anyio.Event(), anyio.Event()
    commits: list[int] = []

    async def meanwhile(publisher: Publisher) -> None:
        await until(void_segment, ClockStatus.SYNCHRONIZED)
        await told.wait()
        commits.append(publisher.statistics().commits)
        first.set()

    await publish(void_segment, {"chosen": Scripted(chosen), "quiet": Scripted(quiet)}, meanwhile)
    assert commits[0] <= 2


@pytest.mark.anyio
async def test_update_of_an_ended_epoch_is_dropped(segment_path: Path) -> None:
    """A measurement from before a disruption is dropped; one of the new epoch is not."""

    async def script(emit: Emit) -> None:
        await emit(BodyUpdate(disruption_marker=1))  # a new segment's first marker is no disruption
        epoch = emit.epoch
        await emit(BodyUpdate(counter_value=1), epoch=epoch)
        await emit(BodyUpdate(disruption_marker=2))
        await settled()
        await emit(BodyUpdate(counter_value=2), epoch=epoch)
        await emit(BodyUpdate(time_sec=3), epoch=emit.epoch)

    publisher = Publisher(segment_path, {"meter": Scripted(script)})
    await publisher.run()
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert (snapshot.body.counter_value, snapshot.body.time_sec, snapshot.seq_count) == (1, 3, 8)
    assert publisher.statistics().sources["meter"].dropped == 1


@pytest.mark.long
@pytest.mark.anyio
async def test_quiet_source_is_told_without_an_update(void_segment: Path) -> None:
    """A measurement turns five seconds old while nobody says anything: FREERUNNING, and the same reference."""

    update = measured(age_ns=4_800_000_000)

    async def script(emit: Emit) -> None:
        await emit(update)
        await anyio.sleep_forever()

    async def meanwhile(publisher: Publisher) -> None:
        after = await until(void_segment, ClockStatus.FREERUNNING)
        for name in ("counter_value", "time_sec", "time_frac_sec", "time_maxerror_nanosec"):
            assert getattr(after, name) == getattr(update, name)
        assert publisher.statistics().sources["clock"].updates == 1

    await publish(void_segment, {"clock": Scripted(script)}, meanwhile)


@pytest.mark.anyio
async def test_clean_stop_leaves_a_time_that_runs_free(void_segment: Path) -> None:
    """Cancelled, the publisher turns SYNCHRONIZED into FREERUNNING; readers keep an interval that holds."""

    async def script(emit: Emit) -> None:
        await emit(measured())
        await anyio.sleep_forever()

    async def meanwhile(publisher: Publisher) -> None:
        await until(void_segment, ClockStatus.SYNCHRONIZED)

    await publish(void_segment, {"clock": Scripted(script)}, meanwhile)
    with SegmentReader(void_segment) as reader:
        assert reader.snapshot().body.clock_status == ClockStatus.FREERUNNING
        before = time.time_ns()
        snapshot, counter = reader.sample()
        bounds = bounds_at(snapshot, counter, counter_id=COUNTER_ID)
        assert bounds.earliest_ns <= time.time_ns()
        assert before <= bounds.latest_ns


@pytest.mark.anyio
@pytest.mark.parametrize(
    "values", [{"time_maxerror_nanosec": -1}, {"time_sec": 2**64}, {"tai_offset_sec": 40_000}, {"flags": "x"}]
)
@pytest.mark.parametrize("is_validated", [True, False])
async def test_nonsense_after_good_time_leaves_time_that_runs_free(
    values: dict[str, Any], is_validated: bool, void_segment: Path
) -> None:
    """The run ends with one error that names the source, and the last good time is left behind as it should be.

    So it does when the source's own code refuses its values, and when they are refused only on their way to the page.
    """

    async def script(emit: Emit) -> None:
        update = measured()
        await emit(update)
        spoken = {name: getattr(update, name) for name in update.model_fields_set}
        await emit(
            update.model_copy(update=values)
            if is_validated
            else BodyUpdate.model_construct(**{**spoken, **values})
        )

    with pytest.raises(InvalidUpdateError, match=next(iter(values))):
        await Publisher(void_segment, {"own": Scripted(script)}).run()
    with SegmentReader(void_segment) as reader:
        body = reader.snapshot().body
    assert body.clock_status == ClockStatus.FREERUNNING
    assert body.flags & Flags.TIME_MAXERROR_VALID


@pytest.mark.anyio
@pytest.mark.parametrize("offset_s", [0, -37])
async def test_timescale_outlives_a_commit_that_was_interrupted(offset_s: int, segment_path: Path) -> None:
    """A writer that died in mid-commit, its repair, and the publisher after that: the segment's timescale stays."""
    fields = time_fields()
    tai = fields | {"time_type": TimeType.TAI, "tai_offset_sec": -37, "time_sec": fields["time_sec"] + 37}
    kinds = [BodyUpdate.model_validate(kind) for kind in (fields | {"tai_offset_sec": -37}, tai)]
    first, other = kinds if offset_s == 0 else reversed(kinds)
    began = await published(segment_path, {"meter": saying(first)})
    page = bytearray(segment_path.read_bytes())
    page[0x0C:0x10] = (began.seq_count + 1).to_bytes(4, "little")
    segment_path.write_bytes(page)
    await published(segment_path, {"status": saying(BodyUpdate(clock_status=ClockStatus.INITIALIZING))})
    snapshot = await published(segment_path, {"meter": saying(other)})
    assert snapshot.time_type == began.time_type
    assert gives_interval(snapshot, fields["counter_value"], counter_id=COUNTER_ID)
    assert (snapshot.body.time_sec, snapshot.body.tai_offset_sec) == (began.body.time_sec, -37)
