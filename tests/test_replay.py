"""The replay source: into a real segment on every event loop, and at an exact pace on a virtual clock.

What is emitted, and when, is seen by an ``Emit`` that only takes notes. Where a test is about pace, trio's clock
jumps from deadline to deadline, so that minutes pass in no time and to the nanosecond.
"""

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
import trio
import trio.testing

from kit.replays import NS, SHIPPED, read, replay, timed, write
from kit.waits import BOUND_S
from vmclock_async import (
    BodyUpdate,
    Publisher,
    RecordingError,
    SegmentReader,
    SegmentWriter,
    SourceError,
    SourceSettingsError,
    VMClockBody,
)
from vmclock_async.recording import Record
from vmclock_async.sources import build_source
from vmclock_async.testing import Heard, check_source
from vmclock_replay import ReplaySettings, ReplaySource


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


def marked(*times_ns: int) -> list[Record]:
    """Records at *times_ns* without any time in them, each with a marker of its own."""
    return [
        Record(t_ns=t_ns, counter=None, seq_count=2, body=VMClockBody(disruption_marker=2**63 + index))
        for index, t_ns in enumerate(times_ns)
    ]


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
        ({"pace": "1"}, "pace: no such field .*its options: path, mode, speed, loop, start, until"),
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


@pytest.mark.anyio
@pytest.mark.parametrize("options", [{"speed": 0}, {"speed": 0, "loop": True}, {"mode": "live"}])
async def test_promises_are_kept(options: dict[str, Any]) -> None:
    """Every promise of ``Source``, in each mode."""
    settings = ReplaySettings.model_validate({"path": SHIPPED[0]} | options)
    assert await check_source(lambda: ReplaySource(settings))
