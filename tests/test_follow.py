"""``follow`` as a process, with a twin of ClockBound's client as its reader."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kit.adjtimex import AdjtimexStandIn
from kit.clockbound import NS, SYNCHRONIZED, UNKNOWN, Client, segment
from kit.commands import assert_one_line, failure, run_command, start_command
from kit.earlier_boot import require_attributes
from kit.forks import Started
from kit.told_world import World, true_ns
from kit.waits import BOUND_S, eventually
from vmclock_async import _core
from vmclock_async._segment.time_source import TimeSource, record_time_source

DAYS_NS = 3 * 86400 * NS
APART_NS = 100_000
"""How far the played clock may be from what a test takes it for."""


@pytest.fixture
def directory(world: World) -> Path:
    """The place of ClockBound's segments."""
    return world.path.parent / "clockbound"


@contextmanager
def following(runtime: Path, *args: object, variables: dict[str, str] | None = None) -> Iterator[Started]:
    """The command, once it keeps a segment; killed at the end if it has not ended."""
    process = start_command(
        runtime, "follow", *args, variables=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        assert "keeping ClockBound's segment in" in process.stderr.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process: Started, number: int) -> tuple[int, list[dict[str, Any]], str]:
    """Exit status, the objects on stdout and the lines on stderr of a command that gets the signal *number*."""
    process.send_signal(number)
    out, err = process.communicate(timeout=BOUND_S)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], err


def opened(path: Path, **how: Any) -> Client:
    """A client, once it reads a time."""

    def attempt() -> Client | None:
        if not path.exists():
            return None
        client = Client(path, **how)
        if client.now().status == SYNCHRONIZED:
            return client
        client.close()
        return None

    client: Client = eventually(attempt)
    return client


def is_right(client: Client, off_ns: int = 0) -> bool:
    """Whether the answer of *client* contains the truth, if CLOCK_REALTIME is off by *off_ns*."""
    before = _core.counter()
    answer = client.now(realtime_ns=time.time_ns() + off_ns)
    after = _core.counter()
    assert answer.status == SYNCHRONIZED
    apart_ns = APART_NS if off_ns else 0
    return answer.earliest - apart_ns <= true_ns(after) and true_ns(before) <= answer.latest + apart_ns


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGHUP, 129)])
def test_clients_read_the_time_until_it_ends(
    world: World, directory: Path, tmp_path: Path, number: int, status: int
) -> None:
    """Each change is a line for people and one for programs; at the end clients read UNKNOWN."""
    with following(tmp_path, world.path, "--clockbound", directory, "--json") as process:
        client = opened(directory / "shm0")
        for _ in range(50):
            assert is_right(client)
        world.tell(clock_status=0)
        eventually(lambda: client.now().status == UNKNOWN)
        found, objects, said = ended(process, number)
    assert found == status
    assert client.now().status == UNKNOWN
    assert client.read()["bound"] >= 10**18
    client.close()
    assert [each["status"] for each in objects] == ["SYNCHRONIZED", "UNKNOWN"]
    assert [each["bounded"] for each in objects] == [True, False]
    assert objects[0]["path"] == str(world.path)
    assert objects[0]["clockbound"] == str(directory)
    assert objects[0]["max_drift_ppb"] == 112_347_053
    assert objects[1]["reason"].startswith("clock_status is UNKNOWN")
    assert "SYNCHRONIZED: CLOCK_REALTIME is within " in said
    assert "UNKNOWN: clock_status is UNKNOWN; wait" in said


def test_clock_that_is_days_off_and_then_is_set(
    world: World, directory: Path, tmp_path: Path, played_clock: AdjtimexStandIn
) -> None:
    """The bound has all of it, and after the step the rest: the truth is inside before it and after it."""
    played_clock.play_step(-DAYS_NS)
    options = ("--clockbound", directory, "--interval", "10ms", "--max-slew", "500")
    with following(tmp_path, world.path, *options, variables=played_clock.environment):
        client = opened(directory / "shm0")
        assert is_right(client, -DAYS_NS)
        assert client.read()["drift"] == 1_001_002  # 500 ppm of the option, and the oscillator's
        assert DAYS_NS - NS < client.read()["bound"] < DAYS_NS + NS
        played_clock.play_step(0)
        eventually(lambda: client.read()["bound"] < NS)
        assert is_right(client)
        client.close()


def test_killed_command_is_started_again(world: World, directory: Path, tmp_path: Path) -> None:
    """Clients keep the last bound, and in the same file the next command's."""
    with following(tmp_path, world.path, "--clockbound", directory) as process:
        client = opened(directory / "shm0")
        process.kill()
        process.wait()
    assert is_right(client)
    generation = client.read()["generation"]
    with following(tmp_path, world.path, "--clockbound", directory):
        eventually(lambda: client.read()["generation"] > generation + 2)
        assert is_right(client)
    client.close()


def test_segment_that_is_not_there_yet(segment_path: Path, tmp_path: Path) -> None:
    """It is waited for, and the wait is said; a client that begins meanwhile reads UNKNOWN, and then the time."""
    args = (segment_path, "--clockbound", segment_path.parent / "clockbound")
    process = start_command(tmp_path, "follow", *args, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert "waiting for it" in process.stderr.readline()
        client = Client(segment_path.parent / "clockbound/shm0")
        assert client.now().status == UNKNOWN
        world = World(segment_path)
        eventually(lambda: client.now().status == SYNCHRONIZED)
        assert is_right(client)
        client.close()
        world.close()
    finally:
        process.kill()
        process.communicate()


def test_device_and_both_layouts(world: World, directory: Path, tmp_path: Path) -> None:
    """--device gives the marker that clients compare; --experimental-shm1 the other layout."""
    args = ("--device", world.device, "--experimental-shm1")
    with following(tmp_path, world.path, "--clockbound", directory, *args):
        for layout, name in {2: "shm0", 3: "shm1"}.items():
            client = opened(directory / name, layout=layout, device=world.device)
            assert (client.read()["marker"], client.read()["enabled"]) == (1, 1)
            client.close()


@pytest.mark.parametrize("is_there", [True, False])
def test_directory_that_cannot_be_used(segment_path: Path, tmp_path: Path, is_there: bool) -> None:
    """One line, before the publisher begins and after it, and nothing that claims that the segment is kept."""
    (tmp_path / "file").write_text("")
    world = World(segment_path) if is_there else None
    done = run_command(tmp_path, "follow", segment_path, "--clockbound", tmp_path / "file")
    assert_one_line(done, "a part of the path is no directory: choose another path")
    if world is not None:
        world.close()


def test_what_cannot_be_followed(world: World, directory: Path, tmp_path: Path) -> None:
    """A line for people, an object for programs: another writer, a time from ClockBound, no directory, no segment."""
    args = ("follow", world.path, "--clockbound", directory, "--json")
    with following(tmp_path, world.path, "--clockbound", directory):
        opened(directory / "shm0").close()
        error = failure(run_command(tmp_path, *args))
    assert (error["error"], error["path"]) == ("SegmentInUseError", str(directory / "shm0"))
    (world.path.parent / "file").write_text("")
    error = failure(run_command(tmp_path, *args[:-2], world.path.parent / "file", "--json"))
    assert error["error"] == "SegmentError"
    (world.path.parent / "other").write_bytes(segment())
    done = run_command(tmp_path, "follow", world.path.parent / "other", "--clockbound", directory)
    assert_one_line(done, "other: magic is")
    require_attributes(world.path)
    with world.path.open("rb+") as file:
        record_time_source(file.fileno(), TimeSource("clockbound", True))
    error = failure(run_command(tmp_path, *args))
    assert "made from itself" in error["reason"]
    assert error["remedy"] == "publish another source of time, or do not follow it"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "--clockbound"),
        (("--clockbound", "/x", "--max-slew", "400001"), "--max-slew"),
        (("--clockbound", "/x", "--interval", "1001ms"), "from 5ms to 1s"),
        (("--clockbound", "/x", "--interval", "4ms"), "from 5ms to 1s"),
    ],
)
def test_wrong_usage(tmp_path: Path, args: tuple[str, ...], words: str) -> None:
    """Status 2, and the option that is wrong."""
    done = run_command(tmp_path, "follow", *args)
    assert done.returncode == 2
    assert words in done.stderr
