"""What an operator may meet, played through with real processes and the command line: order, ends, disks, surroundings.

Each line on stderr that is a complaint says what was seen, and then what to do; none is a traceback.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import pytest

from kit.chronyd import free_port
from kit.commands import environment, failure, run_command
from kit.elsewhere import ORDINARY, may_mount, start_elsewhere
from kit.forks import Started
from kit.in_turn import forked_in_turn, in_turn
from kit.mounts import in_own_mounts
from kit.played_chronyd import PlayedChronyd
from kit.told_world import World, body_now
from kit.two_times import AHEAD_NS, Readings
from kit.waits import BOUND_S, eventually
from vmclock_async import Clock, SegmentNotInitializedError, SegmentWriter
from vmclock_async.recording import RecordingReader
from vmclock_async.timebase import COUNTER_ID

INCIDENT: Final = Path(__file__).parent.parent / "examples" / "recordings" / "time-source-lost.jsonl"
FAST: Final = ("--set", f"replay.path={INCIDENT}", "--set", "replay.speed=0")
FULL: Final = "mount -t tmpfs -o size=64k none /mnt; head -c 64k /dev/zero >/mnt/all 2>/dev/null || true"

Start = Callable[..., Started]


@pytest.fixture
def start(segment_path: Path) -> Iterator[Start]:
    """Starts the command line as ``start_elsewhere`` does; killed when the test ends."""
    with ExitStack() as stack:

        def start(*args: object, **how: Any) -> Started:
            process = start_elsewhere(segment_path.parent, *args, **how)
            stack.callback(process.communicate)
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def log(tmp_path: Path) -> Iterator[IO[str]]:
    """The stderr of publishers; no traceback is in it when the test ends."""
    with (tmp_path / "log").open("w+") as file:
        yield file
    assert "Traceback" not in text_of(file)


def text_of(log: IO[str]) -> str:
    return Path(log.name).read_text(encoding="utf-8")


def until_logged(log: IO[str], part: str) -> None:
    eventually(lambda: part in text_of(log), pause_s=0.01)


def of_chronyd(port: int, segment: Path) -> tuple[object, ...]:
    """The words of a publisher that asks the chronyd at *port* twenty times a second."""
    sets = ("--set", f"chrony.address=127.0.0.1:{port}", "--set", "chrony.poll_interval=0.05")
    return ("publish", "chrony", "--segment", segment, *sets)


def line_of(process: Started) -> dict[str, Any]:
    """The next line of JSON on its stdout."""
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


def bounded_line_of(process: Started) -> dict[str, Any]:
    """The next one of ``watch --json`` that has a time; those before it say what to do."""
    while (line := line_of(process)).get("bounded") is not True:
        assert line["reason"]
        assert line["remedy"]
    return line


def assert_says_what_to_do(done: "subprocess.CompletedProcess[str]", *parts: str) -> dict[str, Any]:
    """A run with ``--json`` failed: stderr has one line, of what was seen and what to do, and the object has both."""
    said = failure(done)
    (line,) = [
        line
        for line in done.stderr.splitlines()
        if not re.search(r": (warning|info): |waiting for it|Ctrl-C ends it", line)
    ]
    for part in (*parts, said["remedy"]):
        assert part in line
    return said


def ended(process: Started) -> "subprocess.CompletedProcess[str]":
    out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode is not None
    return subprocess.CompletedProcess([], process.returncode, out, err)


@pytest.mark.parametrize("user", [None, ORDINARY], ids=["this user", "an ordinary user"])
def test_boot_in_the_worst_order_needs_no_restart(
    start: Start, log: IO[str], segment_path: Path, user: int | None
) -> None:
    """First those that wait, then the publisher, then chronyd, and last its server: all go on, and get a time."""
    if user is not None and os.geteuid() == 0:
        os.chown(segment_path.parent, user, user)
    port = free_port()
    wait, watch = (
        start(*words, segment_path, user=user, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for words in (("wait", "--json", "--max-error", "1s"), ("watch", "--json"))
    )
    for process in (wait, watch):
        assert process.stderr is not None
        assert process.stderr.readline().endswith("start a publisher, or check the path; waiting for it\n")
    assert line_of(watch)["remedy"] == "start a publisher, or check the path"
    publisher = start(*of_chronyd(port, segment_path), user=user, stderr=log)
    until_logged(log, f"no answer from chronyd at 127.0.0.1:{port}")
    assert "is it running, and is this its address?" in text_of(log)
    with PlayedChronyd(port) as chronyd:
        chronyd.say(leap=3)
        until_logged(log, "chronyd is not synchronized")
        assert wait.poll() is None
        chronyd.say(leap=0)
        assert ended(wait).returncode == 0
        assert bounded_line_of(watch)["body"]["clock_status"] == 2
    assert (publisher.poll(), watch.poll()) == (None, None)


def test_readers_go_on_while_a_publisher_is_killed_restarted_and_upgraded(
    start: Start, log: IO[str], segment_path: Path
) -> None:
    """Killed, started again, replaced by a build with a larger page, and by the former: no interval is wrong, the only
    error is that of a page without a commit, and ``watch`` goes on.
    """
    with PlayedChronyd() as chronyd, ExitStack() as stack:
        words = of_chronyd(chronyd.port, segment_path)
        publisher = start(*words, stderr=log)
        until_logged(log, "the time comes from chrony")
        watch = start("watch", "--json", segment_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        readings = Readings(stack.enter_context(Clock(segment_path, fence=None)))

        def restart_after(number: int) -> Started:
            restarted = start(*words, stderr=log)
            readings.until(lambda: seq_count(segment_path) >= number + 6)
            return restarted

        kill(publisher)
        readings.until(lambda: True)
        publisher = restart_after(seq_count(segment_path))
        assert readings.errors == set()
        kill(publisher)
        with SegmentWriter(segment_path, size=120) as other:
            assert not readings.read()
            body = body_now(changes={"disruption_marker": 1, "time_maxerror_nanosec": 10**8})
            number = other.write(body, counter_id=COUNTER_ID, time_type=0)
            readings.until(lambda: True)
        restart_after(number)
        shown = bounded_line_of(watch)
        while shown["seq_count"] <= number:
            shown = bounded_line_of(watch)
        assert (shown["size"], watch.poll()) == (120, None)
    assert readings.errors == {SegmentNotInitializedError}


def kill(process: Started) -> None:
    process.kill()
    process.wait(BOUND_S)


def seq_count(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[12:16], "little")


def test_chronyd_replaced_by_another_that_contradicts_it(start: Start, log: IO[str], segment_path: Path) -> None:
    """No interval excludes what the present chronyd says, none goes back, and the log says what happened."""
    with PlayedChronyd() as first:
        port = first.port
        start(*of_chronyd(port, segment_path), stderr=log)
        until_logged(log, "the time comes from chrony")
        clock = Clock(segment_path, fence=None)
        readings = Readings(clock)
        readings.until(lambda: True)
        marker = marker_of(segment_path)
    with clock, PlayedChronyd(port) as second:
        ahead_s = AHEAD_NS // 10**9
        second.say(leap=3)  # as each one that was started a moment ago
        readings.until(lambda: "chronyd is not synchronized" in text_of(log))
        second.say(leap=0, reference_id=0x0A000001, offset=ahead_s, last_offset=-ahead_s, age_s=-ahead_s)
        readings.until(lambda: readings.is_ahead)
        readings.until(lambda: "contradicts" in text_of(log))
    assert readings.errors == set()
    assert marker_of(segment_path) != marker
    assert re.search(r"chrony contradicts what was published: measured \d+ to \d+ ns, promised", text_of(log))
    assert "it is published under a new disruption marker" in text_of(log)


def marker_of(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[16:24], "little")


def test_second_publisher_is_told_who_holds_it_and_comes_after(
    start: Start, log: IO[str], segment_path: Path
) -> None:
    """It ends with the number of the first one; once that has ended, the second one goes on with its segment."""
    with PlayedChronyd() as chronyd:
        words = of_chronyd(chronyd.port, segment_path)
        first = start(*words, stderr=log)
        until_logged(log, "the time comes from chrony")
        refused = run_command(segment_path.parent, *words, "--json")
        said = assert_says_what_to_do(refused, str(segment_path), f"process {first.pid} is writing to it")
        assert (said["error"], said["path"]) == ("SegmentInUseError", str(segment_path))
        first.terminate()
        assert first.wait(BOUND_S) == 0
        reached = seq_count(segment_path)
        start(*words, stderr=log)
        eventually(lambda: seq_count(segment_path) > reached)


FILES: Final = {
    "publish": ("publish", "replay", *FAST, "--segment", "/mnt/shm0"),
    "record": ("record", "--output", "/mnt/r.jsonl"),
    "metrics": ("metrics", "--textfile", "/mnt/m.prom"),
    "report": ("report", INCIDENT, "--output", "/mnt/r.html"),
    "doctor": ("doctor", "--bundle", "/mnt/b.tar.gz"),
}
"""Commands that write a file."""


@pytest.mark.parametrize(
    ("name", "kind"), [*((name, "full") for name in FILES), ("publish", "read-only"), ("metrics", "read-only")]
)
def test_disk_that_takes_no_file_is_named(start: Start, world: World, name: str, kind: str) -> None:
    """One line with the path, the system's reason and what to do, and status 1; no half a file is left."""
    may_mount()
    words = [*FILES[name], *([world.path] if name in ("record", "metrics", "doctor") else [])]
    words += [] if name == "metrics" else ["--json"]
    left = world.path.with_name("left")
    mounts = FULL if kind == "full" else "mount -t tmpfs -o ro none /mnt"
    process = start(
        *words, mounts=mounts, afterwards=f"ls -A /mnt >{left}", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    done = ended(process)
    parts = {
        "full": ("No space left on device", "make room, or choose another path"),
        "read-only": ("Read-only file system", "its file system is read-only: choose "),
    }[kind]
    if name == "metrics":  # it has no JSON
        assert (done.returncode, done.stdout) == (1, "")
        assert all(part in done.stderr for part in ("/mnt/m.prom: ", *parts)), done.stderr
    else:
        said = assert_says_what_to_do(done, *parts)
        assert said["path"] == next(str(word) for word in words if str(word).startswith("/mnt/"))
    assert left.read_text().split() == (["all"] if kind == "full" else [])


def test_recording_is_whole_up_to_where_the_disk_was_full(start: Start, world: World, tmp_path: Path) -> None:
    """One line with what to do; what was written before can be read, by the command line too."""
    may_mount()
    copy = tmp_path / "r.jsonl"
    process = start(
        *("record", world.path, "--output", "/mnt/r.jsonl", "--json"),
        mounts="mount -t tmpfs -o size=4k none /mnt",
        afterwards=f"cp /mnt/r.jsonl {copy}",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    eventually(lambda: process.poll() is not None or world.tell() is None, pause_s=0.002)
    assert_says_what_to_do(
        ended(process), "/mnt/r.jsonl", "No space left on device", "make room, and read what was written before"
    )
    assert copy.stat().st_size <= 4096
    with RecordingReader(copy) as reader:
        numbers = [record.seq_count for record in reader.read(1000)]
    assert len(numbers) >= 2
    assert numbers == sorted(numbers)


READ_ONLY: Final = 'mount --bind "{0}" "{0}"; mount -o remount,bind,ro "{0}"'


def test_segment_on_a_read_only_mount_is_read_and_not_written(start: Start, world: World) -> None:
    """As in a container: a publisher there says what to do, and readers get each commit."""
    may_mount()
    mounts = READ_ONLY.format(world.path.parent)
    piped = {"mounts": mounts, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    world.writer.close()
    refused = start("publish", "replay", *FAST, "--segment", world.path, "--json", **piped)
    assert_says_what_to_do(ended(refused), f"{world.path}.lock", "Read-only file system", "choose a path on one")
    world.writer = SegmentWriter(world.path)
    watch, wait, metrics = (
        start(*words, world.path, **piped) for words in (("watch", "--json"), ("wait",), ("metrics",))
    )
    first = bounded_line_of(watch)["seq_count"]
    assert world.tell() > first
    assert bounded_line_of(watch)["seq_count"] > first
    assert ended(wait).returncode == 0
    assert "vmclock_bounded 1.0" in ended(metrics).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may be several users")
def test_directory_of_roots_is_read_by_an_ordinary_user_and_not_written(start: Start, world: World) -> None:
    """What the permissions refuse is said with what to do; no time is refused."""
    piped = {"user": ORDINARY, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    world.writer.close()
    refused = start("publish", "replay", *FAST, "--segment", world.path, "--json", **piped)
    assert_says_what_to_do(ended(refused), str(world.path), "Permission denied", "write access")
    assert ended(start("now", "--json", world.path, **piped)).returncode == 0


ODD: Final = {
    "TZ": "Asia/Kathmandu",
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "C",
    "PYTHONUTF8": "0",
    "PYTHONCOERCECLOCALE": "0",
}


def test_time_zone_and_locale_change_nothing(world: World) -> None:
    """publish, show, report and a refused ``now`` print the same as in UTC; a time is printed in UTC, too."""
    segment_path = world.path.with_name("replayed")
    page = world.path.with_name("r.html")
    printed, pages = [], []
    for run in (forked_in_turn, partial(in_turn, variables=ODD)):
        segment_path.unlink(missing_ok=True)
        commands = [
            ["publish", "replay", *FAST, "--segment", segment_path],
            ["show", segment_path],
            ["report", INCIDENT, "--output", page],
            ["now", "--json", world.path.with_name("none")],
            ["now", world.path],
        ]
        before = time.time_ns()
        statuses, out, err = run(world.path.parent, commands)
        *lines, now = out.splitlines()
        read = datetime.fromisoformat(f"{now.split()[0][:26]}Z").timestamp()
        assert before - 10**9 < read * 10**9 < time.time_ns() + 10**9
        assert statuses == [0, 0, 0, 1, 0]
        # What differs by itself is how far the counter has come since the recording.
        printed.append(re.sub(r"the counter is \S+ s behind", "", "\n".join([*lines, err])))
        pages.append(page.read_bytes())
    assert printed[0] == printed[1]
    assert pages[0] == pages[1]


HIDDEN: Final = (
    "mount -t proc -o subset=pid none /proc",
    *(f"mount -t tmpfs -o ro,mode=0 none {place}" for place in ("/sys", "/tmp", "/var/tmp")
      if not any(Path(file).is_relative_to(place) for file in (sys.executable, __file__))),
    "PATH=/nonexistent",
)  # fmt: skip
BARE: Final = {"HOME": "/nonexistent", "TMPDIR": "/tmp"}


def test_machine_that_hides_itself_has_its_time_all_the_same(segment_path: Path, log: IO[str]) -> None:
    """With ``ProcSubset=pid``, no /sys, no place for temporary files, no ``ldconfig`` and no compiler: ``publish auto``
    takes chronyd; ``wait``, ``now`` and ``doctor`` end with 0."""
    interpreter = in_own_mounts(*HIDDEN, own_processes=True)
    with PlayedChronyd() as chronyd:
        sets = ("--set", f"chrony.address={chronyd.address}", "--segment", str(segment_path))
        publisher = subprocess.Popen(
            [*interpreter, "-m", "vmclock_async", "publish", "auto", *sets],
            stderr=log,
            env=environment(segment_path.parent, BARE),
        )
        try:
            commands = [
                ["wait", "--timeout", "20s", "--max-error", "1s", segment_path],
                ["now", "--json", segment_path],
                ["doctor", segment_path],
            ]
            statuses, out, err = in_turn(segment_path.parent, commands, variables=BARE, interpreter=interpreter)
        finally:
            publisher.kill()
            publisher.wait()
    assert statuses == [0, 0, 0], (out, err, text_of(log))
    assert re.search("a bounded time is possible from: .*segment\n", out)
    assert "the time comes from chrony" in text_of(log)
