"""The command ``on``: real processes, for a segment that is played."""

import json
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from kit.commands import failure, run_command, start_command
from kit.forks import Started
from kit.told_world import BOUNDED, World
from kit.waits import BOUND_S, eventually
from vmclock_async import Flags, SegmentReader, SegmentWriter
from vmclock_async._cli.handled import Handled, StateFile, present_boot
from vmclock_async.abi import OWN_GENERATION
from vmclock_async.events import Disrupted
from vmclock_async.testing import PlayedSegment, make_body

FAST: Final = ("true",)


class Hooked:
    """A running ``on`` with ``--json``, in a session of its own."""

    def __init__(self, process: Started, complaints: Path) -> None:
        self.process: Final = process
        self._complaints: Final = complaints

    def run(self) -> dict[str, Any]:
        """How the next run went."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.complaints
        run: dict[str, Any] = json.loads(line)
        return run

    def happened(self) -> tuple[object, ...]:
        """The next run's event, and the numbers before and after."""
        run = self.run()
        return run["event"], run.get("before"), run.get("after")

    @property
    def complaints(self) -> str:
        """All that was said on stderr."""
        return self._complaints.read_text()

    def end(self) -> None:
        """Stop it as a service manager does."""
        self.process.terminate()
        assert self.process.wait(BOUND_S) == 0
        assert self.process.stdout is not None
        assert self.process.stdout.read() == ""


@contextmanager
def hooked(path: Path, events: str, *options: object, words: tuple[str, ...] = FAST) -> Iterator[Hooked]:
    """``on`` for the segment at *path*; killed at the end, if it runs then."""
    complaints = path.with_name("complaints")
    with complaints.open("w") as stderr:
        process = start_command(
            path.parent,
            *("on", events, path, "--json", *options, "--", *words),
            stdout=subprocess.PIPE,
            stderr=stderr,
            start_new_session=True,
        )
    with process:
        try:
            yield Hooked(process, complaints)
        finally:
            process.kill()


@contextmanager
def listening(path: Path, events: str, *options: object, words: tuple[str, ...] = FAST) -> Iterator[Hooked]:
    """The same, once it has seen the segment: ``--now`` shows that."""
    with hooked(path, events, "--now", *options, words=words) as hook:
        assert hook.happened() == ("now", None, None)
        yield hook


class Gate:
    """A command that waits while the gate is shut, and then writes its process number to a file first."""

    def __init__(self, directory: Path) -> None:
        self._shut = directory / "shut"
        self._running = directory / "running"
        self._done = directory / "done"
        os.mkfifo(directory / "gate")
        self._fifo = directory / "gate"
        shut, running, done, fifo = (
            shlex.quote(str(each)) for each in (self._shut, self._running, self._done, self._fifo)
        )
        script = f"if [ -e {shut} ]; then echo $$ > {running}; read line < {fifo}; echo done > {done}; fi"
        self.words: Final = ("sh", "-c", script)

    def shut(self) -> None:
        """Let the runs from now on wait."""
        self._shut.touch()

    def pid(self) -> int:
        """The process of the run that waits, once there is one."""
        return int(eventually(lambda: self._running.exists() and self._running.read_text().strip()))

    @property
    def is_done(self) -> bool:
        """Whether the run that waited has come to its end."""
        return self._done.exists()

    def open(self) -> None:
        """Let the run that waits, and all later ones, go on."""
        self._shut.unlink()
        self._fifo.write_text("go\n")


def test_restore_runs_the_hook_once(segment: PlayedSegment) -> None:
    """Other events, and commits in which nothing happens, run nothing."""
    with listening(segment.path, "restored") as hook:
        segment.restore()
        run = hook.run()
        assert run == {"event": "restored", "before": 1, "after": 2, "exit_status": 0, "seconds": run["seconds"]}
        assert 0 <= run["seconds"] < BOUND_S
        segment.migrate()
        segment.announce_maintenance()
        segment.regain_sync()
        segment.restore()
        assert hook.happened() == ("restored", 2, 3)
        hook.end()


def test_two_events_of_one_commit_are_two_runs(segment: PlayedSegment) -> None:
    """Each once, the disruption first."""
    with listening(segment.path, "disrupted,restored,maintenance") as hook:
        segment.restore()
        assert hook.happened() == ("disrupted", 1, 2)
        assert hook.happened() == ("restored", 1, 2)
        segment.announce_maintenance(imminent=True)
        assert hook.run()["imminent"] is True
        hook.end()


def test_command_gets_the_event(segment: PlayedSegment) -> None:
    """As one line of JSON on stdin, and in variables; what it prints goes to stderr, because stdout is JSON."""
    with listening(segment.path, "disrupted", words=("sh", "-c", "cat; env | grep ^VMCLOCK_ASYNC_")) as hook:
        segment.step(5)
        run = hook.run()
        hook.end()
        given, *variables = hook.complaints.partition('{"event": "disrupted"')[2].splitlines()
    event = json.loads('{"event": "disrupted"' + given)
    assert event == {name: run[name] for name in ("event", "before", "after", "jump_ns")}
    assert set(variables) == {
        "VMCLOCK_ASYNC_EVENT=disrupted",
        f"VMCLOCK_ASYNC_BEFORE={event['before']}",
        f"VMCLOCK_ASYNC_AFTER={event['after']}",
        f"VMCLOCK_ASYNC_JUMP_NS={event['jump_ns']}",
        f"VMCLOCK_ASYNC_SEGMENT={segment.path}",
    }


def test_bound_that_is_lost_without_a_commit_runs_the_hook(world: World) -> None:
    """A publisher that died is noticed when its reference is 1000 s old."""
    with listening(world.path, "unbounded,bounded") as hook:
        world.tell(age_s=999.5)
        assert hook.run()["error"] == "ClockStaleError"
        world.tell()
        run = hook.run()
        assert (run["event"], run["status"]) == ("bounded", "SYNCHRONIZED")
        hook.end()


def test_restores_while_the_command_runs_are_not_lost(segment: PlayedSegment, tmp_path: Path) -> None:
    """A restore, and a restore of that, during a run: the next run has them; and one that comes during that one."""
    gate = Gate(tmp_path)
    with listening(segment.path, "restored", words=gate.words) as hook:
        gate.shut()
        segment.restore()
        gate.pid()
        segment.restore()
        segment.restore()
        gate.open()
        assert hook.happened() == ("restored", 1, 2)
        assert hook.happened() == ("restored", 2, 4)
        segment.restore()
        assert hook.happened() == ("restored", 4, 5)
        hook.end()


def test_restores_under_a_stopped_publisher_are_not_lost(segment: PlayedSegment) -> None:
    """They are one event, once the publisher runs again."""
    with listening(segment.path, "restored") as hook:
        segment.freeze()
        segment.restore()
        segment.restore()
        segment.thaw()
        assert hook.happened() == ("restored", 1, 3)
        hook.end()


# What was missed.


def test_hook_that_was_down_learns_what_it_missed(segment: PlayedSegment, tmp_path: Path) -> None:
    """Also from its first start on; and what it has learned is no news at its next start."""
    options = ("--state", tmp_path / "state")
    with listening(segment.path, "restored", *options) as hook:
        hook.end()
    segment.restore()
    with hooked(segment.path, "restored", *options) as hook:
        assert hook.happened() == ("restored", 1, 2)
        hook.end()
    with listening(segment.path, "restored", *options) as hook:
        segment.restore()
        assert hook.happened() == ("restored", 2, 3)
        hook.end()


def test_hook_without_a_state_learns_nothing_of_before(segment: PlayedSegment) -> None:
    """It begins with what comes."""
    segment.restore()
    with listening(segment.path, "restored") as hook:
        segment.restore()
        assert hook.happened() == ("restored", 2, 3)
        hook.end()


def handled_in(state: Path) -> tuple[int, int | None]:
    """Marker and generation that the file *state* holds as handled."""
    handled = StateFile(state).read()
    assert handled is not None
    assert handled.judged_marker == handled.marker
    return handled.marker, handled.generation


def test_restore_that_draws_the_first_generation_is_not_lost(segment_path: Path, tmp_path: Path) -> None:
    """A crash between its two events loses neither, though only the new marker shows that it was a restore."""
    own, state = OWN_GENERATION + 7, tmp_path / "state"
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(make_body(disruption_marker=0, vm_generation_counter=None))
        with listening(segment_path, "disrupted,restored", "--state", state) as hook:
            hook.end()
        before = StateFile(state).read()
        assert before is not None
        writer.write(make_body(disruption_marker=2**32, vm_generation_counter=own))
        with SegmentReader(segment_path) as reader:
            snapshot = reader.snapshot()
        StateFile(state).write(before.after(Disrupted(0, 2**32, snapshot)))  # and then it was killed
        with hooked(segment_path, "disrupted,restored", "--state", state) as hook:
            assert hook.happened() == ("restored", None, own)
            hook.end()
        assert handled_in(state) == (2**32, own)


def test_state_is_good_for_one_boot(segment: PlayedSegment, tmp_path: Path) -> None:
    """Markers begin again when the machine is booted: the hook begins again too."""
    state = tmp_path / "state"
    state.write_text(Handled(marker=7, generation=9, judged_marker=7, boot_id="another").model_dump_json())
    with listening(segment.path, "disrupted,restored", "--state", state) as hook:
        hook.end()
    assert handled_in(state) == (1, 1)


def test_run_that_a_crash_cut_short_comes_again(segment: PlayedSegment, tmp_path: Path) -> None:
    """Of the two events of a restore, the one that was handled does not."""
    options, gate = ("--state", tmp_path / "state"), Gate(tmp_path)
    script = f'[ "$VMCLOCK_ASYNC_EVENT" != restored ] || {{ {gate.words[2]}; }}'
    with listening(segment.path, "disrupted,restored", *options, words=("sh", "-c", script)) as hook:
        gate.shut()
        segment.restore()
        assert hook.happened() == ("disrupted", 1, 2)
        pid = gate.pid()
        hook.process.kill()
        hook.process.wait(BOUND_S)
        os.kill(pid, signal.SIGKILL)
    with hooked(segment.path, "disrupted,restored", *options) as hook:
        assert hook.happened() == ("restored", 1, 2)
        hook.end()


@pytest.mark.parametrize(
    ("marker", "generation", "news"), [(5, 7, []), (6, 7, ["disrupted"]), (5, 8, ["restored"])]
)
def test_page_that_begins_again_is_compared_with_the_state(
    world: World, tmp_path: Path, marker: int, generation: int, news: list[str]
) -> None:
    """After a boot a page has neither marker nor generation at first: the same ones are no news, others are, once."""
    state = tmp_path / "state"
    state.write_text(Handled(marker=5, generation=7, judged_marker=5, boot_id=present_boot()).model_dump_json())
    world.tell(disruption_marker=0)
    with listening(world.path, "disrupted,restored,maintenance", "--state", state) as hook:
        shown = {"disruption_marker": marker, "vm_generation_counter": generation}
        world.tell(**shown)
        world.tell(**shown, flags=BOUNDED | Flags.DISRUPTION_SOON)
        runs = [hook.run() for _ in (*news, "maintenance")]
        numbers = {"disrupted": marker, "restored": generation}
        assert {run["event"]: run.get("after") for run in runs} == {
            "maintenance": None,
            **{name: numbers[name] for name in news},
        }
        hook.end()
    assert handled_in(state) == (marker, generation)


@pytest.mark.parametrize("text", ["", "{}", '{"marker": -1, "generation": null}', "[1]", '{"marker": "5"}'])
def test_file_that_is_no_state_is_refused(segment: PlayedSegment, tmp_path: Path, text: str) -> None:
    """And is left as it is."""
    state = tmp_path / "state"
    state.write_text(text)
    said = failure(run_command(tmp_path, "on", "restored", segment.path, "--json", "--state", state, "--", "true"))
    assert str(state) in said["reason"]
    assert "remove it" in said["remedy"]
    assert state.read_text() == text


def test_state_that_cannot_be_written_is_refused_at_the_start(segment: PlayedSegment, tmp_path: Path) -> None:
    """Not at the first event, when it is too late."""
    state = tmp_path / "nowhere" / "state"
    said = failure(run_command(tmp_path, "on", "restored", segment.path, "--json", "--state", state, "--", "true"))
    assert str(state) in said["reason"]


# What the command does.


@pytest.mark.parametrize(
    ("words", "status", "reason"),
    [
        (("sh", "-c", "exit 3"), 3, "exited with status 3"),
        (("sh", "-c", "kill -9 $$"), -9, "was ended by SIGKILL"),
        (("/nowhere/hook",), 127, "cannot be started: No such file or directory"),
        (("/dev/null",), 126, "cannot be started: Permission denied"),
    ],
)
def test_failure_of_the_command_is_not_fatal(
    segment: PlayedSegment, words: tuple[str, ...], status: int, reason: str
) -> None:
    """Stderr says which command failed, at which event, and how; the next event comes."""
    with hooked(segment.path, "restored", "--now", words=words) as hook:
        assert hook.run()["exit_status"] == status
        segment.restore()
        run = hook.run()
        assert (run["after"], run["exit_status"]) == (2, status)
        hook.end()
        assert f"restored: {shlex.join(words)} {reason}" in hook.complaints


def test_command_has_a_time_limit(segment: PlayedSegment, tmp_path: Path) -> None:
    """SIGTERM ends its group, also what it started; the next event comes."""
    child = tmp_path / "child"
    words = ("sh", "-c", f"sleep 1000 & echo $! > {shlex.quote(str(child))}; wait")
    with hooked(segment.path, "restored", "--now", "--timeout", "500ms", words=words) as hook:
        run = hook.run()
        assert (run["event"], run["exit_status"]) == ("now", -signal.SIGTERM)
        assert run["seconds"] >= 0.5
        if child.exists() and (pid := child.read_text().strip()):  # else the shell has not come so far
            eventually(lambda: not Path(f"/proc/{pid}/exe").exists())
        segment.restore()
        assert hook.happened() == ("restored", 1, 2)
        hook.end()
        assert "took longer than 0.5 s, and was ended" in hook.complaints


@pytest.mark.waits
def test_child_that_ignores_sigterm_is_killed(segment: PlayedSegment, tmp_path: Path) -> None:
    """The command's own process has ended before it: the next run does not begin beside it."""
    child = tmp_path / "child"
    stubborn = f"(trap '' TERM; echo $BASHPID > {shlex.quote(str(child))}; sleep 1000) & wait"
    with hooked(segment.path, "restored", "--now", "--timeout", "2s", words=("bash", "-c", stubborn)) as hook:
        assert hook.run()["exit_status"] == -signal.SIGTERM
        assert not Path(f"/proc/{child.read_text().strip()}/exe").exists()
        hook.end()


@pytest.mark.waits
def test_command_that_ignores_sigterm_is_killed(segment: PlayedSegment) -> None:
    """5 s later."""
    words = ("sh", "-c", "trap '' TERM; while :; do sleep 1000; done")
    with hooked(segment.path, "restored", "--now", "--timeout", "2s", words=words) as hook:
        run = hook.run()
        assert run["exit_status"] == -signal.SIGKILL
        assert run["seconds"] >= 7
        hook.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_end_waits_for_the_command_that_runs(
    segment: PlayedSegment, tmp_path: Path, number: signal.Signals
) -> None:
    """Also Ctrl-C, which a terminal sends to the whole group; what was handled is in the state."""
    state, gate = tmp_path / "state", Gate(tmp_path)
    with listening(segment.path, "restored", "--state", state, words=gate.words) as hook:
        gate.shut()
        segment.restore()
        gate.pid()
        os.killpg(hook.process.pid, number)
        with pytest.raises(subprocess.TimeoutExpired):
            hook.process.wait(0.3)
        assert not gate.is_done
        gate.open()
        assert hook.happened() == ("restored", 1, 2)
        assert hook.process.wait(BOUND_S) == 0
        assert gate.is_done
    assert handled_in(state) == (2, 2)


def test_end_waits_for_the_first_run(segment: PlayedSegment, tmp_path: Path) -> None:
    """The one of ``--now`` is a run like the others."""
    gate = Gate(tmp_path)
    gate.shut()
    with hooked(segment.path, "restored", "--now", words=gate.words) as hook:
        gate.pid()
        hook.process.terminate()
        gate.open()
        assert hook.run()["exit_status"] == 0
        assert hook.process.wait(BOUND_S) == 0
        assert gate.is_done


def test_end_without_a_run_is_at_once(segment: PlayedSegment) -> None:
    """Ctrl-C while nothing happens is a clean end, too."""
    with listening(segment.path, "restored") as hook:
        hook.process.send_signal(signal.SIGINT)
        assert hook.process.wait(BOUND_S) == 0


def test_segment_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    """Stderr says so, once."""
    with hooked(tmp_path / "shm0", "restored", "--now") as hook:
        eventually(lambda: "waiting for it" in hook.complaints)
        with PlayedSegment(tmp_path) as segment:
            assert hook.happened() == ("now", None, None)
            segment.restore()
            assert hook.happened() == ("restored", 1, 2)
            hook.end()
        assert hook.complaints.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("restart", "--", "true"), "'restart' is no event: take some of disrupted, restored,"),
        (("restored,", "--", "true"), "'' is no event"),
        (("restored", "--"), "there is no COMMAND"),
        (("restored",), "there is no COMMAND"),
        (("restored", "path", "true"), "unexpected extra argument"),
        (("restored", "--timeout", "5", "--", "true"), "'5' is no duration"),
    ],
)
def test_wrong_usage(tmp_path: Path, words: tuple[str, ...], reason: str) -> None:
    """Exit status 2, before anything runs; options of COMMAND are its own."""
    said = failure(run_command(tmp_path, "on", "--json", *words), status=2)
    assert reason in said["reason"]


def test_hook_says_that_restores_are_not_seen(segment_path: Path) -> None:
    """Without a generation counter no event says restored."""
    with SegmentWriter(segment_path) as writer:
        writer.write(make_body(disruption_marker=1, vm_generation_counter=None))
        with listening(segment_path, "restored") as hook:
            assert "has no generation counter, so restored does not come" in hook.complaints
