"""What becomes of updates in a segment, seen through the publisher alone; on every event loop."""

import logging
import os
import re
from pathlib import Path

import anyio
import pytest

from kit.publishing import assert_at_rest
from kit.sources import Scripted, counting_up, emitting, raising
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    Emit,
    Flags,
    Publisher,
    SegmentError,
    SegmentInUseError,
    SegmentReader,
    SegmentWriter,
    SourceError,
    SourceUnavailableError,
    VMClockBody,
)
from vmclock_async.testing._bodies import measured_here
from vmclock_async.timebase import COUNTER_ID


@pytest.mark.anyio
async def test_updates_merge_field_by_field(segment_path: Path) -> None:
    """What an update does not speak for stays as it was."""
    source = emitting(
        BodyUpdate(disruption_marker=7, clock_status=2, time_maxerror_nanosec=10),
        BodyUpdate(clock_status=3),
        BodyUpdate(time_maxerror_nanosec=None, tai_offset_sec=-37, time_type=1, counter_id=1),
    )
    await Publisher(segment_path, [source]).run()
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert snapshot.seq_count == 6
    assert (snapshot.counter_id, snapshot.time_type, snapshot.size) == (1, 1, 112)
    assert snapshot.body.disruption_marker == 7
    assert snapshot.body.clock_status == ClockStatus.FREERUNNING
    assert snapshot.body.flags == Flags.TAI_OFFSET_VALID
    assert_at_rest(segment_path)


@pytest.mark.anyio
async def test_every_update_is_a_commit_of_its_own_in_order(segment_path: Path) -> None:
    """Each update is one commit: a reader that looks after each sees each, two numbers further on."""
    with SegmentWriter(segment_path, size=112) as writer:
        start = writer.write(VMClockBody())
    seen: list[tuple[int, int]] = []

    async def script(emit: Emit) -> None:
        with SegmentReader(segment_path) as reader:
            seq_count = start
            for number in range(1, 50):
                await emit(BodyUpdate(counter_value=number))
                snapshot = await reader.wait_changed(seq_count)
                seq_count = snapshot.seq_count
                seen.append((seq_count, snapshot.body.counter_value))

    with anyio.fail_after(20):
        await Publisher(segment_path, [Scripted(script)]).run()
    assert seen == [(start + 2 * number, number) for number in range(1, 50)]


@pytest.mark.anyio
async def test_equal_bodies_are_committed_too(segment_path: Path) -> None:
    """An update that changes nothing still moves seq_count by two."""
    publisher = Publisher(segment_path, [emitting(*[BodyUpdate(clock_status=2)] * 5)])
    await publisher.run()
    assert publisher.statistics().seq_count == 10
    assert publisher.statistics().commits == 5


@pytest.mark.anyio
async def test_body_is_published_verbatim(segment_path: Path) -> None:
    """A body from from_body() arrives bit for bit, flags that no value explains included."""
    body = VMClockBody(tai_offset_sec=37, flags=Flags(1 << 60), clock_status=200, vm_generation_counter=5)
    await Publisher(segment_path, [emitting(BodyUpdate.from_body(body, counter_id=0xFF, time_type=9))]).run()
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert snapshot.body == body
    assert (snapshot.counter_id, snapshot.time_type) == (0xFF, 9)


@pytest.mark.anyio
async def test_warm_start_goes_on_from_the_last_body(segment_path: Path) -> None:
    """A publisher that starts on a segment of its predecessor merges onto what that one left."""
    await Publisher(segment_path, [emitting(BodyUpdate(disruption_marker=3, clock_status=2))]).run()
    await Publisher(segment_path, [emitting(BodyUpdate(clock_status=3))]).run()
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert (snapshot.seq_count, snapshot.body.disruption_marker, snapshot.body.clock_status) == (4, 3, 3)


@pytest.mark.anyio
async def test_interrupted_segment_is_voided_at_once(segment_path: Path) -> None:
    """An odd seq_count is repaired by a void body with the marker kept, before any source has a time."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(VMClockBody(disruption_marker=9, clock_status=2, flags=Flags.TIME_MAXERROR_VALID))
    page = bytearray(segment_path.read_bytes())
    page[0x0C:0x10] = (3).to_bytes(4, "little")
    segment_path.write_bytes(page)

    async def unavailable(emit: Emit) -> None:
        raise SourceUnavailableError("scripted", "not there")

    with anyio.fail_after(5), SegmentReader(segment_path) as reader:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Publisher(segment_path, [Scripted(unavailable)]).run)
            body = (await reader.wait_changed(2)).body
            tasks.cancel_scope.cancel()
    assert body == VMClockBody(disruption_marker=9)


@pytest.mark.anyio
async def test_log_says_what_is_published_and_what_becomes_of_it(
    segment_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The start, the first bound, an outage, the recovery and the source of the time, each in one line."""
    caplog.set_level(logging.INFO, "vmclock_async.publisher")
    time_told = BodyUpdate(counter_id=COUNTER_ID, **measured_here())

    async def steady(emit: Emit) -> None:
        await emit(time_told)
        while first.runs < 3:
            await anyio.sleep(0.01)

    async def flapping(emit: Emit) -> None:
        if first.runs == 1:
            raise SourceUnavailableError("first", "no daemon yet")
        await emit(time_told)
        while publisher.statistics().groups["time"] != "first":
            await anyio.sleep(0.01)
        if first.runs == 2:
            raise SourceUnavailableError("first", "no daemon any more")

    first = Scripted(flapping)
    publisher = Publisher(segment_path, {"first": first, "second": Scripted(steady)})
    with anyio.fail_after(20):
        await publisher.run()
    told = [re.sub(r"\d+\.\d+", "N", record.getMessage()) for record in caplog.records]
    start = [f"publishing first, second to {segment_path}", "the time comes from second: +/- N ms, SYNCHRONIZED"]
    assert [line for line in told[:3] if line in start] == start
    assert set(told[:3]) - set(start) == {"first: no daemon yet; it is tried again"}  # told whenever it says so
    assert told[3:] == [
        "first: is there again, after N s",
        "the time comes from first: +/- N ms, SYNCHRONIZED",
        "first: no daemon any more; it is tried again",
        "first: is there again, after N s",
        "the time comes from first: +/- N ms, FREERUNNING",
    ]


@pytest.mark.anyio
async def test_publisher_runs_once_at_a_time(segment_path: Path) -> None:
    """A second run() beside the first is refused, and does not disturb it; one after the other is fine."""

    async def script(emit: Emit) -> None:
        await emit(BodyUpdate(clock_status=2))
        with pytest.raises(RuntimeError, match="running already"):
            await publisher.run()

    publisher = Publisher(segment_path, [Scripted(script)])
    await publisher.run()
    await publisher.run()
    assert publisher.statistics().commits == 2


@pytest.mark.anyio
async def test_failing_before_the_first_update_writes_nothing(segment_path: Path) -> None:
    """A run that cannot start leaves neither segment nor lock behind."""
    with pytest.raises(SourceError):
        await Publisher(segment_path, [raising(RuntimeError("no"))]).run()
    await Publisher(segment_path, [emitting()]).run()
    assert list(segment_path.parent.iterdir()) == []


@pytest.mark.anyio
async def test_segment_errors_come_out_bare(segment_path: Path) -> None:
    """A path that is no segment, or is another writer's, is the publisher's error, not a group's."""
    with pytest.raises(SegmentError, match="is a directory"):
        await Publisher(segment_path.parent, [Scripted(counting_up)]).run()
    with SegmentWriter(segment_path), pytest.raises(SegmentInUseError, match=f"process {os.getpid()}"):
        await Publisher(segment_path, [Scripted(counting_up)]).run()


def test_publisher_without_sources_is_refused(segment_path: Path) -> None:
    """Nothing to publish is a programming error."""
    with pytest.raises(ValueError, match="at least one source"):
        Publisher(segment_path, [])


def test_sources_of_one_class_get_names_of_their_own(segment_path: Path) -> None:
    """A list of sources goes by the names of their classes, numbered."""
    publisher = Publisher(segment_path, [emitting(), emitting()])
    assert list(publisher.statistics().sources) == ["Scripted", "Scripted-2"]
