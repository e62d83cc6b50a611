"""Live mode of the replay source: a recording moved to this machine's counter and the present."""

import time
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings, strategies as st

from kit.replays import NS, ROOT, SHIPPED, header, read, replay, timed, write
from kit.waits import BOUND_S
from vmclock_async import (
    BodyUpdate,
    ClockNotSynchronizedError,
    ClockStatus,
    CounterId,
    Publisher,
    SegmentReader,
    SegmentWriter,
    SourceUnavailableError,
    TimeType,
    VMClockBody,
)
from vmclock_async.abi import BODY_FIELDS
from vmclock_async.reckoning import bounds_at, reckon, ticks_between
from vmclock_async.recording import Record, RecordingHeader
from vmclock_async.timebase import COUNTER_ID, pair
from vmclock_replay.live import Anchor

RELIABLE = (ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING)


async def live(path: Path) -> tuple[list[Record], list[BodyUpdate], int]:
    """The records at *path*, what live mode makes of them, and CLOCK_REALTIME at the replay's beginning."""
    head, records = read(path)
    with anyio.fail_after(BOUND_S):
        anchor = await Anchor.drop(head)
    updates = [anchor.update(record) for record in records]
    # The first record's time is 0, so the counter that it was given is the one at the beginning.
    first = updates[0].applied_to(VMClockBody())
    now = pair(time.CLOCK_REALTIME)
    since = ticks_between(first.counter_value, now.counter_ticks) * first.counter_period_frac_sec
    return records, updates, now.clock_ns - (since * NS >> 64 + first.counter_period_shift)


def utc_ns(body: VMClockBody) -> int:
    """The reference time of *body*, as UTC if it is TAI with an offset."""
    return (body.time_sec + body.tai_offset_sec) * NS + (body.time_frac_sec * NS >> 64)


U64 = st.integers(0, 2**64 - 1)
ANY_BODY = st.fixed_dictionaries(
    dict.fromkeys(BODY_FIELDS, U64)
    | dict.fromkeys(("leap_second_smearing_hint", "leap_indicator", "counter_period_shift"), st.integers(0, 255))
    | {"tai_offset_sec": st.integers(-(2**15), 2**15 - 1), "clock_status": st.integers(0, 5)}
).map(VMClockBody.model_validate)
ANY_RECORD = st.builds(Record, t_ns=U64, counter=st.none() | U64, seq_count=st.just(2), body=ANY_BODY)


@pytest.mark.anyio
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
async def test_live_tells_what_was_told(path: Path) -> None:
    """All that is neither a measurement nor the counter's number is emitted in live mode as it was recorded."""
    records, updates, _ = await live(path)
    told = [name for name in BODY_FIELDS if not name.startswith(("counter_", "time_"))]
    for record, update in zip(records, updates, strict=True):
        body = update.applied_to(VMClockBody())
        assert [getattr(body, name) for name in told] == [getattr(record.body, name) for name in told]
        assert update.counter_id == COUNTER_ID


@pytest.mark.anyio
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
async def test_live_time_is_the_present(path: Path) -> None:
    """Where a reader may take the time it is the present, within the recorded bounds, hours after a snapshot too.

    The leap second comes again: after it UTC is a second behind.
    """
    records, updates, begun_ns = await live(path)
    first_ns = reckon(records[0].body, records[0].counter or 0).maxerror_ns
    reliable = reference = measured_ns = 0
    for record, update in zip(records, updates, strict=True):
        body = update.applied_to(VMClockBody())
        if body.counter_value != reference:
            reference, measured_ns = body.counter_value, record.t_ns
        if body.clock_status in RELIABLE:
            leapt_ns = NS if body.tai_offset_sec == -37 else 0
            off_ns = utc_ns(body) - (begun_ns + measured_ns - leapt_ns)
            # What the first measurement was off by stays; 1 ms is for this machine's clock, which may be slewed.
            assert abs(off_ns) < body.time_maxerror_nanosec + first_ns + 1_000_000
            reliable += 1
    assert reliable > 15


@pytest.mark.anyio
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
async def test_live_bounds_are_the_recorded_ones(path: Path) -> None:
    """The bound on time and on drift are what the recording has, and a little more for this machine's pairing."""
    records, updates, _ = await live(path)
    reference = 0
    for record, update in zip(records, updates, strict=True):
        then, now = record.body, update.applied_to(VMClockBody())
        if then.counter_value == reference:
            continue  # nothing was measured
        reference = then.counter_value
        recorded_ns = reckon(then, record.counter or 0).maxerror_ns
        assert recorded_ns < now.time_maxerror_nanosec < recorded_ns + 100_000
        share, live_share = (
            body.counter_period_maxerror_rate_frac_sec / body.counter_period_frac_sec for body in (then, now)
        )
        assert share <= live_share < 2 * share + 1e-3


@pytest.mark.anyio
async def test_live_keeps_a_body_that_was_kept() -> None:
    """A commit that measured nothing keeps the reference that the one before has; its bound grows as it did."""
    records, updates, _ = await live(ROOT / "examples/recordings/time-source-lost.jsonl")
    kept = 0
    previous: tuple[Record, VMClockBody] | None = None
    for record, update in zip(records, updates, strict=True):
        body = update.applied_to(VMClockBody())
        if record.body.clock_status == ClockStatus.FREERUNNING:
            assert previous is not None
            changed = {"clock_status": record.body.clock_status, "flags": record.body.flags}
            assert body == previous[1].model_copy(update=changed)
            kept += 1
        previous = record, body
    assert kept == 1


@pytest.mark.anyio
async def test_live_keeps_a_step(tmp_path: Path) -> None:
    """A clock that was stepped without a disruption is stepped on replay as well."""
    stepped = timed(NS, time_sec=1_577_836_800 + 11)
    path = write(tmp_path / "r.jsonl", [timed(0), stepped, timed(2 * NS)])
    _, updates, begun_ns = await live(path)
    off_s = [
        round((utc_ns(update.applied_to(VMClockBody())) - begun_ns) / NS - at) for at, update in enumerate(updates)
    ]
    assert off_s == [0, 10, 0]


@pytest.mark.anyio
async def test_live_time_begins_anew_with_the_first_reliable_time(tmp_path: Path) -> None:
    """At the start and after a disruption, what an unsynchronized clock said decides nothing."""
    wrong = {"time_sec": 86_400, "clock_status": ClockStatus.INITIALIZING}
    records = [
        timed(0, **wrong),
        timed(NS),
        timed(2 * NS, disruption_marker=1, **wrong),
        timed(3 * NS, disruption_marker=1, **wrong),
        timed(4 * NS, disruption_marker=1, time_sec=1_600_000_000),
    ]
    _, updates, begun_ns = await live(write(tmp_path / "r.jsonl", records))
    bodies = [update.applied_to(VMClockBody()) for update in updates]
    for at in (1, 4):
        assert abs(utc_ns(bodies[at]) - begun_ns - at * NS) < 100_000_000


@pytest.mark.anyio
async def test_live_without_a_recorded_counter(tmp_path: Path) -> None:
    """Without the recorder's counter a body is taken to be measured at its commit; a kept one is not renewed."""
    records = [
        timed(0),
        timed(3 * NS, **{name: getattr(timed(0).body, name) for name in ("counter_value", "time_sec")}),
        timed(4 * NS),
    ]
    records = [record.model_copy(update={"counter": None}) for record in records]
    _, updates, begun_ns = await live(write(tmp_path / "r.jsonl", records))
    bodies = [update.applied_to(VMClockBody()) for update in updates]
    assert bodies[1] == bodies[0]
    assert abs(utc_ns(bodies[2]) - begun_ns - 4 * NS) < 100_000_000


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("head", "changes"),
    [
        (header(counter_id=CounterId.INVALID), {}),
        (header(time_type=TimeType.MONOTONIC), {}),
        (header(time_type=TimeType.INVALID_SMEARED), {}),
        (header(), {"counter_period_frac_sec": 0}),
    ],
    ids=["no counter", "monotonic", "smeared", "no period"],
)
async def test_live_without_a_time(tmp_path: Path, head: RecordingHeader, changes: dict[str, int]) -> None:
    """A body with no time to be shifted is published as recorded, but with no counter: here it would be a lie."""
    record = timed(0, **changes)
    _, (update,), _ = await live(write(tmp_path / "r.jsonl", [record], head))
    assert update.applied_to(VMClockBody()) == record.body
    assert (update.counter_id, update.time_type) == (CounterId.INVALID, head.time_type)


@pytest.mark.long
@given(records=st.lists(ANY_RECORD, min_size=1, max_size=4))
@settings(deadline=None, max_examples=100)
def test_live_makes_a_valid_body_of_any(records: list[Record]) -> None:
    """Whatever is in a recording, live mode gives a body in the ABI's ranges."""
    before = pair(time.CLOCK_MONOTONIC)
    anchor = Anchor(header(time_type=TimeType.TAI), before, pair(time.CLOCK_MONOTONIC))
    for record in records:
        body = anchor.update(record).applied_to(VMClockBody())
        assert VMClockBody.model_validate(body.model_dump()) == body


def test_live_on_a_counter_that_went_back() -> None:
    """A machine that was restored meanwhile: unavailable for now, because a replay that begins again is right again."""
    now = pair(time.CLOCK_MONOTONIC)
    ahead = now._replace(counter_ticks=now.counter_ticks + 2**40)
    with pytest.raises(SourceUnavailableError, match="this machine's counter was disrupted"):
        Anchor(header(), ahead, ahead).update(timed(0))


@pytest.mark.anyio
async def test_live_into_a_segment(segment_path: Path, tmp_path: Path) -> None:
    """A reader takes the present from every commit of a live replay, as they come, but for the void one."""
    void = {"clock_status": ClockStatus.UNKNOWN, "flags": 0, "disruption_marker": 1}
    records = [
        *(timed(at * 20_000_000) for at in range(5)),
        timed(120_000_000, **void),
        *(timed(at * 20_000_000, disruption_marker=1, time_sec=1_600_000_000) for at in range(7, 10)),
    ]
    path = write(tmp_path / "r.jsonl", records)
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(VMClockBody(), counter_id=COUNTER_ID)
    seen: list[tuple[int, int]] = []

    async def follow(reader: SegmentReader) -> None:
        snapshot = reader.snapshot()
        while snapshot.seq_count < 2 + 2 * len(records):
            snapshot = await reader.wait_changed(snapshot.seq_count)
            now = pair(time.CLOCK_REALTIME)
            if snapshot.body.clock_status == ClockStatus.UNKNOWN:
                with pytest.raises(ClockNotSynchronizedError):
                    bounds_at(snapshot, now.counter_ticks, counter_id=COUNTER_ID)
            else:
                bounds = bounds_at(snapshot, now.counter_ticks, counter_id=COUNTER_ID)
                assert bounds.earliest_ns <= now.clock_ns <= bounds.latest_ns
                assert bounds.error_ns < 3_000_000
            seen.append((snapshot.seq_count, snapshot.body.disruption_marker))

    with anyio.fail_after(BOUND_S), SegmentReader(segment_path) as reader:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, reader)
            begun_s = anyio.current_time()
            await Publisher(segment_path, [replay(path, mode="live")]).run()
            assert anyio.current_time() - begun_s > 0.15
    assert seen[-1] == (2 + 2 * len(records), 1)
    assert seen == sorted(seen)
