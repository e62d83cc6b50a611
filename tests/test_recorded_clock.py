"""A clock over a recording: what programs saw at any moment of it, in virtual time."""

import datetime
import gzip
from pathlib import Path

import anyio
import pytest
import trio
import trio.testing

from vmclock_async import ClockStaleError, ClockStatus, RecordingError, SegmentError
from vmclock_async.events import Disrupted, Event, Restored, StatusChanged
from vmclock_async.recording import Record, RecordingHeader, RecordingWriter
from vmclock_async.testing import ManualClock, RecordedClock

pytestmark = pytest.mark.anyio

S = 10**9


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Record], list[int]]:
    """A recording of a minute in which the machine is restored, loses its time and has it again; and true time."""
    path = tmp_path_factory.mktemp("incident") / "incident.jsonl"
    truth: list[int] = []
    with ManualClock(follow_loop=False) as machine:
        snapshot = machine.snapshot()
        header = RecordingHeader(
            format="vmclock-recording",
            version=1,
            counter_id=snapshot.counter_id,
            time_type=snapshot.time_type,
            segment_size=snapshot.size,
            created=datetime.datetime(2026, 1, 15, tzinfo=datetime.UTC),
        )
        began_ns = machine.utc_ns
        records: list[Record] = []
        with RecordingWriter(path, header) as writer:

            def note() -> None:
                snapshot = machine.snapshot()
                records.append(
                    Record(
                        t_ns=machine.utc_ns - began_ns,
                        counter=machine.counter_ticks(),
                        seq_count=snapshot.seq_count,
                        body=snapshot.body,
                    )
                )
                writer.write(records[-1])
                truth.append(machine.utc_ns)

            for second in range(60):
                if second == 20:
                    machine.restore()
                if second == 30:
                    machine.lose_sync()
                if second == 40:
                    machine.regain_sync()
                note()
                machine.advance(1)
    return path, records, truth


def test_now_contains_true_time_at_any_moment(incident: tuple[Path, list[Record], list[int]]) -> None:
    """At each record, between two, and after the last as long as its reference is not too old."""
    path, records, truth = incident
    with RecordedClock(path, follow_loop=False) as clock:
        assert clock.duration_ns == records[-1].t_ns == 59 * S
        for moment_ns in range(0, 70 * S, S // 4):
            assert clock.elapsed_ns == moment_ns
            interval = clock.now()
            assert interval.earliest_ns <= truth[0] + moment_ns <= interval.latest_ns
            clock.advance(0.25)
        clock.advance(1000)
        with pytest.raises(ClockStaleError):
            clock.now()


def test_it_has_all_that_a_clock_has(incident: tuple[Path, list[Record], list[int]]) -> None:
    """Stamps, the status, the snapshot, the age; and no fence, because a recording holds no device."""
    path, records, truth = incident
    with RecordedClock(path, follow_loop=False) as clock:
        clock.advance(35)
        assert clock.status == ClockStatus.FREERUNNING
        assert clock.snapshot().body == records[35].body
        assert 5 * S <= clock.age_ns < 7 * S
        stamp = clock.counter_ticks()
        clock.advance(2.5)
        for interval in (clock.at(stamp), clock.at_monotonic(35 * S)):
            assert interval.earliest_ns <= truth[35] <= interval.latest_ns
        assert not clock.fenced
        assert str(path) in repr(clock)
    with pytest.raises(SegmentError, match="the clock is closed"):
        clock.now()


async def test_events_play_one_by_one_however_far_time_jumps(
    incident: tuple[Path, list[Record], list[int]],
) -> None:
    """No record is skipped, so each event has the snapshot that showed it."""
    path, records, _ = incident
    seen: list[Event] = []
    with RecordedClock(path, follow_loop=False) as clock:
        async with clock.events() as events:
            clock.advance(3600)
            with anyio.fail_after(5):
                async for happened in events:
                    seen.append(happened)
                    if len(seen) == 4:
                        break
    assert [type(happened) for happened in seen] == [Disrupted, Restored, StatusChanged, StatusChanged]
    assert [happened.snapshot.body for happened in seen] == [
        records[20].body,
        records[20].body,
        records[30].body,
        records[40].body,
    ]


def test_it_runs_with_trios_mock_clock(incident: tuple[Path, list[Record], list[int]]) -> None:
    """An hour's incident is over at once, and each event comes at its time."""
    path, _, _ = incident
    times: list[float] = []

    async def main() -> None:
        with RecordedClock(path) as clock:
            began = trio.current_time()
            async with clock.events() as events:
                while len(times) < 4:
                    await events.receive()
                    times.append(trio.current_time() - began)
            status = await clock.wait_status("SYNCHRONIZED")
            assert status.body.clock_status == ClockStatus.SYNCHRONIZED
            await clock.wait_past((await clock.wait_bounded()).latest_ns)

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    assert times == pytest.approx([20, 20, 30, 40])


def test_recording_without_counter_values_plays_from_its_references(
    incident: tuple[Path, list[Record], list[int]], tmp_path: Path
) -> None:
    """The counter begins at the first body's, and runs as fast as the page says."""
    path, records, truth = incident
    bare = tmp_path / "bare.jsonl.gz"
    lines = path.read_text().splitlines()
    without = [Record(**{**dict(record), "counter": None}).model_dump_json() for record in records[1:]]
    bare.write_bytes(gzip.compress("\n".join([lines[0], lines[1], *without, ""]).encode()))
    with RecordedClock(bare, follow_loop=False) as clock:
        for second in range(60):
            interval = clock.now()
            assert interval.earliest_ns <= truth[second] <= interval.latest_ns
            clock.advance(1)


def test_recordings_that_cannot_be_played_are_refused(
    incident: tuple[Path, list[Record], list[int]], tmp_path: Path
) -> None:
    """One without a record, and what is none; an age that is out of range."""
    path, _, _ = incident
    empty = tmp_path / "empty.jsonl"
    empty.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(RecordingError, match="no record"):
        RecordedClock(empty)
    with pytest.raises(RecordingError):
        RecordedClock(tmp_path / "nothing")
    with pytest.raises(ValueError, match="max_age"):
        RecordedClock(path, max_age=0)
