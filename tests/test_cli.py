"""The command line, as real processes: results, exit statuses, and one line for every kind of bad input."""

import gzip
import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from kit import signals
from kit.commands import command, run_command, run_new_interpreter
from kit.earlier_boot import age_by_a_boot
from vmclock_async import ClockStatus, Flags, SegmentReader, SegmentWriter, VMClockBody, timebase
from vmclock_async.recording import Record, RecordingHeader, RecordingWriter
from vmclock_async.testing import PlayedSegment

HEADER = {
    "format": "vmclock-recording",
    "version": 1,
    "counter_id": 1,
    "time_type": 0,
    "segment_size": 112,
    "created": "2026-01-01T00:00:00Z",
}

Run = Callable[..., subprocess.CompletedProcess[str]]
Demos = list["Future[tuple[int, str, float]]"]


def demo_on_pipe() -> tuple[int, str]:
    """Exit status and output of ``demo``."""
    ended = subprocess.run(
        command("demo"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=60, check=False
    )
    return ended.returncode, ended.stdout


def timed(run: Callable[[], tuple[int, str]]) -> tuple[int, str, float]:
    """What *run* returns, and how many seconds it took."""
    start = time.monotonic()
    status, output = run()
    return status, output, time.monotonic() - start


@pytest.fixture(scope="module", autouse=True)
def demos(request: pytest.FixtureRequest) -> Iterator[Demos]:
    """``demo`` on a pipe and on a terminal, where they are wanted: 15 seconds, beside the other tests here."""
    wanted = any(test_demo_shows_time_a_migration_and_a_restore.__name__ == i.name for i in request.session.items)
    runs = (demo_on_pipe, partial(run_on_terminal, "demo")) if wanted else ()
    with ThreadPoolExecutor() as threads:
        yield [threads.submit(timed, run) for run in runs]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the command line to its end, in an environment that names no segment."""

    def run(*args: object, **variables: str) -> subprocess.CompletedProcess[str]:
        how = run_new_interpreter if "PYTHONPATH" in variables else run_command
        return how(tmp_path, *args, variables=variables)

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


def assert_one_line(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The run failed with status 1 and one line of complaint that holds *parts*; nothing on stdout."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    complaints = [line for line in result.stderr.splitlines() if not re.search(r": (warning|info): ", line)]
    assert len(complaints) == 1, result.stderr
    for part in parts:
        assert part in complaints[0]


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


BAD_SEGMENT = {
    "empty": (b"", "is empty"),
    "short": (b"VCLK", "too few"),
    "wrong magic": (b"ELF!" + bytes(100), "magic is 0x"),
    "version 0": (b"VCLK" + (104).to_bytes(4, "little") + bytes(96), "version is 0"),
    "version 9": (b"VCLK" + (104).to_bytes(4, "little") + b"\x09" + bytes(95), "version is 9"),
    "size below the header": (b"VCLK" + (8).to_bytes(4, "little") + b"\x01" + bytes(95), "size is 8"),
    "size past the end": (b"VCLK" + (112).to_bytes(4, "little") + b"\x01" + bytes(95), "size is 112"),
}


@pytest.mark.parametrize("kind", BAD_SEGMENT)
@pytest.mark.parametrize("reading", ["show", "now"])
def test_bad_segment_is_told_in_one_line(run: Run, segment_path: Path, reading: str, kind: str) -> None:
    """``show`` and ``now`` name the path and what is wrong with it."""
    page, complaint = BAD_SEGMENT[kind]
    segment_path.write_bytes(page)
    assert_one_line(run(reading, segment_path), str(segment_path), complaint)


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


def test_show_prints_the_page(run: Run, vectors: Path) -> None:
    """``show --json`` has the ABI's names and numbers; without it, people's words for them too."""
    path = vectors / "clockbound-writer" / "updater-02-warm-restart-marker-2-synchronized-tai-37.bin"
    shown = json.loads(run("show", "--json", path).stdout)
    assert shown["seq_count"] == 4
    assert shown["size"] == 104
    assert shown["body"]["clock_status"] == 2
    assert VMClockBody.model_validate_json(json.dumps(shown["body"])) == VMClockBody(
        disruption_marker=2, clock_status=2, tai_offset_sec=37
    )
    lines = run("show", path).stdout.splitlines()
    assert any(line.split() == ["clock_status", "2", "SYNCHRONIZED"] for line in lines)
    assert any("not valid" in line for line in lines if line.startswith("tai_offset_sec"))


@pytest.mark.parametrize("folder", ["clockbound-writer", "linux-device"])
def test_show_prints_what_other_programs_wrote(run: Run, vectors: Path, folder: str) -> None:
    """Pages of ClockBound's writer and of a real device are decoded to the bytes they came from."""
    for path in sorted((vectors / folder).glob("*.bin")):
        page = path.read_bytes()
        shown = json.loads(run("show", "--json", path).stdout)
        assert shown["size"] == len(page)
        assert VMClockBody.model_validate_json(json.dumps(shown["body"])).pack() == page[16:104]


def test_show_names_unknown_values(run: Run, segment_path: Path) -> None:
    """Bits and values without a name are shown as numbers."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody(clock_status=77, flags=Flags(1 << 33 | 2)), counter_id=0xFF)
    shown = run("show", segment_path).stdout
    assert "INVALID not this machine's counter" in shown
    assert "DISRUPTION_SOON 0x200000000 (unknown)" in shown
    assert re.search(r"clock_status +77 +77", shown)


def timed_body() -> VMClockBody:
    """A body that bounds the time of now to a millisecond, on this machine's counter."""
    pairing = timebase.pair(0)
    period = timebase.fixed_point_period(10**9, 2 * 10**9)
    seconds, ns = divmod(pairing.clock_ns, 10**9)
    return VMClockBody(
        flags=Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID,
        clock_status=ClockStatus.SYNCHRONIZED,
        counter_value=pairing.counter_ticks,
        counter_period_frac_sec=period.frac_sec,
        counter_period_shift=period.shift,
        counter_period_maxerror_rate_frac_sec=period.frac_sec // 2,
        time_sec=seconds,
        time_frac_sec=(ns << 64) // 10**9,
        time_maxerror_nanosec=10**6,
    )


def test_now_prints_a_bounded_reading(run: Run, segment_path: Path) -> None:
    """The interval contains the time at which it was asked for."""
    with SegmentWriter(segment_path) as writer:
        writer.write(timed_body(), counter_id=timebase.COUNTER_ID)
    shown = json.loads(run("now", "--json", segment_path).stdout)
    assert shown["earliest_ns"] <= shown["midpoint_ns"] <= shown["latest_ns"]
    assert shown["status"] == "SYNCHRONIZED"
    assert re.match(r"20\d\d-\d\d-\d\dT[\d:.]+Z \+/- [\d.]+ \w+  SYNCHRONIZED", run("now", segment_path).stdout)


def test_now_says_why_there_is_no_bound(run: Run, segment_path: Path) -> None:
    """Not synchronized, and of an earlier boot: each has its own line."""
    with SegmentWriter(segment_path) as writer:
        writer.write(body(1).model_copy(update={"clock_status": ClockStatus.INITIALIZING}))
    assert_one_line(run("now", segment_path), "clock_status is INITIALIZING")
    age_by_a_boot(segment_path)
    assert_one_line(run("now", segment_path), "before this machine booted")


def test_reader_finds_the_segment_by_variable(run: Run, segment_path: Path) -> None:
    """PATH defaults to $VMCLOCK_ASYNC_SEGMENT, for publisher and reader alike."""
    with SegmentWriter(segment_path) as writer:
        writer.write(body(3))
    shown = run("show", "--json", VMCLOCK_ASYNC_SEGMENT=str(segment_path))
    assert json.loads(shown.stdout)["path"] == str(segment_path)


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
    assert (option.returncode, "sped: no such field" in option.stderr) == (2, True)
    assert "its options: path, mode, speed, loop" in option.stderr
    assert publish(recording, "--set", "replay.speed=-1").returncode == 2
    assert publish(recording, "--set", "replay.mode=live").returncode == 2  # speed=0 is set too
    assert publish(recording, "--set", "nonsense").returncode == 2
    assert publish(recording, "--set", "other.path=1").returncode == 2
    assert run("publsh").returncode == 2


def test_configuration_file_gives_options(run: Run, recording: Path, tmp_path: Path, segment_path: Path) -> None:
    """One table a source; --set goes before it; a bad file is wrong usage."""
    config = tmp_path / "publish.toml"
    config.write_text(f'[replay]\npath = "{recording}"\nspeed = 1\n')
    args = ("publish", "replay", "--segment", segment_path, "--config", config)
    assert run(*args, "--set", "replay.speed=0").returncode == 0
    config.write_text("[replay")
    assert run(*args).returncode == 2
    assert run("publish", "replay", "--config", tmp_path / "nothing").returncode == 2


def test_sources_lists_what_is_installed_without_the_broken_breaking_it(run: Run, tmp_path: Path) -> None:
    """A plugin that cannot be imported is listed as such; chosen, it ends with one line; others are untouched."""
    metadata = tmp_path / "broken_source-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-source\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[vmclock_async.sources]\nbroken = no_such_module:Source\n")
    listed = run("sources", PYTHONPATH=str(tmp_path))
    assert listed.returncode == 0
    assert "broken  (broken-source 1.0)" in listed.stdout
    assert "broken: no_such_module:Source of broken-source 1.0 cannot be imported" in listed.stdout
    assert "replay.speed" in listed.stdout
    assert json.loads(run("sources", "--json").stdout)["replay"]["distribution"] == "vmclock-async"
    chosen = run("publish", "broken", PYTHONPATH=str(tmp_path))
    assert_one_line(chosen, "broken: no_such_module:Source of broken-source 1.0 cannot be imported")
    narrowed = run("sources", PYTHONPATH=str(tmp_path), VMCLOCK_ASYNC_SOURCES="replay")
    assert "broken" not in narrowed.stdout


def test_two_distributions_of_one_name_are_an_error(run: Run, tmp_path: Path) -> None:
    """Neither wins silently: both are named, listed and chosen; the sources of other names are listed as ever."""
    metadata = tmp_path / "rival-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[vmclock_async.sources]\nreplay = rival:Source\n")
    listed = run("sources", PYTHONPATH=str(tmp_path))
    assert (listed.returncode, listed.stderr) == (0, "")
    assert re.search(r"broken: offered by both .*rival.*; uninstall one of the two", listed.stdout)
    assert "kernel.poll_interval" in listed.stdout
    chosen = run("publish", "replay", PYTHONPATH=str(tmp_path))
    assert_one_line(chosen, "replay: offered by both", "rival", "vmclock-async")


@pytest.fixture
def slow_publisher(recording: Path, segment_path: Path) -> Iterator[subprocess.Popen[str]]:
    """``publish replay`` of a recording that would take a day, once it has committed its first body."""
    text = recording.read_text().splitlines(keepends=True)
    recording.write_text("".join(text[:2]) + record_line(2, t_ns=10**14))
    sets = ("--set", f"replay.path={recording}")
    process = subprocess.Popen(
        command("publish", "replay", "--segment", segment_path, "--json", *sets),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=signals.at_default,
    )
    try:
        wait_for_first_commit(segment_path)
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for_first_commit(path: Path) -> None:
    """Return once ``watch`` has shown a commit at *path*."""
    watching = subprocess.Popen(
        command("watch", path), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert watching.stdout is not None
        assert watching.stdout.readline().startswith("seq_count=")
    finally:
        watching.kill()
        watching.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_end_the_publisher_cleanly(
    slow_publisher: subprocess.Popen[str], segment_path: Path, number: int, status: int
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


def test_watch_prints_a_line_a_change_on_a_pipe(segment_path: Path) -> None:
    """Each commit is a line with its events; a reader of the pipe that has seen enough ends it quietly."""
    watching = subprocess.Popen(
        command("watch", segment_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert watching.stdout is not None
        assert watching.stderr is not None
        assert "waiting for it" in watching.stderr.readline()
        with SegmentWriter(segment_path, size=112) as writer:
            writer.write(VMClockBody(disruption_marker=1, clock_status=2, vm_generation_counter=4))
            assert watching.stdout.readline().startswith(
                "seq_count=2  status=SYNCHRONIZED  marker=1  generation=4"
            )
            writer.write(VMClockBody(disruption_marker=2, clock_status=0, vm_generation_counter=5))
            line = watching.stdout.readline()
            assert "[disrupted: marker 1 -> 2]" in line
            assert "[restored: generation 4 -> 5]" in line
            assert "[status SYNCHRONIZED -> UNKNOWN]" in line
            watching.stdout.close()
            writer.write(VMClockBody(disruption_marker=3))
            writer.write(VMClockBody(disruption_marker=4))
            assert watching.wait(10) == 0
            assert watching.stderr.read() == ""
    finally:
        watching.kill()
        watching.communicate()


def test_watch_lives_through_what_happens_to_a_publisher(
    segment_path: Path, make_page: Callable[..., bytes]
) -> None:
    """A cold start in place, an update that a dead writer left half done: watch goes on with the next commit."""
    with SegmentWriter(segment_path) as writer:
        writer.write(body(1))
    watching = subprocess.Popen(
        command("watch", segment_path), stdout=subprocess.PIPE, text=True, preexec_fn=signals.at_default
    )
    try:
        assert watching.stdout is not None
        assert "marker=1" in watching.stdout.readline()
        for number in range(2, 8):
            page = bytearray(segment_path.read_bytes())
            page[0x0C] |= 1  # died in mid-update
            with open(segment_path, "r+b") as file:
                file.write(page)
            os.utime(segment_path)
            with SegmentWriter(segment_path, size=104 + 8 * number) as writer:  # grows: a cold start in place
                writer.write(body(number))
            assert f"marker={number}" in watching.stdout.readline()
    finally:
        watching.send_signal(signal.SIGTERM)
        watching.communicate(timeout=10)
    assert watching.returncode == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGHUP, 129), (signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_demo_that_is_stopped_leaves_nothing_behind(number: int, status: int) -> None:
    """Whatever ends it, the temporary segment goes with it."""
    demo = subprocess.Popen(
        command("demo"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=signals.at_default,
    )
    try:
        assert demo.stdout is not None
        assert demo.stderr is not None
        place = re.search(r"into (/\S+)/shm0", demo.stderr.readline())
        assert place is not None
        assert demo.stdout.readline().startswith("seq_count=")
        demo.send_signal(number)
        _, complaints = demo.communicate(timeout=10)
    finally:
        demo.kill()
        demo.communicate()
    assert demo.returncode == status
    assert "Traceback" not in complaints
    assert not Path(place[1]).exists()


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


def test_watch_prints_json(segment_path: Path) -> None:
    """With --json, each change is one line of JSON."""
    with SegmentWriter(segment_path) as writer:
        writer.write(timed_body(), counter_id=timebase.COUNTER_ID)
    watching = subprocess.Popen(
        command("watch", "--json", segment_path),
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=signals.at_default,
    )
    try:
        assert watching.stdout is not None
        shown = json.loads(watching.stdout.readline())
        assert shown["seq_count"] == 2
        assert shown["now"]["error_ns"] > 0
        assert shown["events"] == []
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=10)
    assert watching.returncode == 130


def run_on_terminal(
    *args: object, until: str | None = None, columns: int = 100, term: str = "xterm"
) -> tuple[int, str]:
    """Run the command line on a pseudo-terminal to its end: the exit status and all that it drew.

    Once it has drawn *until*, it gets a Ctrl-C.
    """
    parent, child = pty.openpty()
    process = subprocess.Popen(
        command(*args),
        stdin=child,
        stdout=child,
        stderr=child,
        env=os.environ | {"TERM": term, "COLUMNS": str(columns)},
        preexec_fn=signals.at_default,
    )
    os.close(child)
    drawn = b""
    try:
        while chunk := _read(parent):
            drawn += chunk
            if until is not None and until.encode() in drawn:
                process.send_signal(signal.SIGINT)
                until = None
        return process.wait(30), drawn.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(parent)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: the last process on it has ended
        return b""


def test_publish_shows_progress_on_a_terminal(recording: Path, segment_path: Path) -> None:
    """Records done, of how many, the rate and the time left."""
    lines = recording.read_text().splitlines(keepends=True)[:1]
    lines += [record_line(number, t_ns=number * 10**7) for number in range(1, 101)]
    recording.write_text("".join(lines))
    status, drawn = run_on_terminal(
        "publish", "replay", "--segment", segment_path, "--set", f"replay.path={recording}"
    )
    assert status == 0, drawn
    assert "Traceback" not in drawn
    assert re.search(r"\d+/100", drawn), drawn
    assert re.search(r"[\d,]+/s", drawn), drawn
    assert re.search(r"0:00:0\d", drawn), drawn


def test_demo_shows_time_a_migration_and_a_restore(demos: Demos) -> None:
    """With no clock source at all: intervals, a migration and a restore go by in about 15 seconds; status 0."""
    year = time.gmtime().tm_year
    assert len(demos) == 2
    for demo in demos:
        status, shown, seconds = demo.result(timeout=60)
        assert status == 0, shown
        assert seconds > 10
        assert "Traceback" not in shown
        assert re.search(rf"{year}-\d\d-\d\dT[\d:.]+Z \+/- [\d.]+ us", shown)
        assert "disrupted: marker 40 -> 41" in shown
        assert re.search(r"restored: generation \d+ -> \d+", shown)
        assert "maintenance announced" in shown


def test_watch_on_a_terminal_fits_its_width(segment_path: Path) -> None:
    """The live view shows a segment that never had a time, and ends with Ctrl-C."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody(disruption_marker=5, clock_status=99))
    status, drawn = run_on_terminal("watch", segment_path, until="marker", columns=60)
    assert status == 130, drawn
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    assert "Traceback" not in plain
    assert "clock_status is 99" in plain
    assert max(len(line) for line in re.split(r"[\r\n]+", plain)) <= 60


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_watch_on_a_terminal_that_cannot_draw_prints_lines(segment_path: Path, term: str) -> None:
    """Where nothing can be drawn in place, as in an editor's shell, there is a line a change."""
    with SegmentWriter(segment_path) as writer:
        writer.write(body(5))
    status, printed = run_on_terminal("watch", segment_path, until="marker=5", term=term)
    assert status == 130, printed
    assert "seq_count=2  status=SYNCHRONIZED  marker=5  no bounded time: " in printed


def test_importing_the_package_imports_neither_the_command_line_nor_a_plugin() -> None:
    """Who embeds the library pays for anyio and pydantic alone."""
    program = (
        "import sys, vmclock_async\n"
        "heavy = {'typer', 'rich', 'inotify_simple', 'trio', 'vmclock_replay'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_control_characters_are_escaped(run: Run) -> None:
    """A path cannot drive the terminal."""
    result = run("show", "/nowhere/\x1b[31mred\n")
    assert "\x1b" not in result.stderr
    assert "\\x1b[31mred\\n" in result.stderr


def test_now_ends_at_once_with_its_output_and_its_status(segment: PlayedSegment, tmp_path: Path) -> None:
    """Into a pipe and into a file, with a bound and without: nothing is lost."""
    for status in (0, 1):
        segment.change(clock_status=ClockStatus.UNKNOWN if status else ClockStatus.SYNCHRONIZED)
        piped = run_new_interpreter(tmp_path, "now", "--json", segment.path)
        assert piped.returncode == status
        assert json.loads(piped.stdout)["bounded"] is (status == 0)
        filed = tmp_path / "output"
        with filed.open("w") as file:
            ended = subprocess.run([*command("now", "--json", segment.path)], stdout=file, check=False)
        assert (ended.returncode, json.loads(filed.read_text()).keys()) == (
            status,
            json.loads(piped.stdout).keys(),
        )


def test_now_with_the_usual_arguments_imports_no_typer(segment: PlayedSegment, tmp_path: Path) -> None:
    """Typer costs a fifth of a health check's processor time; it still understands arguments in other forms."""
    program = (
        "import sys\n"
        "from vmclock_async._cli import main\n"
        "status = main(sys.argv[1:])\n"
        "sys.exit(', '.join(sorted({'click', 'rich', 'typer'} & set(sys.modules))) or status)\n"
    )
    arguments = ["now", "--json", "--max-error", "1h", "--max-age", "1h", str(segment.path)]
    plain = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert (plain.returncode, plain.stderr) == (0, "")
    other = run_command(tmp_path, "now", "--json", "--max-error=1h", "--max-age=1h", segment.path)
    assert json.loads(plain.stdout).keys() == json.loads(other.stdout).keys()
