"""``publish replay`` of a recording, as a real process: commits, exit statuses, and one line for every bad input."""

import gzip
import json
import os
import shlex
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.commands import assert_one_line, command, run_command, start_command
from kit.forks import Started
from kit.segment_files import BAD_SEGMENT
from kit.waits import eventually, is_committed
from vmclock_async import SegmentReader, SegmentWriter, VMClockBody
from vmclock_async.recording import Record, RecordingHeader, RecordingWriter

HEADER = {
    "format": "vmclock-recording",
    "version": 1,
    "counter_id": 1,
    "time_type": 0,
    "segment_size": 112,
    "created": "2026-01-01T00:00:00Z",
}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command line to its end, in an environment that names no segment."""

    def run(*args: object, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_command(tmp_path, *args, variables=variables)

    return run


@pytest.fixture
def publish(run: Run, segment_path: Path) -> Run:
    """Runs ``publish replay`` on a recording as fast as it can."""

    def publish(recording: Path, *args: object, segment: Path = segment_path) -> subprocess.CompletedProcess[str]:
        sets = ("--set", f"replay.path={recording}", "--set", "replay.speed=0")
        return run("publish", "replay", "--segment", segment, *sets, *args)

    return publish


def body(number: int) -> VMClockBody:
    """A body that is told by *number*."""
    return VMClockBody(disruption_marker=number, time_sec=number, clock_status=2)


def record_line(number: int, **changes: object) -> str:
    """A record as JSON, with *changes*."""
    record = Record(t_ns=number * 1000, counter=number, seq_count=2 * number, body=body(number))
    return json.dumps({**record.model_dump(mode="json"), **changes}) + "\n"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A recording of 100 bodies, a microsecond apart."""
    path = tmp_path / "good.jsonl"
    with RecordingWriter(path, RecordingHeader.model_validate_json(json.dumps(HEADER))) as writer:
        for number in range(1, 101):
            writer.write(Record(t_ns=number * 1000, counter=None, seq_count=2 * number, body=body(number)))
    return path


def test_publish_commits_every_body_and_ends(publish: Run, recording: Path, segment_path: Path) -> None:
    """N records move seq_count by exactly 2 N; the last body is what readers keep."""
    result = publish(recording, "--json")
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["seq_count"] == 200
    assert publish(recording).returncode == 0
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert snapshot.seq_count == 400
    assert snapshot.body == body(100)
    assert snapshot.counter_id == 1
    assert not Path(f"{segment_path}.lock").exists()


def test_gzip_recording_is_published(publish: Run, recording: Path, segment_path: Path) -> None:
    """A compressed recording is one like any other."""
    compressed = recording.with_suffix(".jsonl.gz")
    compressed.write_bytes(gzip.compress(recording.read_bytes()))
    assert publish(compressed).returncode == 0
    with SegmentReader(segment_path) as reader:
        assert reader.seq_count == 200


BAD_AT_THE_START = {
    "missing": (None, "cannot be read (No such file or directory)"),
    "empty": ("", "is empty"),
    "not JSON": ("hello\n", "line 1: not JSON"),
    "binary": ("\x00\x01" * 20000, "line 1"),
    "other JSON": ("[1, 2]\n", "line 1"),
    "wrong format": (json.dumps(HEADER | {"format": "video"}) + "\n", "line 1: format"),
    "wrong version": (json.dumps(HEADER | {"version": 2}) + "\n", "line 1: version"),
    "unknown header field": (json.dumps(HEADER | {"colour": 1}) + "\n", "line 1: colour: no such field"),
    "missing header field": ('{"format": "vmclock-recording"}\n', "line 1: version: is missing"),
}


@pytest.mark.parametrize("kind", BAD_AT_THE_START)
def test_bad_recording_known_at_the_start_writes_nothing(
    publish: Run, tmp_path: Path, segment_path: Path, kind: str
) -> None:
    """One line that names file and line, status 1, and neither a segment nor a lock."""
    content, complaint = BAD_AT_THE_START[kind]
    path = tmp_path / "bad.jsonl"
    if content is not None:
        path.write_text(content)
    assert_one_line(publish(path), str(path), complaint)
    assert list(segment_path.parent.iterdir()) == []


def test_recording_that_is_no_file_is_refused(publish: Run, tmp_path: Path) -> None:
    """A directory or a FIFO is told, not read from for ever."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo):
        assert_one_line(publish(path), str(path), "is not a regular file")


BAD_RECORD = {
    "out of range": (record_line(3, seq_count=2**32), "seq_count"),
    "body out of range": (
        record_line(3, body={"clock_status": 256}),
        "body.clock_status: must be an integer from 0 to 255, not 256",
    ),
    "unknown field": (record_line(3, colour="red"), "colour: no such field"),
    "unknown body field": (record_line(3, body={"colour": 1}), "body.colour: no such field"),
    "back in time": (record_line(3, t_ns=5), "t_ns goes back from 2000 to 5"),
    "not JSON": ("{{{\n", "not JSON"),
    "blank": ("\n", "not JSON"),
}


@pytest.mark.parametrize("kind", BAD_RECORD)
def test_bad_record_ends_the_run_there(publish: Run, tmp_path: Path, segment_path: Path, kind: str) -> None:
    """All before it is committed, the segment is whole, and the line is named."""
    line, complaint = BAD_RECORD[kind]
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(HEADER) + "\n" + record_line(1) + record_line(2) + line + record_line(4))
    assert_one_line(publish(path), f"{path}, line 4: ", complaint)
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert (snapshot.seq_count, snapshot.body) == (4, body(2))


def test_truncated_last_line_costs_that_line_alone(publish: Run, recording: Path, segment_path: Path) -> None:
    """A recorder that was killed: a warning that names the line, and the rest is published."""
    recording.write_bytes(recording.read_bytes()[:-30])
    result = publish(recording)
    assert result.returncode == 0, result.stderr
    assert f"warning: {recording}, line 101: cut short" in result.stderr
    with SegmentReader(segment_path) as reader:
        assert reader.seq_count == 198


def _special_paths(directory: Path) -> Iterator[tuple[Path, str]]:
    (directory / "target").write_bytes(b"untouched")
    (directory / "link").symlink_to(directory / "target")
    os.mkfifo(directory / "fifo")
    (directory / "directory").mkdir()
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(directory / "socket"))
    yield directory / "link", "is a symbolic link"
    yield directory / "fifo", "is a FIFO"
    yield directory / "directory", "is a directory"
    yield directory / "socket", "is a socket"
    yield Path("/dev/null"), "is a character device"


def test_segment_path_that_is_no_regular_file_is_refused(publish: Run, recording: Path, tmp_path: Path) -> None:
    """Nothing is written there, and no lock is left."""
    for path, complaint in _special_paths(tmp_path):
        assert_one_line(publish(recording, segment=path), str(path), complaint)
        assert not Path(f"{path}.lock").exists()
    assert (tmp_path / "target").read_bytes() == b"untouched"


def test_segment_of_another_writer_is_refused(publish: Run, recording: Path, segment_path: Path) -> None:
    """The message names the process that holds it, and nothing is touched."""
    with SegmentWriter(segment_path) as writer:
        writer.write(body(5))
        before = segment_path.read_bytes()
        assert_one_line(publish(recording), str(segment_path), f"process {os.getpid()} is writing to it")
        assert segment_path.read_bytes() == before


@pytest.mark.parametrize("kind", BAD_SEGMENT)
def test_publisher_makes_a_segment_of_a_bad_one(
    publish: Run, recording: Path, segment_path: Path, kind: str
) -> None:
    """What readers refuse, the publisher starts afresh in place; but another kind of file stays as it is."""
    segment_path.write_bytes(BAD_SEGMENT[kind][0])
    inode = segment_path.stat().st_ino
    if kind == "wrong magic":
        assert_one_line(
            publish(recording), "some other file, which publishing would overwrite; choose another path"
        )
        assert segment_path.read_bytes() == BAD_SEGMENT[kind][0]
        return
    assert publish(recording).returncode == 0
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert (snapshot.body, snapshot.inode, snapshot.size) == (body(100), inode, 112)


def test_publisher_warns_when_the_segment_is_on_disk(publish: Run, recording: Path, tmp_path: Path) -> None:
    """A segment that is not on tmpfs is written to disk and outlives the boot."""
    if subprocess.run(["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True).stdout == "tmpfs\n":
        tmp_path = Path(__file__).parent
    segment = tmp_path / "on-disk"
    try:
        assert "is not on tmpfs" in publish(recording, segment=segment).stderr
    finally:
        segment.unlink(missing_ok=True)


def test_wrong_usage_ends_with_2(run: Run, publish: Run, recording: Path) -> None:
    """An unknown source, option, value or command is told, with what there is instead."""
    unknown = run("publish", "relpay")
    assert (unknown.returncode, "did you mean replay?" in unknown.stderr) == (2, True)
    option = publish(recording, "--set", "replay.sped=1")
    assert (option.returncode, "replay.sped: no such key; did you mean replay.speed?" in option.stderr) == (
        2,
        True,
    )
    odd = publish(recording, "--set", "replay.colour=1")
    assert (odd.returncode, "there are replay.path, replay.mode, replay.speed" in odd.stderr) == (2, True)
    assert publish(recording, "--set", "replay.speed=-1").returncode == 2
    assert publish(recording, "--set", "replay.mode=live").returncode == 2  # speed=0 is set too
    assert publish(recording, "--set", "nonsense").returncode == 2
    assert publish(recording, "--set", "other.path=1").returncode == 2
    assert run("publsh").returncode == 2


def test_configuration_file_is_enough(run: Run, recording: Path, tmp_path: Path, segment_path: Path) -> None:
    """It names the sources, their options, the segment and the level of the log; a bad file is wrong usage."""
    config = tmp_path / "publish.toml"
    config.write_text(
        f'[publisher]\nsources = ["replay"]\nsegment = "{segment_path}"\n[logs]\nlevel = "error"\n'
        f'[sources.replay]\npath = "{recording}"\nspeed = 1\n'
    )
    ended = run("publish", "--config", config, "--set", "replay.speed=0")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert run("publish", "--config", config, "--set", "replay.speed=0", "--log-level", "info").stderr.endswith(
        f"vmclock-async: 100 commits to {segment_path}, seq_count 400\n"
    )
    config.write_text("[sources.replay")
    assert run("publish", "--config", config).returncode == 2
    assert run("publish", "replay", "--config", tmp_path / "nothing").returncode == 2


@pytest.fixture
def slow_publisher(recording: Path, segment_path: Path) -> Iterator[Started]:
    """``publish replay`` of a recording that would take a day, once it has committed its first body."""
    text = recording.read_text().splitlines(keepends=True)
    recording.write_text("".join(text[:2]) + record_line(2, t_ns=10**14))
    sets = ("--set", f"replay.path={recording}")
    process = start_command(
        segment_path.parent,
        *("publish", "replay", "--segment", segment_path, "--json", *sets),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        eventually(lambda: is_committed(segment_path))
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_end_the_publisher_cleanly(
    slow_publisher: Started, segment_path: Path, number: int, status: int
) -> None:
    """Ctrl-C ends it with 130, a service manager's stop with 0; no traceback, a whole body, no lock."""
    slow_publisher.send_signal(number)
    out, complaints = slow_publisher.communicate(timeout=10)
    assert slow_publisher.returncode == status, complaints
    assert json.loads(out)["commits"] == 1  # the statistics of --json, however it ended
    assert "Traceback" not in complaints
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().body == body(1)
    assert not Path(f"{segment_path}.lock").exists()


def test_publisher_needs_no_stderr(publish: Run, recording: Path, segment_path: Path) -> None:
    """A closed or full stderr costs the messages, not the work."""
    sets = ("--set", f"replay.path={recording}", "--set", "replay.speed=0")
    words = " ".join(map(shlex.quote, command("publish", "replay", "--segment", segment_path, *sets)))
    for seq_count, redirection in ((200, "2>&-"), (400, "2>/dev/full")):
        result = subprocess.run(
            ["sh", "-c", f"{words} {redirection}"], capture_output=True, timeout=30, check=False
        )
        assert (result.returncode, result.stdout) == (0, b"")
        with SegmentReader(segment_path) as reader:
            assert reader.seq_count == seq_count
