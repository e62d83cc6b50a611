"""The command ``wait``: real processes, for segments that come late, and the looks of which it is made."""

import json
import math
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kit.commands import assert_one_line, failure, run_command, start_command
from kit.forks import Started
from kit.told_world import World, open_descriptors
from kit.waits import BOUND_S, is_committed, until
from vmclock_async import Clock, ClockError, ClockStatus, SegmentWriter, _paths
from vmclock_async._cli.readiness import Demand, Found, Readiness
from vmclock_async._paths import SEGMENT_VARIABLE

LIVE = ("replay", "--set", "replay.mode=live", "--set", "replay.path=examples/recordings/time-source-lost.jsonl")


def waiting(runtime: Path, *args: object) -> Started:
    """``wait`` with pipes, once it has said what is missing; it has no time-out."""
    process = start_command(runtime, "wait", *args, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline().endswith("; waiting for it\n")
    return process


def result(process: Started) -> dict[str, Any]:
    """What it printed with --json, and nothing else, once there was a time."""
    out, err = process.communicate(timeout=BOUND_S)
    assert (process.returncode, err) == (0, "")
    (line,) = out.splitlines()
    said: dict[str, Any] = json.loads(line)
    assert said["bounded"] is True
    return said


def test_wait_prints_what_now_prints(world: World) -> None:
    """The line, and the keys of the object."""
    here, path = world.path.parent, world.path
    said, now = (json.loads(run_command(here, name, "--json", path).stdout) for name in ("wait", "now"))
    assert said.keys() == now.keys()
    assert said["earliest_ns"] <= now["latest_ns"]
    line = run_command(here, "wait", path, "--timeout", "1ns")  # one look is always made
    assert (line.returncode, line.stderr) == (0, "")
    assert " +/- " in line.stdout
    assert "  SYNCHRONIZED  reference " in line.stdout


def test_wait_goes_on_until_there_is_a_bound(segment_path: Path) -> None:
    """At boot: first the waiter, then a segment without a commit, then one without a bound, then a time."""
    with waiting(segment_path.parent, "--json", segment_path) as process:
        uncommitted = SegmentWriter(segment_path, size=112)
        uncommitted.close()
        world = World(segment_path)
        world.close()
        assert result(process)["status"] == "SYNCHRONIZED"


def test_wait_does_not_accept_what_now_refuses(world: World) -> None:
    """Without a bound it sleeps on; the commit of a bound wakes it."""
    world.tell(flags=0)
    with waiting(world.path.parent, "--json", world.path) as process:
        world.tell(clock_status=ClockStatus.UNKNOWN)
        assert process.poll() is None
        world.tell(clock_status=ClockStatus.FREERUNNING)
        assert result(process)["status"] == "FREERUNNING"


def test_wait_looks_wherever_a_segment_may_come(world: World) -> None:
    """Without a path, also in a directory that was not there when it began."""
    runtime = world.path.with_name("runtime")
    with waiting(runtime, "--json") as process:
        runtime.mkdir(mode=0o700)
        (runtime / "vmclock-async").mkdir()
        (runtime / "vmclock-async" / "shm0").hardlink_to(world.path)
        assert result(process)["path"] == str(runtime / "vmclock-async" / "shm0")


@pytest.mark.parametrize("options", [(), ("--stable", "100ms")], ids=["at once", "stable"])
def test_wait_for_a_publisher_that_is_killed_and_started_again(
    segment_path: Path, options: tuple[str, ...]
) -> None:
    """A real publisher comes after the waiter, is killed, and is started again: the wait ends with a time."""
    here = segment_path.parent
    demand = ("--status", "freerunning,synchronized", "--max-error", "1s", *options)
    with waiting(here, "--json", segment_path, *demand) as process:
        for _ in range(2):
            publisher = start_command(here, "publish", *LIVE, "--segment", segment_path, stderr=subprocess.DEVNULL)
            with publisher:
                try:
                    while not is_committed(segment_path) and publisher.poll() is None:
                        time.sleep(0.001)
                finally:
                    publisher.kill()
        assert result(process)["error_ns"] <= 10**9


def void(world: World) -> None:
    world.tell(clock_status=ClockStatus.UNKNOWN)


LACKS: dict[str, tuple[Callable[[World], object], tuple[str, ...], str, str]] = {
    "nothing there": (World.remove, (), "SegmentNotInitializedError", "nothing is there"),
    "nothing committed": (World.begin_afresh, (), "SegmentNotInitializedError", "version is 0"),
    "a half commit": (
        World.stop_in_mid_commit,
        (),
        "SegmentUnstableError",
        "seq_count stayed odd at 3 for 100 ms",
    ),
    "no bound": (
        lambda world: world.tell(flags=0),
        (),
        "ClockUnboundedError",
        "time_maxerror_nanosec is not valid",
    ),
    "an old reference": (lambda world: world.tell(age_s=2000), (), "ClockStaleError", "s old, more than 1000 s"),
    "no status": (void, (), "ClockNotSynchronizedError", "clock_status is UNKNOWN"),
    "the status asked for": (
        void,
        ("--status", "synchronized"),
        "ClockNotSynchronizedError",
        "clock_status is UNKNOWN, and --status asks for SYNCHRONIZED",
    ),
    "another status": (
        lambda world: world.tell(),
        ("--status", "FREERUNNING"),
        "ClockNotSynchronizedError",
        "clock_status is SYNCHRONIZED, and --status asks for FREERUNNING",
    ),
    "a wide bound": (
        lambda world: world.tell(time_maxerror_nanosec=3_000_000),
        ("--max-error", "1ms"),
        "ClockUnboundedError",
        "ns, more than --max-error (1000000 ns)",
    ),
    "not stable": (
        lambda world: world.tell(),
        ("--stable", "1h"),
        "ClockError",
        "the time was as asked for 0 s, and --stable asks for 3600 s",
    ),
}


@pytest.mark.parametrize("kind", LACKS)
def test_time_out_says_what_is_missing(world: World, kind: str) -> None:
    """One line for people; with --json the object of every failure, with the path, and no error that looks small."""
    make, options, error, reason = LACKS[kind]
    make(world)
    words = ("wait", world.path, *options, "--timeout", "1ms")
    assert_one_line(run_command(world.path.parent, *words), reason)
    said = failure_of(run_command(world.path.parent, *words, "--json"))
    assert (said["error"], said["path"]) == (error, str(world.path))
    assert reason in said["reason"]
    if kind == "a wide bound":
        assert said["error_ns"] >= 3_000_000
    else:
        assert said["error_ns"] == 2**64 - 1


def failure_of(done: "subprocess.CompletedProcess[str]") -> dict[str, Any]:
    """Like ``failure``, where the error may be known and too large."""
    said: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, said["bounded"], len(done.stdout.splitlines())) == (1, False, 1)
    assert all(isinstance(said[name], str) and said[name] for name in ("error", "reason", "remedy"))
    return said


def test_time_out_names_every_place(segment_path: Path) -> None:
    """Without a path and without a segment the failure is that of ``now``."""
    here = segment_path.parent
    assert failure(run_command(here, "wait", "--json", "--timeout", "1ms")) == failure(
        run_command(here, "now", "--json")
    )


def test_what_is_no_segment_is_told_at_once(segment_path: Path) -> None:
    """It is not waited for, although there is no time-out."""
    segment_path.write_bytes(b"x" * 300)
    said = failure(run_command(segment_path.parent, "wait", "--json", segment_path))
    assert said["error"] == "SegmentMalformedError"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--status", "unknown"), "no bounded time has the status 'UNKNOWN': take SYNCHRONIZED or FREERUNNING"),
        (("--status", "synchronized,"), "no bounded time has the status ''"),
        (("--timeout", "0s"), "'0s' is no duration from 1 ns"),
        (("--max-error", "soon"), "'soon' is no duration"),
        (("--stable", "soon"), "'soon' is no duration"),
        (("--max-age", "1s"), "No such option"),
    ],
)
def test_wrong_usage_of_wait(segment_path: Path, words: tuple[str, ...], complaint: str) -> None:
    """Status 2, at once, and the reason in the object."""
    said = failure(run_command(segment_path.parent, "wait", "--json", segment_path, *words), status=2)
    assert complaint in said["reason"]


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)], ids=str
)
def test_wait_that_is_stopped_does_not_say_that_there_is_a_time(
    segment_path: Path, number: int, status: int
) -> None:
    """Status 0 would start what waits for a time; nothing is printed."""
    with waiting(segment_path.parent, "--json", segment_path) as process:
        process.send_signal(number)
        assert process.communicate(timeout=BOUND_S) == ("", "")
    assert process.returncode == status


class Looks:
    """A wait that runs in a task of its own, and what it finds."""

    def __init__(self, path: Path | None, demand: Demand) -> None:
        self.lacks: list[str] = []
        self.results: list[Found] = []
        self.readiness = Readiness(path, demand, lambda lack: self.lacks.append(str(lack)))

    async def run(self) -> None:
        self.results.append(await self.readiness.wait())

    @property
    def holds(self) -> bool:
        """Whether the last look found nothing missing."""
        return self.readiness._since is not None

    def begun_again(self, since: float | None) -> bool:
        """Whether another while than the one from *since* has begun."""
        return self.holds and self.readiness._since != since


@asynccontextmanager
async def looking(path: Path | None, demand: Demand) -> AsyncIterator[Looks]:
    """A wait beside the block; cancelled at its end."""
    looks = Looks(path, demand)
    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(looks.run)
            yield looks
            tasks.cancel_scope.cancel()


def migrate(world: World) -> None:
    world.marker += 1
    world.tell()


def widen(world: World) -> None:
    world.tell(time_maxerror_nanosec=2 * 10**6)


BREAKS: dict[str, tuple[Callable[[World], object], str]] = {
    "a disruption": (migrate, "the disruption marker moved from 1 to 2"),
    "no status": (void, "clock_status is UNKNOWN"),
    "a wide bound": (widen, "more than --max-error (1000000 ns)"),
    "another segment": (World.replace, "the segment was replaced by another"),
    "a removed segment": (World.remove, "nothing is there"),
    "a publisher that died in mid-commit": (World.stop_in_mid_commit, "seq_count stayed odd"),
    "a cold start": (World.begin_afresh, "version is 0"),
}


@pytest.mark.long
@pytest.mark.anyio
@pytest.mark.parametrize("kind", BREAKS)
async def test_break_begins_the_while_again(world: World, kind: str) -> None:
    """Each break ends the while, and is what was missing before the next one."""
    make, reason = BREAKS[kind]
    async with looking(world.path, Demand(max_error_ns=10**6, stable_ns=3600 * 10**9)) as looks:
        await until(lambda: looks.holds)
        # Earlier than any other while: uvloop counts milliseconds, and the next one may begin in the same.
        looks.readiness._since = since = anyio.current_time() - 1
        make(world)
        await until(lambda: looks.readiness._before is not None)
        assert reason in str(looks.readiness._before)
        if kind not in ("a disruption", "another segment"):
            assert not looks.holds
            world.restart_publisher()
            world.tell()
        await until(lambda: looks.begun_again(since))
        assert looks.results == []


@pytest.mark.anyio
async def test_commits_that_keep_the_time_do_not_begin_the_while_again(world: World) -> None:
    """A publisher commits each second: the while goes on, and ends the wait when it has been long enough."""
    async with looking(world.path, Demand(stable_ns=300 * 10**6)) as looks:
        await until(lambda: looks.holds)
        since = looks.readiness._since
        assert since is not None
        while not looks.results:
            assert looks.readiness._since == since
            world.tell()
            await anyio.sleep(0.01)
        assert anyio.current_time() - since >= 0.3
        assert looks.results[0].lack is None
        assert looks.lacks == []


@pytest.mark.anyio
async def test_machines_segment_that_comes_later_goes_before_a_users(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user's, from an earlier session, has no time, so ``wait`` looks at what ``now`` reads by then."""
    system, runtime = world.path.parent / "run" / "shm0", world.path.parent / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.delenv(SEGMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(_paths, "SYSTEM_PATH", system)
    (runtime / "vmclock-async").mkdir()
    users = World(runtime / "vmclock-async" / "shm0")
    void(users)
    async with looking(None, Demand()) as looks:
        await until(lambda: looks.lacks)
        system.parent.mkdir()
        system.hardlink_to(world.path)
        await until(lambda: looks.results)
    users.close()
    assert looks.results[0].facts["path"] == str(system)


@pytest.mark.anyio
async def test_bound_that_grew_past_the_limit_between_two_looks_is_a_break(world: World) -> None:
    """No look need have found it: the next commit, narrow again, shows what became of the page before."""
    limit_ns = 50 * 10**6
    rate = world.writer.body.counter_period_frac_sec // 10  # the bound grows by 100 ms a second
    world.tell(counter_period_maxerror_rate_frac_sec=rate)
    async with looking(world.path, Demand(max_error_ns=limit_ns, stable_ns=3600 * 10**9)) as looks:
        await until(lambda: looks.holds)
        looks.readiness._since = since = anyio.current_time() - 1  # uvloop counts milliseconds
        with Clock(world.path, fence=None) as clock:
            await until(lambda: clock.now().error_ns > limit_ns)
        world.tell()
        await until(lambda: looks.begun_again(since))
        assert f"more than {limit_ns}" in str(looks.readiness._before)


@pytest.mark.anyio
async def test_time_out_says_how_long_the_time_was_good_and_what_was_before(world: World) -> None:
    """The operator sees what broke the while."""
    async with looking(world.path, Demand(stable_ns=10 * 10**9)) as looks:
        await until(lambda: looks.holds)
        migrate(world)
        await until(lambda: looks.readiness._before is not None)
        looks.readiness._end = -math.inf  # the time-out comes
        world.tell()
        await until(lambda: looks.results)
    lack = looks.results[0].lack
    assert type(lack) is ClockError
    assert lack.seen.startswith("the time was as asked for ")
    assert "and --stable asks for 10 s (before that: the disruption marker moved from 1 to 2)" in lack.seen
    assert lack.remedy == "wait longer, or ask for less"


@pytest.mark.long
@pytest.mark.anyio
async def test_cancelled_readiness_leaves_nothing(world: World) -> None:
    """While it waits for a bound, and while the segment is gone."""
    demand = Demand(stable_ns=3600 * 10**9)
    async with looking(world.path, demand) as looks:
        await until(lambda: looks.holds)
    before = open_descriptors()
    async with looking(world.path, demand) as looks:
        await until(lambda: looks.holds)
        world.remove()
        await until(lambda: not looks.holds)
    assert not open_descriptors() - before
