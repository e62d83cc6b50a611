"""``record``: as a process that a test kills, fills up, and pulls the segment away from; what it leaves is read."""

import gzip
import json
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import anyio
import pytest

from kit.commands import assert_one_line, failure, run_command, start_command
from kit.forks import Forked, Started
from kit.replays import SHIPPED, read, replay
from kit.waits import BOUND_S, eventually, until
from vmclock_async import CounterId, Publisher, RecordingError, SegmentWriter, TimeType, VMClockBody
from vmclock_async._cli import main
from vmclock_async._cli.recorder import Recorder
from vmclock_async._cli.series import Seen, Series
from vmclock_async.recording import Record
from vmclock_async.segment import SegmentReader
from vmclock_async.timebase import COUNTER_ID, ticks_between

NAMES = pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])


def marked(marker: int) -> VMClockBody:
    return VMClockBody(disruption_marker=marker)


def markers(path: Path) -> list[int]:
    """The markers of the recording at *path*, which is none yet if it cannot be read."""
    try:
        return [record.body.disruption_marker for record in read(path)[1]]
    except RecordingError:
        return []


@contextmanager
def recording(tmp_path: Path, *args: object) -> Iterator[Started]:
    """The recorder; killed at the end if it has not ended."""
    process = start_command(tmp_path, "record", *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: Started, number: int = signal.SIGTERM) -> tuple[int, str, dict[str, Any]]:
    """Exit status, the last line on stderr and the summary of a recorder that gets the signal *number*."""
    process.send_signal(number)
    out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode is not None
    assert "Traceback" not in err
    return process.returncode, err.splitlines()[-1], json.loads(out) if out else {}


def is_written(path: Path, records: int) -> bool:
    return len(markers(path)) == records


def ends_with(path: Path, number: int) -> bool:
    """Whether the last record at *path* has the marker *number*."""
    return markers(path)[-1:] == [number]


def write_seen(writer: SegmentWriter, path: Path, *numbers: int, **constants: Any) -> None:
    """Commit a body with each marker, once the recorder has the one before."""
    for number in numbers:
        writer.write(marked(number), **constants)
        eventually(partial(ends_with, path, number))


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@NAMES
async def test_round_trip(segment_path: Path, tmp_path: Path, name: str) -> None:
    """What is replayed from one recording is in the other, bit for bit, with the constants and every seq_count."""
    output = tmp_path / name
    head, records = read(SHIPPED[0])
    constants = {"counter_id": head.counter_id, "time_type": head.time_type}
    with recording(tmp_path, segment_path, "--output", output) as process, anyio.fail_after(BOUND_S):
        with SegmentWriter(segment_path, size=head.segment_size) as writer:
            for number, record in enumerate(records, 1):
                writer.write(record.body, **constants)
                await anyio.to_thread.run_sync(eventually, partial(is_written, output, number))
        assert ended(process)[0] == 0
    again, found = read(output)
    assert [record.body.pack() for record in found] == [record.body.pack() for record in records]
    assert [record.seq_count for record in found] == [2 * number for number in range(1, len(records) + 1)]
    assert again == head.model_copy(update={"created": again.created})
    copy = segment_path.with_name("copy")
    with anyio.fail_after(BOUND_S):
        await Publisher(copy, [replay(output, speed=0)]).run()
    with SegmentReader(copy) as reader:
        assert (reader.snapshot().body, reader.snapshot().seq_count) == (records[-1].body, 2 * len(records))


@NAMES
def test_killed_recorder_leaves_all_that_it_had_written(segment_path: Path, tmp_path: Path, name: str) -> None:
    """After SIGKILL the recording is whole up to the last commit."""
    output = tmp_path / name
    with SegmentWriter(segment_path) as writer, recording(tmp_path, segment_path, "--output", output) as process:
        write_seen(writer, output, *range(1, 20))
        process.kill()
        process.wait()
    assert markers(output) == list(range(1, 20))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGINT, 0), (signal.SIGHUP, 129)])
def test_end_with_a_summary(segment_path: Path, tmp_path: Path, number: int, status: int) -> None:
    """A signal ends it cleanly: the compressed data is closed, and the summary counts what there is."""
    output = tmp_path / "r.jsonl.gz"
    with (
        SegmentWriter(segment_path) as writer,
        recording(tmp_path, segment_path, "--output", output, "--json") as process,
    ):
        write_seen(writer, output, 1, 2, 3)
        found, said, summary = ended(process, number)
    assert found == status
    size = output.stat().st_size
    assert said == f"vmclock-async: 3 records to {output}, {size} B"
    assert summary == {
        "path": str(output),
        "records": 3,
        "files": 1,
        "bytes": size,
        "gaps": 0,
        "missed": 0,
        "restarts": 0,
        "full": False,
    }
    assert len(gzip.decompress(output.read_bytes()).splitlines()) == 4


def test_time_and_counter_of_a_record(segment_path: Path, tmp_path: Path) -> None:
    """The counter is this machine's where the page counts with it, and t_ns begins at 0; otherwise it is not known."""
    output = tmp_path / "r.jsonl"
    with SegmentWriter(segment_path) as writer, recording(tmp_path, segment_path, "--output", output) as process:
        write_seen(writer, output, 1, 2, counter_id=COUNTER_ID)
        write_seen(writer, output, 3, counter_id=CounterId.INVALID)
        ended(process)
    first, second = read(tmp_path / "r.jsonl.1")[1]
    assert first.t_ns == 0 < second.t_ns
    assert first.counter is not None
    assert second.counter is not None
    assert ticks_between(first.counter, second.counter) > 0
    (third,) = read(output)[1]
    assert (third.t_ns, third.counter) == (0, None)


def test_waiting_for_a_segment(segment_path: Path, tmp_path: Path) -> None:
    """A segment that is not there yet is waited for; ended before, it has written no file, and says so."""
    output = tmp_path / "r.jsonl"
    with recording(tmp_path, segment_path, "--output", output, "--json") as process:
        assert process.stderr is not None
        assert process.stderr.readline().endswith("; waiting for it\n")
        with SegmentWriter(segment_path) as writer:
            write_seen(writer, output, 1)
        assert ended(process)[2]["records"] == 1
    with recording(tmp_path, tmp_path / "absent", "--output", tmp_path / "none", "--json") as process:
        assert process.stderr is not None
        process.stderr.readline()
        assert ended(process)[2]["records"] == 0
    assert not (tmp_path / "none").exists()


def test_replaced_segment_and_restarted_publisher(segment_path: Path, tmp_path: Path) -> None:
    """It goes on with both, in the same file; a replaced segment counts as a restart, another writer as nothing."""
    output = tmp_path / "r.jsonl"
    with recording(tmp_path, segment_path, "--output", output, "--json") as process:
        with SegmentWriter(segment_path) as writer:
            write_seen(writer, output, 1, 2)
        with SegmentWriter(segment_path) as writer:
            write_seen(writer, output, 3)
        segment_path.unlink()
        with SegmentWriter(segment_path) as writer:
            write_seen(writer, output, 4)
            summary = ended(process)[2]
    assert [record.seq_count for record in read(output)[1]] == [2, 4, 6, 2]
    assert (summary["restarts"], summary["gaps"], summary["files"]) == (1, 0, 1)


def test_restart_is_no_gap(segment_path: Path, tmp_path: Path) -> None:
    """A segment in whose place is one with more commits, and numbers that begin again in place: no gap."""
    output = tmp_path / "r.jsonl"
    other = segment_path.with_name("other")
    with recording(tmp_path, segment_path, "--output", output, "--json") as process:
        with SegmentWriter(segment_path) as writer:
            write_seen(writer, output, 1)
        with SegmentWriter(other) as writer:
            for number in range(2, 12):
                writer.write(marked(number))
        other.rename(segment_path)
        eventually(partial(ends_with, output, 11))
        with segment_path.open("r+b", buffering=0) as file:  # as another program's writer
            os.pwrite(file.fileno(), (2).to_bytes(4, "little"), 12)
        eventually(partial(is_written, output, 3))
        summary = ended(process)[2]
    assert [record.seq_count for record in read(output)[1]] == [2, 20, 2]
    assert (summary["restarts"], summary["gaps"], summary["missed"]) == (2, 0, 0)


@pytest.mark.parametrize(
    "change",
    [{"counter_id": CounterId.ARM_VCNT}, {"time_type": TimeType.TAI}],
    ids=lambda change: next(iter(change)),
)
def test_other_constants_begin_another_file(segment_path: Path, tmp_path: Path, change: dict[str, int]) -> None:
    """A header holds for all records of its file, so other constants need another; nothing is lost, and it is said."""
    output = tmp_path / "r.jsonl"
    constants = {"counter_id": CounterId.X86_TSC, "time_type": TimeType.UTC}
    (tmp_path / "r.jsonl.1").write_text("of an earlier run")
    with recording(tmp_path, segment_path, "--output", output) as process:
        with SegmentWriter(segment_path) as writer:
            write_seen(writer, output, 1, 2, **constants)
            write_seen(writer, output, 3, **(constants | change))
        process.terminate()
        _, err = process.communicate(timeout=BOUND_S)
    head, records = read(output)
    assert {name: getattr(head, name) for name in constants} == constants | change
    assert [record.body.disruption_marker for record in records] == [3]
    assert markers(tmp_path / "r.jsonl.1") == [1, 2]
    assert (tmp_path / "r.jsonl.2").read_text() == "of an earlier run"
    assert f"what came before is in {output}.1" in err
    assert f"3 records to {output} in 2 files" in err


@NAMES
def test_rotation(segment_path: Path, tmp_path: Path, name: str) -> None:
    """A full file becomes FILE.1 and so on, each a recording by itself; the oldest goes; a former run's come along."""
    output = tmp_path / name
    options = ("--output", output, "--max-size", "1B", "--rotate", 3)  # so each record fills its file
    with SegmentWriter(segment_path) as writer:
        with recording(tmp_path, segment_path, *options) as process:
            write_seen(writer, output, 1, 2)
            ended(process)
        assert (markers(output), markers(tmp_path / f"{name}.1")) == ([2], [1])
        with recording(tmp_path, segment_path, *options, "--json") as process:
            eventually(lambda: (tmp_path / f"{name}.2").exists())
            write_seen(writer, output, 3, 4, 5)
            summary = ended(process)[2]
    assert [markers(tmp_path / (name + end)) for end in ("", ".1", ".2", ".3")] == [[5], [4], [3], [2]]
    assert not (tmp_path / f"{name}.4").exists()
    assert (summary["records"], summary["files"], summary["full"]) == (4, 4, False)
    for end in ("", ".1", ".2", ".3"):
        assert read(tmp_path / (name + end))[1][0].t_ns == 0


def test_rotation_fills_files(segment_path: Path, tmp_path: Path) -> None:
    """A file is as large as was asked for, and larger by no more than the record that filled it."""
    output = tmp_path / "r.jsonl"
    with (
        SegmentWriter(segment_path) as writer,
        recording(tmp_path, segment_path, "--output", output, "--max-size", "2kB", "--rotate", "9") as process,
    ):
        write_seen(writer, output, *range(1, 12))
        ended(process)
    assert [*markers(tmp_path / "r.jsonl.2"), *markers(tmp_path / "r.jsonl.1"), *markers(output)][-6:] == [
        *range(6, 12)
    ]
    full = (tmp_path / "r.jsonl.1").read_bytes()
    assert 2000 <= len(full) < 2000 + len(full.splitlines(keepends=True)[-1])


def test_size_without_rotation_ends_it(segment_path: Path, tmp_path: Path) -> None:
    """The record that fills the file is its last: status 0, and it says why."""
    output = tmp_path / "r.jsonl"
    with SegmentWriter(segment_path) as writer:
        writer.write(marked(1))
        done = run_command(tmp_path, "record", segment_path, "--output", output, "--max-size", "100B", "--json")
    assert done.returncode == 0, done.stderr
    assert "has the size of --max-size, so the recording ends; --rotate N would go on" in done.stderr
    assert json.loads(done.stdout)["full"] is True
    assert markers(output) == [1]


def test_gaps_are_counted(segment_path: Path, tmp_path: Path) -> None:
    """Commits that came while the recorder was stopped: seq_count in the file shows them, the summary counts them."""
    output = tmp_path / "r.jsonl"
    with (
        SegmentWriter(segment_path) as writer,
        recording(tmp_path, segment_path, "--output", output, "--json") as process,
    ):
        write_seen(writer, output, 1)
        process.send_signal(signal.SIGSTOP)
        state = Path(f"/proc/{process.pid}/stat")
        eventually(lambda: state.read_text().rpartition(")")[2].split()[0] == "T")
        for number in (2, 3, 4):
            writer.write(marked(number))
        process.send_signal(signal.SIGCONT)
        eventually(lambda: markers(output) == [1, 4])
        status, said, summary = ended(process)
    assert [record.seq_count for record in read(output)[1]] == [2, 8]
    assert (status, summary["gaps"], summary["missed"]) == (0, 1, 2)
    assert said.endswith(", 1 gap (2 commits not seen)")


@pytest.mark.parametrize("rotate", [(), ("--max-size", "1MB", "--rotate", "2")])
def test_what_is_there_is_not_overwritten(segment_path: Path, tmp_path: Path, rotate: tuple[str, ...]) -> None:
    """A file that is no recording is refused always, and a recording without --rotate: at once, without a segment."""
    output = tmp_path / "notes.txt"
    output.write_text("mine")
    said = run_command(tmp_path, "record", segment_path, "--output", output, *rotate)
    assert_one_line(said, str(output), "is there already", "choose another path")
    assert failure(run_command(tmp_path, "record", segment_path, "--output", output, *rotate, "--json"))
    assert output.read_text() == "mine"
    if not rotate:
        recorded = SHIPPED[0]
        before = recorded.stat().st_mtime_ns
        assert_one_line(run_command(tmp_path, "record", segment_path, "--output", recorded), "is there already")
        assert recorded.stat().st_mtime_ns == before


def test_file_that_came_meanwhile_is_not_overwritten(segment_path: Path, tmp_path: Path) -> None:
    """It was not there when the recorder began to wait for the segment: another recorder's, perhaps."""
    output = tmp_path / "r.jsonl"
    with recording(tmp_path, segment_path, "--output", output) as process:
        assert process.stderr is not None
        process.stderr.readline()
        output.write_text("another's")
        with SegmentWriter(segment_path) as writer:
            writer.write(marked(1))
            _, err = process.communicate(timeout=BOUND_S)
    assert process.returncode == 1
    assert err.splitlines()[-1].endswith(f"{output}: cannot be written (File exists); choose another path")
    assert output.read_text() == "another's"


def test_directory_that_is_not_there(segment_path: Path, tmp_path: Path) -> None:
    """It is said at once, though the segment is not there yet either."""
    output = tmp_path / "absent" / "r.jsonl"
    assert_one_line(run_command(tmp_path, "record", segment_path, "--output", output), "absent is no directory")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--rotate", "2"), "--max-size"),
        (("--rotate", "0", "--max-size", "1MB"), "greater than or equal to 1"),
        (("--max-size", "10"), "is no size: a number and a unit (B, kB, MB"),
        (("--max-size", "0.1B"), "is no size from 1 B"),
        (("--max-size", "10mb"), "is no size"),
    ],
)
def test_wrong_usage(tmp_path: Path, options: tuple[str, ...], reason: str) -> None:
    """Status 2, and what is wrong."""
    done = run_command(tmp_path, "record", "--output", tmp_path / "r", *options)
    assert done.returncode == 2
    assert reason in done.stderr


def record_in_little_room(room: str, *words: str) -> int:
    """The command line where no file gets larger than *room*, as on a disk that fills up."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(room), int(room)))
    return main(list(words))


def ended_or(process: Forked, holds: Callable[[], bool]) -> bool:
    return process.poll() is not None or holds()


@NAMES
def test_full_disk(segment_path: Path, tmp_path: Path, name: str) -> None:
    """One line, status 1; each record that was written can be read."""
    output = tmp_path / name
    process = Forked(
        record_in_little_room,
        "2000",
        *("record", str(segment_path), "--output", str(output), "--json"),
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        with SegmentWriter(segment_path) as writer:
            number = 0
            while process.poll() is None and number < 1000:
                number += 1
                writer.write(marked(number))
                eventually(partial(ended_or, process, partial(ends_with, output, number)))
        out, err = process.communicate(timeout=BOUND_S)
    finally:
        process.kill()
    assert process.returncode == 1
    first, *complaints = err.splitlines()
    assert ": recording " in first or "waiting for it" in first
    assert "cannot be written (File too large); make room" in complaints[-1]
    assert json.loads(out)["error"] == "RecordingError"
    assert markers(output) == list(range(1, number))
    assert number > 2


class BusyDisk:
    """A series whose first write takes until it is `free`."""

    def __init__(self, series: Series) -> None:
        self._series = series
        self.busy, self.free = threading.Event(), threading.Event()

    def write(self, commits: Sequence[Seen]) -> None:
        self.busy.set()
        assert self.free.wait(BOUND_S)
        self._series.write(commits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._series, name)


def has_seen(recorder: Recorder, commits: int) -> bool:
    return recorder.seen == commits


@pytest.mark.anyio
async def test_busy_disk_loses_nothing_seen(segment_path: Path, tmp_path: Path) -> None:
    """While a write takes long the recorder sees the commits that come; cancelled then, it still writes them all."""
    output = tmp_path / "r.jsonl"
    disk = BusyDisk(Series(output))
    recorder = Recorder(segment_path, cast("Series", disk), lambda text: None)
    with SegmentWriter(segment_path) as writer, anyio.fail_after(BOUND_S):
        writer.write(marked(1))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(recorder.run)
            await until(disk.busy.is_set)
            for number in (2, 3):
                writer.write(marked(number))
                await until(partial(has_seen, recorder, number))
            tasks.cancel_scope.cancel()
            disk.free.set()
    assert markers(output) == [1, 2, 3]
    assert (recorder.gaps, recorder.restarts, disk.size) == (0, 0, output.stat().st_size)


def commit(seq_count: int) -> Callable[[Path], Seen]:
    """What was seen of the segment at a path, as if it had been commit *seq_count*."""

    def seen(path: Path) -> Seen:
        with SegmentReader(path) as reader:
            return Seen(reader.snapshot().model_copy(update={"seq_count": seq_count}), seq_count, None)

    return seen


def test_series_leaves_a_hole_alone(segment_path: Path, tmp_path: Path) -> None:
    """Where a number is free, no file beyond it is touched."""
    with SegmentWriter(segment_path) as writer:
        writer.write(marked(1))
    output = tmp_path / "r.jsonl"
    series = Series(output, max_size=1, keep=5)
    (tmp_path / "r.jsonl.2").write_text("far")
    series.write([commit(2)(segment_path), commit(4)(segment_path)])
    series.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl", "r.jsonl.1", "r.jsonl.2"]
    assert (tmp_path / "r.jsonl.2").read_text() == "far"
    assert [type(record) for record in read(output)[1]] == [Record]
