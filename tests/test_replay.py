"""The replay source: into a real segment on every event loop, at an exact pace on a virtual clock, and live.

What is emitted, and when, is seen by an ``Emit`` that only takes notes. Where a test is about pace, trio's clock
jumps from deadline to deadline, so that minutes pass in no time and to the nanosecond.
"""

import gzip
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from kit.waits import BOUND_S
from vmclock_async import (
    BodyUpdate,
    ClockNotSynchronizedError,
    ClockStatus,
    CounterId,
    Flags,
    Publisher,
    RecordingError,
    SegmentReader,
    SegmentWriter,
    SourceError,
    SourceSettingsError,
    SourceUnavailableError,
    TimeType,
    VMClockBody,
)
from vmclock_async.abi import BODY_FIELDS
from vmclock_async.reckoning import bounds_at, reckon, ticks_between
from vmclock_async.recording import Record, RecordingHeader, RecordingReader, RecordingWriter
from vmclock_async.sources import build_source
from vmclock_async.testing import Heard, check_source
from vmclock_async.timebase import COUNTER_ID, fixed_point_period, pair
from vmclock_replay import ReplaySettings, ReplaySource
from vmclock_replay.live import Anchor

ROOT = Path(__file__).parent.parent
SHIPPED = [
    *(ROOT / "examples/recordings" / name for name in ("live-migration.jsonl", "snapshot-restore.jsonl.gz")),
    *(ROOT / "examples/recordings" / name for name in ("leap-second.jsonl", "time-source-lost.jsonl")),
    ROOT / "src/vmclock_async/_cli/demo.jsonl",
]
NS = 10**9
RELIABLE = (ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING)
BOUNDED = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
PERIOD_2_GHZ = fixed_point_period(NS, 2 * NS)


class Notes(Heard):
    """An ``Emit`` that notes each update and when it came, and ends *scope* with the one numbered *last*."""

    def __init__(self, *, takes_s: float = 0, last: int = 0, scope: anyio.CancelScope | None = None) -> None:
        super().__init__()
        self.takes_s = takes_s
        self.last = last
        self.scope = scope
        self.times_s: list[float] = []

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        self.updates.append(update)
        self.times_s.append(anyio.current_time())
        if self.scope is not None and len(self.updates) == self.last:
            self.scope.cancel()
        await anyio.sleep(self.takes_s)

    @property
    def bodies(self) -> list[VMClockBody]:
        return [update.applied_to(VMClockBody()) for update in self.updates]


def header(*, counter_id: int = 1, time_type: int = TimeType.UTC) -> RecordingHeader:
    """The header of a recording made on some other machine."""
    return RecordingHeader(
        format="vmclock-recording",
        version=1,
        counter_id=counter_id,
        time_type=time_type,
        segment_size=112,
        created=datetime(2020, 1, 1, tzinfo=UTC),
    )


def timed(t_ns: int, **changes: int) -> Record:
    """A record of a 2 GHz machine in 2020, measured and seen at *t_ns*, bounded to 2 ms and 50 ppm."""
    measured = {
        "flags": BOUNDED,
        "clock_status": ClockStatus.SYNCHRONIZED,
        "counter_value": 10**15 + 2 * t_ns,
        "counter_period_shift": PERIOD_2_GHZ.shift,
        "counter_period_frac_sec": PERIOD_2_GHZ.frac_sec,
        "counter_period_maxerror_rate_frac_sec": PERIOD_2_GHZ.frac_sec // 20_000,
        "time_sec": 1_577_836_800 + t_ns // NS,
        "time_frac_sec": (t_ns % NS << 64) // NS,
        "time_maxerror_nanosec": 2_000_000,
    }
    body = VMClockBody.model_validate({**measured, **changes})
    return Record(t_ns=t_ns, counter=10**15 + 2 * t_ns, seq_count=2, body=body)


def marked(*times_ns: int) -> list[Record]:
    """Records at *times_ns* without any time in them, each with a marker of its own."""
    return [
        Record(t_ns=t_ns, counter=None, seq_count=2, body=VMClockBody(disruption_marker=2**63 + index))
        for index, t_ns in enumerate(times_ns)
    ]


def write(path: Path, records: list[Record], head: RecordingHeader | None = None) -> Path:
    """A recording of *records* at *path*."""
    with RecordingWriter(path, head or header()) as writer:
        for record in records:
            writer.write(record)
    return path


def read(path: Path) -> tuple[RecordingHeader, list[Record]]:
    """The recording at *path*."""
    with RecordingReader(path) as reader:
        return reader.header, reader.read(10_000)


def replay(path: Path, **options: Any) -> ReplaySource:
    """A replay source for *path*."""
    return ReplaySource(ReplaySettings(path=path, **options))


def is_open(path: Path) -> bool:
    """Whether this process has *path* open."""
    links = (entry for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    return str(path.resolve()) in [os.readlink(entry) for entry in links]


def on_virtual_clock(function: Callable[[], Any]) -> None:
    """Run *function* on trio with a clock that jumps to the next deadline when all tasks wait."""
    trio.run(function, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.anyio
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
async def test_every_record_is_one_commit(segment_path: Path, path: Path) -> None:
    """N records move seq_count by exactly 2 N, on a new segment and on one in use; the last body stays."""
    head, records = read(path)
    with anyio.fail_after(BOUND_S):
        for seq_count in (2 * len(records), 4 * len(records)):
            await Publisher(segment_path, [replay(path, speed=0)]).run()
            with SegmentReader(segment_path) as reader:
                snapshot = reader.snapshot()
            assert snapshot.seq_count == seq_count
            assert snapshot.body == records[-1].body
            assert (snapshot.counter_id, snapshot.time_type) == (head.counter_id, head.time_type)


@pytest.mark.anyio
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
async def test_recorded_bodies_bit_for_bit(path: Path) -> None:
    """Every body is emitted in file order as it was recorded, with the recorded constants; run again, again."""
    head, records = read(path)
    source = replay(path, speed=0)
    with anyio.fail_after(BOUND_S):
        for _ in range(2):
            notes = Notes()
            await source.run(notes)
            assert [body.pack() for body in notes.bodies] == [record.body.pack() for record in records]
            assert {update.counter_id for update in notes.updates} == {head.counter_id}
            assert {update.time_type for update in notes.updates} == {head.time_type}
            assert source.progress() == (len(records), len(records))
    assert not is_open(path)


@pytest.mark.parametrize(("speed", "factor"), [(1.0, 1.0), (2.0, 0.5), (0.25, 4.0), (0.0, 0.0)])
def test_pace_is_the_recorded_one(tmp_path: Path, speed: float, factor: float) -> None:
    """Each record is emitted at its own time divided by the speed, and at speed 0 without any wait."""
    times_ns = [0, 300_000_000, 300_000_000, 7 * NS, 3600 * NS]
    path = write(tmp_path / "r.jsonl", marked(*times_ns))

    async def main() -> None:
        start = anyio.current_time()
        notes = Notes()
        await replay(path, speed=speed).run(notes)
        found = [at - start for at in notes.times_s]
        assert found == pytest.approx([t_ns / NS * factor for t_ns in times_ns], abs=1e-8)

    on_virtual_clock(main)


def test_slow_publisher_gets_every_record(tmp_path: Path) -> None:
    """Updates that are taken late are not skipped, and the pace is caught up with as soon as may be."""
    path = write(tmp_path / "r.jsonl", marked(0, NS // 2, NS, 5 * NS))

    async def main() -> None:
        start = anyio.current_time()
        notes = Notes(takes_s=0.7)
        await replay(path).run(notes)
        assert [at - start for at in notes.times_s] == pytest.approx([0, 0.7, 1.4, 5])
        assert [body.disruption_marker - 2**63 for body in notes.bodies] == [0, 1, 2, 3]

    on_virtual_clock(main)


@pytest.mark.parametrize(
    ("times_s", "speed", "expected_s"),
    [
        ([0, 1, 3], 1, [0, 1, 3, 5, 6, 8, 10]),
        ([0, 1, 3], 2, [0, 0.5, 1.5, 2.5, 3, 4, 5]),
        ([0], 1, [0, 1, 2, 3]),
        ([0, 1], 0, [0, 0, 0, 0, 0]),
    ],
)
def test_loop(tmp_path: Path, times_s: list[int], speed: float, expected_s: list[float]) -> None:
    """A loop starts again once the last step has passed a second time (1 s if there is none), until cancelled."""
    path = write(tmp_path / "r.jsonl", marked(*(NS * at for at in times_s)))

    async def main() -> None:
        start = anyio.current_time()
        source = replay(path, speed=speed, loop=True)
        with anyio.CancelScope() as scope:
            notes = Notes(last=len(expected_s), scope=scope)
            await source.run(notes)
        assert scope.cancelled_caught
        assert [at - start for at in notes.times_s] == pytest.approx(expected_s)
        markers = [body.disruption_marker - 2**63 for body in notes.bodies]
        assert markers == [index % len(times_s) for index in range(len(expected_s))]
        assert source.progress().total is None

    on_virtual_clock(main)
    assert not is_open(path)


@pytest.mark.anyio
async def test_loop_into_a_segment(segment_path: Path, tmp_path: Path) -> None:
    """A loop publishes round after round; cancelled, it leaves an even seq_count and a body of the recording."""
    records = marked(0, 1, 2)
    source = replay(write(tmp_path / "r.jsonl", records), speed=0, loop=True)
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(VMClockBody())
    with anyio.fail_after(BOUND_S), SegmentReader(segment_path) as reader:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Publisher(segment_path, [source]).run)
            seq_count = 2
            while seq_count <= 2 + 4 * len(records):
                seq_count = (await reader.wait_changed(seq_count)).seq_count
            tasks.cancel_scope.cancel()
        snapshot = reader.snapshot()
    assert snapshot.seq_count % 2 == 0
    assert snapshot.body == records[(snapshot.seq_count // 2 - 2) % 3].body


@pytest.mark.anyio
@pytest.mark.parametrize("loop", [False, True])
async def test_recording_without_records(segment_path: Path, tmp_path: Path, loop: bool) -> None:
    """A recording that is a header alone is over at once, looped or not, and writes nothing."""
    with anyio.fail_after(BOUND_S):
        await Publisher(segment_path, [replay(write(tmp_path / "r.jsonl", []), loop=loop)]).run()
    assert not segment_path.exists()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"mode": "live", "speed": "2"}, ".*speed and loop belong to mode=recorded"),
        ({"mode": "live", "loop": "true"}, ".*speed and loop belong to mode=recorded"),
        ({"mode": "lively"}, "mode: .*'recorded' or 'live', not 'lively'"),
        ({"speed": "-1"}, "speed: .*greater than or equal to 0, not '-1'"),
        ({"speed": "nan"}, "speed: "),
        ({"speed": "inf"}, "speed: "),
        ({"speed": "fast"}, "speed: "),
        ({"loop": "perhaps"}, "loop: "),
        ({"pace": "1"}, "pace: no such field .*its options: path, mode, speed, loop"),
        ({"path": None}, "path: "),
    ],
)
def test_settings_that_make_no_sense(options: dict[str, object], reason: str) -> None:
    """A setting that is wrong is refused before anything runs; the error names source and option."""
    with pytest.raises(SourceSettingsError, match=f"^replay: {reason}"):
        build_source("replay", {"path": "r.jsonl", **options})


def test_settings_from_strings() -> None:
    """Settings may be strings, as a command line has them; the path is required."""
    source = build_source("replay", {"path": "r.jsonl", "speed": "0.5", "loop": "yes"})
    assert isinstance(source, ReplaySource)
    build_source("replay", {"path": Path("r.jsonl"), "mode": "live", "speed": 1, "loop": False})
    with pytest.raises(SourceSettingsError, match="path: is missing"):
        build_source("replay", {})


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["recorded", "live"])
async def test_no_recording(segment_path: Path, tmp_path: Path, mode: str) -> None:
    """A recording that is not there ends the publisher with an error that says so, and nothing is written."""
    source = replay(tmp_path / "absent.jsonl", mode=mode)
    with anyio.fail_after(BOUND_S), pytest.raises(SourceError, match=r"absent\.jsonl: .*No such file") as caught:
        await Publisher(segment_path, {"recorded machine": source}).run()
    assert isinstance(caught.value.__cause__, RecordingError)
    assert caught.value.source == "recorded machine"
    assert not segment_path.exists()


@pytest.mark.anyio
@pytest.mark.parametrize("loop", [False, True])
@pytest.mark.parametrize("damage", ["record", "long line", "checksum"])
async def test_bad_record(segment_path: Path, tmp_path: Path, damage: str, loop: bool) -> None:
    """All records before the bad one are committed; then the publisher ends with an error that names the line."""
    path = write(tmp_path / "r.jsonl", marked(0, 1, 2, 3))
    content = path.read_bytes()
    match damage:
        case "record":
            path.write_bytes(content + b'{"t_ns": 4}\n' + content)
        case "long line":
            path.write_bytes(content + b" " * 100_000 + b"\n" + content)
        case "checksum":
            compressed = gzip.compress(content)
            path.write_bytes(compressed[:-8] + bytes([compressed[-8] ^ 1]) + compressed[-7:])
    source = replay(path, speed=0, loop=loop)
    line = 5 if damage == "checksum" else 6
    with anyio.fail_after(BOUND_S), pytest.raises(SourceError, match=f"r.jsonl, line {line}: "):
        await Publisher(segment_path, [source]).run()
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().seq_count == 8
    assert source.progress().done == 4
    assert not is_open(path)


@pytest.mark.anyio
async def test_recording_of_a_killed_recorder(
    segment_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A last line that was cut short costs that record alone: the others are published, and run() returns."""
    path = write(tmp_path / "r.jsonl", marked(0, 1, 2))
    path.write_bytes(path.read_bytes()[:-100])
    with anyio.fail_after(BOUND_S):
        await Publisher(segment_path, [replay(path, speed=0)]).run()
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().seq_count == 4
    assert "line 4: cut short" in caplog.text


@pytest.mark.long
@pytest.mark.anyio
@pytest.mark.parametrize("options", [{"speed": 0, "loop": True}, {"speed": 1}, {"mode": "live"}], ids=str)
async def test_cancelled_anywhere(tmp_path: Path, options: dict[str, Any]) -> None:
    """Cancelled at any point, in a read, a sleep or an emit, it leaves no descriptor open and can be run again."""
    records = [timed(index * 20_000_000) for index in range(600)]
    path = write(tmp_path / "r.jsonl.gz", records)
    source = replay(path, **options)
    with anyio.fail_after(BOUND_S):
        for steps in (*range(12), *(2**exponent for exponent in range(4, 13))):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(source.run, Notes())
                for _ in range(steps):
                    await anyio.lowlevel.checkpoint()
                tasks.cancel_scope.cancel()
            assert not is_open(path)
        for last in (1, 2, 3):
            with anyio.CancelScope() as scope:
                notes = Notes(last=last, scope=scope)
                await source.run(notes)
            assert len(notes.updates) == last
            assert not is_open(path)


# Live mode.


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


U64 = st.integers(0, 2**64 - 1)
ANY_BODY = st.fixed_dictionaries(
    dict.fromkeys(BODY_FIELDS, U64)
    | dict.fromkeys(("leap_second_smearing_hint", "leap_indicator", "counter_period_shift"), st.integers(0, 255))
    | {"tai_offset_sec": st.integers(-(2**15), 2**15 - 1), "clock_status": st.integers(0, 5)}
).map(VMClockBody.model_validate)
ANY_RECORD = st.builds(Record, t_ns=U64, counter=st.none() | U64, seq_count=st.just(2), body=ANY_BODY)


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


@pytest.mark.anyio
@pytest.mark.parametrize("options", [{"speed": 0}, {"speed": 0, "loop": True}, {"mode": "live"}])
async def test_promises_are_kept(options: dict[str, Any]) -> None:
    """Every promise of ``Source``, in each mode."""
    settings = ReplaySettings.model_validate({"path": SHIPPED[0]} | options)
    assert await check_source(lambda: ReplaySource(settings))
