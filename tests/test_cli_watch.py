"""``watch`` shows no time that ``now`` refuses: both ask a ``Clock``. Where it looks while there is nothing yet."""

import fcntl
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO

import anyio
import pytest

from kit.commands import run_command, start_command
from kit.terminals import run_on_terminal
from kit.told_world import World
from kit.waits import BOUND_S
from vmclock_async import CounterId, SegmentWriter, VMClockBody
from vmclock_async._cli.watch import follow


@contextmanager
def watching(runtime: Path, *args: object) -> Iterator[tuple[IO[str], IO[str]]]:
    """Stdout and stderr of ``watch`` on pipes; killed at the end."""
    process = start_command(runtime, "watch", *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        yield process.stdout, process.stderr
    finally:
        process.kill()
        process.communicate()


def test_watch_whose_output_nobody_reads_ends(world: World) -> None:
    """A full pipe or a stopped terminal does not keep SIGTERM from ending it, with the status that it has else."""
    process = start_command(world.path.parent, "watch", "--json", world.path, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        fcntl.fcntl(process.stdout.fileno(), fcntl.F_SETPIPE_SZ, 4096)
        line = process.stdout.readline()
        while waiting_in(process.stdout) + len(line) <= 4096:
            world.tell()
        for _ in range(3):
            world.tell()
        process.terminate()
        assert process.wait(BOUND_S) == 0
    finally:
        process.kill()
        process.communicate()


def waiting_in(pipe: IO[str] | None) -> int:
    """Number of bytes in *pipe* that nobody has read."""
    assert pipe is not None
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["drawn", "json"])
@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_watch_whose_terminal_is_gone_says_so_by_its_status(
    world: World, words: tuple[str, ...], told: bool
) -> None:
    """129, as of SIGHUP, and not as of an error; also where a write is refused before that signal comes."""
    parent, child = pty.openpty()
    process = start_command(world.path.parent, "watch", *words, world.path, stdout=child, stderr=child)
    os.close(child)
    try:
        os.read(parent, 1)
        os.close(parent)
        if told:
            process.send_signal(signal.SIGHUP)
        else:
            world.tell()  # so that there is something to write
        assert process.wait(BOUND_S) == 129
    finally:
        process.kill()
        process.wait()


def of_an_earlier_boot(world: World) -> None:
    """Another file with the same page and an old time, without whatever else a writer may keep with its file."""
    page = world.path.read_bytes()
    world.path.unlink()
    world.path.write_bytes(page)
    os.utime(world.path, (1, 1))


REFUSED: dict[str, tuple[Callable[[World], object], str]] = {
    "an earlier boot": (of_an_earlier_boot, "before this machine booted"),
    "a counter that is not fit": (lambda world: world.tell(counter_id=CounterId.INVALID), "counter_id is INVALID"),
    "another machine's counter": (lambda world: world.tell(counter_id=99), "the segment counts with"),
    "an old reference": (lambda world: world.tell(age_s=2000), "s old, more than 1000 s"),
    "no bound": (lambda world: world.tell(flags=0), "time_maxerror_nanosec is not valid"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_watch_refuses_what_now_refuses(world: World, kind: str) -> None:
    """On a pipe the line gives the reason in place of a time; with --json it is the object that ``now`` gives."""
    make, reason = REFUSED[kind]
    make(world)
    assert reason in run_command(world.path.parent, "now", world.path).stderr
    with watching(world.path.parent, world.path) as (lines, _):
        line = lines.readline()
    assert "no bounded time: " in line
    assert reason in line
    assert " +/- " not in line
    refused = json.loads(run_command(world.path.parent, "now", "--json", world.path).stdout)
    with watching(world.path.parent, "--json", world.path) as (lines, _):
        shown = json.loads(lines.readline())
    assert shown["now"] is None
    assert [shown[name] for name in ("bounded", "error", "remedy")] == [
        refused[name] for name in ("bounded", "error", "remedy")
    ]
    assert reason in shown["reason"]


def test_watch_says_that_a_time_is_bounded(world: World) -> None:
    """The key that tells success from failure is in each line."""
    with watching(world.path.parent, "--json", world.path) as (lines, _):
        shown = json.loads(lines.readline())
        assert shown["bounded"] is True
        assert shown["error_ns"] == shown["now"]["error_ns"]  # where a failure has it as well
        world.tell(flags=0)
        assert json.loads(lines.readline())["bounded"] is False
        world.tell()
        assert json.loads(lines.readline())["now"]["error_ns"] > 0


async def next_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What is printed next; one line."""
    while not (printed := capsys.readouterr().out):
        await anyio.sleep(0.01)
    return printed


@pytest.mark.long
@pytest.mark.anyio
async def test_watch_tells_of_what_no_commit_tells(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The device says that the machine was disrupted, and its publisher does not: a line says that there is no time."""
    with anyio.fail_after(50):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(follow, world.path, as_json=True, fence=world.device))
            assert json.loads(await next_line(capsys))["bounded"] is True
            world.device_says(2)
            refused = json.loads(await next_line(capsys))
            assert (refused["bounded"], refused["error"]) == (False, "ClockDisruptedError")
            assert "the device's disruption marker is 2" in refused["reason"]
            (lost,) = refused["events"]
            assert lost == {
                "event": "unbounded",
                **{name: refused[name] for name in ("error", "reason", "remedy")},
            }
            assert refused["seq_count"] == world.writer.seq_count
            world.marker = 2
            world.tell()
            shown = json.loads(await next_line(capsys))
            assert shown["bounded"] is True
            assert [event["event"] for event in shown["events"]] == ["disrupted", "bounded"]
            assert (shown["events"][0]["before"], shown["events"][0]["after"]) == (1, 2)
            world.remove()
            assert json.loads(await next_line(capsys))["error"] == "SegmentNotInitializedError"
            tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_watch_refuses_on_a_pipe_what_the_fence_refuses(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines for people, from the start: the device is ahead of the segment."""
    world.device_says(2)
    with anyio.fail_after(50):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(follow, world.path, as_json=False, fence=world.device))
            assert "no bounded time: the device's disruption marker is 2" in await next_line(capsys)
            tasks.cancel_scope.cancel()


def test_watch_waits_for_a_segment(world: World) -> None:
    """Until there is one it says so, once: with --json in an object, like every line of a time that is refused."""
    path = world.path.with_name("later")
    with watching(world.path.parent, "--json", path) as (lines, complaints):
        said = json.loads(lines.readline())
        assert (said["bounded"], said["error"]) == (False, "SegmentNotInitializedError")
        assert (said["now"], said["events"], said["path"]) == (None, [], str(path))
        assert "waiting for it" in complaints.readline()
        path.hardlink_to(world.path)
        assert json.loads(lines.readline())["bounded"] is True


def test_watch_looks_wherever_a_segment_may_come(world: World) -> None:
    """Without a path it looks in every place again and again, also in one that was none when it began."""
    runtime = world.path.with_name("runtime")
    with watching(runtime) as (lines, complaints):
        assert "nothing is there" in complaints.readline()
        runtime.mkdir(mode=0o700)
        (runtime / "vmclock-async").mkdir()
        (runtime / "vmclock-async" / "shm0").hardlink_to(world.path)
        assert " +/- " in lines.readline()


def marked(number: int) -> VMClockBody:
    """A synchronized body with the disruption marker *number*."""
    return VMClockBody(disruption_marker=number, clock_status=2)


def test_watch_prints_a_line_a_change_on_a_pipe(segment_path: Path) -> None:
    """Each commit is a line with its events; a reader of the pipe that has seen enough ends it quietly."""
    here = segment_path.parent
    watching = start_command(here, "watch", segment_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
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
        writer.write(marked(1))
    watching = start_command(segment_path.parent, "watch", segment_path, stdout=subprocess.PIPE)
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
                writer.write(marked(number))
            assert f"marker={number}" in watching.stdout.readline()
    finally:
        watching.send_signal(signal.SIGTERM)
        watching.communicate(timeout=10)
    assert watching.returncode == 0


def test_watch_prints_json(world: World) -> None:
    """With --json, each change is one line of JSON."""
    watching = start_command(world.path.parent, "watch", "--json", world.path, stdout=subprocess.PIPE)
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


def test_watch_on_a_terminal_fits_its_width(segment_path: Path) -> None:
    """The live view shows a segment that never had a time, with its history, and ends with Ctrl-C."""
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody(disruption_marker=5, clock_status=99))
    status, drawn = run_on_terminal("watch", segment_path, until="- no bounded time", columns=60)
    assert status == 130, drawn
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn)
    assert "Traceback" not in plain
    assert "clock_status is 99" in plain
    assert "status │?" in plain
    assert max(len(line) for line in re.split(r"[\r\n]+", plain)) <= 60


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_watch_on_a_terminal_that_cannot_draw_prints_lines(segment_path: Path, term: str) -> None:
    """Where nothing can be drawn in place, as in an editor's shell, there is a line a change."""
    with SegmentWriter(segment_path) as writer:
        writer.write(marked(5))
    status, printed = run_on_terminal("watch", segment_path, until="marker=5", term=term)
    assert status == 130, printed
    assert "seq_count=2  status=SYNCHRONIZED  marker=5  no bounded time: " in printed
