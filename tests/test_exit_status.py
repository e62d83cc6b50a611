"""The manual's table of exit statuses: each row is provoked, and each status that is provoked here has its row."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from io import StringIO
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import pytest

from kit.commands import run_command, start_command
from kit.forks import Forked, Started
from kit.told_world import World
from vmclock_async._cli import main
from vmclock_async._cli.commands import COMMANDS
from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.publish import _ending_held_loop
from vmclock_async.disruption import socket_path

ROOT: Final = Path(__file__).parent.parent
RECORDING: Final = ROOT / "examples/recordings/leap-second.jsonl"


_HARMLESS: Final = ("--dry-run", "--independent", "--beside-daemon")
"""Options with which set-clock refuses nothing here, and sets nothing."""


class Row(NamedTuple):
    """A row of the table."""

    status: int
    commands: frozenset[str]
    when: str


def rows() -> list[Row]:
    """The rows of the manual's table."""
    text = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    text = re.sub(r"\[(.+?)\]\(.+?\)", r"\1", text)  # links
    found = re.findall(r"^\| (\d+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    return [Row(int(status), named(commands), when) for status, commands, when in found]


def named(text: str) -> frozenset[str]:
    """The commands that *text*, a cell of the table, names."""
    names = frozenset(re.findall("`(.+?)`", text))
    return frozenset(COMMANDS) - names if text.startswith("all") else names


Statuses = dict[str, int]
"""What each command ended with; its name may have an option, as in the table."""


class Broken(StringIO):
    """A stream that fails with *error* when something is printed."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error: Final = error

    def write(self, text: str) -> int:
        raise self._error


class Place:
    """A segment with a time, a directory beside it, and commands that take a moment."""

    def __init__(self, world: World, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.world: Final = world
        self.directory: Final = directory
        self._monkeypatch: Final = monkeypatch
        self.short: Final[dict[str, tuple[object, ...]]] = {
            **{name: (name, world.path) for name in ("show", "now", "explain", "wait", "metrics")},
            "set-clock": ("set-clock", world.path, *_HARMLESS, "--threshold", "1ns"),
            "sources": ("sources",),
            "install-units": ("install-units", "--print"),
        }

    def run(self, *words: object, stdout: TextIO | None = None) -> int:
        """The status of the command *words*, in this process."""
        with self._monkeypatch.context() as patch:
            if stdout is not None:
                patch.setattr(sys, "stdout", stdout)
            return main([str(word) for word in words])

    def run_short(self, stdout: TextIO | None = None) -> Statuses:
        """The statuses of the commands that take a moment."""
        return {name: self.run(*words, stdout=stdout) for name, words in self.short.items()}

    def stop(self, number: signal.Signals, *names: str) -> Statuses:
        """The statuses of those commands that end with a signal."""
        with ExitStack() as stack:
            processes = {name: stack.enter_context(self._started(name)) for name in names}
            for process in processes.values():
                process.send_signal(number)
            return {name: process.wait(20) for name, process in processes.items()}

    @contextmanager
    def _started(self, name: str) -> Iterator[Started]:
        """The command *name*, once it has begun to wait for a signal."""
        path = self.world.path
        absent, published = self.directory / "absent", self.directory / "published"
        sets = ("--set", f"replay.path={RECORDING}")
        words, first = {
            "publish": (("publish", "replay", *sets, "--segment", published, "--metrics", ":0"), "stderr"),
            "watch": (("watch", path), "stdout"),
            "on": (("on", "restored", path, "--now", "--", "false"), "stderr"),
            "record": (("record", path, "--output", self.directory / "recording"), "stderr"),
            "follow": (("follow", path, "--clockbound", self.directory / "clockbound"), "stderr"),
            "metrics --listen": (("metrics", path, "--listen", ":0"), "stderr"),
            "demo": (("demo",), "stdout"),
            "wait": (("wait", absent), "stderr"),
            "disrupt": (("disrupt", path), None),
        }[name]
        with ExitStack() as stack:
            if first is None:
                publisher = stack.enter_context(closing(socket.socket(socket.AF_UNIX)))
                publisher.bind(socket_path(path))
                publisher.listen()
            process = start_command(self.directory, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            try:
                if first is None:
                    stack.enter_context(publisher.accept()[0])
                else:
                    getattr(process, first).readline()
                yield process
            finally:
                process.kill()
                process.communicate()


STOPPED: Final = ("publish", "watch", "on", "record", "follow", "metrics --listen", "demo", "wait", "disrupt")
CASES: Final[dict[tuple[int, str], Callable[[Place], Statuses]]] = {}
"""What provokes a row, by its status and by how its text begins."""


def case(status: int, when: str) -> Callable[[Callable[[Place], Statuses]], Callable[[Place], Statuses]]:
    """Make a function the case of the row with *status* whose text begins with *when*."""

    def add(provoke: Callable[[Place], Statuses]) -> Callable[[Place], Statuses]:
        CASES[status, when] = provoke
        return provoke

    return add


@case(0, "The command did what it was asked to do.")
def done(place: Place) -> Statuses:
    segment = place.directory / "shm0"
    replayed = f"replay.path={RECORDING}", "replay.speed=0"
    sets = [word for option in replayed for word in ("--set", option)]
    helped = {f"{name} --help": place.run(name, "--help") for name in COMMANDS}
    longer = {
        "publish": place.run("publish", "replay", *sets, "--segment", segment),
        "report": place.run("report", RECORDING, "--output", place.directory / "report.html"),
        "doctor": place.run("doctor", place.world.path),
    }
    return helped | place.run_short() | longer


@case(0, "Nobody reads its output any more")
def unread(place: Place) -> Statuses:
    reading, writing = os.pipe()
    os.close(reading)
    statuses = {}
    with open(writing, "w") as nowhere:
        for words in (("show", place.world.path), ("watch", place.world.path), ("sources",), ("on", "--help")):
            process = start_command(place.directory, *words, stdout=nowhere)
            statuses[words[0]] = process.wait(20)
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)  # for what is left in its buffer
    return {str(name): status for name, status in statuses.items()}


@case(0, "There is no segment to be read")
def nothing_to_measure(place: Place) -> Statuses:
    return {"metrics": place.run("metrics", place.directory / "absent")}


@case(0, "CLOCK_REALTIME was left alone")
def left_alone(place: Place) -> Statuses:
    return {"set-clock": place.run("set-clock", place.world.path, *_HARMLESS, "--threshold", "1h")}


@case(0, "Ctrl-C ended it; COMMAND may have failed")
def hook_stopped(place: Place) -> Statuses:
    return place.stop(signal.SIGINT, "on")


@case(0, "Ctrl-C ended it: the recording is whole")
def recorder_stopped(place: Place) -> Statuses:
    return place.stop(signal.SIGINT, "record")


@case(0, "Ctrl-C ended it: ClockBound's clients")
def follower_stopped(place: Place) -> Statuses:
    return place.stop(signal.SIGINT, "follow")


@case(0, "SIGTERM ended it.")
def terminated(place: Place) -> Statuses:
    return place.stop(signal.SIGTERM, *(name for name in STOPPED if name not in ("wait", "disrupt")))


@case(1, "It failed; one line")
def failed(place: Place) -> Statuses:
    other = place.directory / "other"
    other.write_bytes(b"x" * 300)
    readers = ("show", "now", "explain", "wait", "watch", "set-clock")
    return {
        **{name: place.run(name, other) for name in readers},
        "on": place.run("on", "restored", other, "--", "true"),
        "record": place.run("record", other, "--output", place.directory / "recording"),
        "follow": place.run("follow", other, "--clockbound", place.directory / "clockbound"),
        "publish": place.run("publish", "replay", "--set", f"replay.path={other}", "--segment", other),
        "report": place.run("report", other, "--output", place.directory / "report.html"),
        "install-units": place.run("install-units", "--root", other),
        "metrics": place.run("metrics", "--textfile", other / "x.prom"),
    }


@case(1, "Its result could not be printed")
def unprinted(place: Place) -> Statuses:
    statuses = {}
    for name, words in place.short.items():
        with open("/dev/full", "w") as full:
            statuses[name] = place.run(*words, stdout=full)
    return statuses


@case(1, "There is no bounded time.")
def unbounded(place: Place) -> Statuses:
    place.world.tell(flags=0)
    return {name: place.run(*place.short[name]) for name in ("now", "explain", "set-clock")}


@case(1, "The time or its reference exceeds a limit")
def beyond(place: Place) -> Statuses:
    return {"now": place.run("now", place.world.path, "--max-error", "1ns")}


@case(1, "The time-out is over.")
def too_late(place: Place) -> Statuses:
    absent = place.directory / "absent"
    return {name: place.run(name, absent, "--timeout", "1ms") for name in ("wait", "disrupt")}


@case(1, "Nothing here could give a bounded time.")
def hopeless(place: Place) -> Statuses:
    unknown = {"VMCLOCK_ASYNC_SOURCES": "nothing"}
    done = run_command(place.directory, "doctor", place.directory / "absent", variables=unknown)
    return {"doctor": done.returncode}


@case(1, "There is a file already that it does not overwrite.")
def taken(place: Place) -> Statuses:
    there = place.directory / "there"
    there.write_text("precious")
    statuses = {
        "report": place.run("report", RECORDING, "--output", there),
        "record": place.run("record", place.world.path, "--output", there),
        "doctor --bundle": place.run("doctor", place.world.path, "--bundle", there),
    }
    assert there.read_text() == "precious"
    return statuses


def hold_for_ever() -> None:
    """As if each of the signals that interrupt a source came, and none helped."""
    with _ending_held_loop():
        for _ in range(100):
            signal.raise_signal(signal.SIGALRM)


@case(1, "It was ended by force")
def forced(place: Place) -> Statuses:
    process = Forked(hold_for_ever, env=dict(os.environ), stderr=subprocess.PIPE)
    _, complaint = process.communicate(timeout=20)
    assert "ended by force" in complaint
    return {"publish": process.wait()}


def show_with_a_bug(path: str) -> int:
    sys.stdout = Broken(RuntimeError("a bug"))
    return main(["show", path])


@case(1, "The command has a bug")
def buggy(place: Place) -> Statuses:
    process = Forked(show_with_a_bug, str(place.world.path), env=dict(os.environ), stderr=subprocess.PIPE)
    _, complaint = process.communicate(timeout=20)
    assert "Traceback" in complaint
    return {"show": process.wait()}


@case(2, "The command line is wrong.")
def misused(place: Place) -> Statuses:
    return {f"{name} --nonsense": place.run(name, "--nonsense") for name in COMMANDS} | {"show": place.run()}


@case(2, "A source is unknown")
def misconfigured(place: Place) -> Statuses:
    wrong = (("nosuch",), ("replay", "--set", "replay.sped=1"), ("replay", "--config", place.directory / "absent"))
    return {f"publish {words}": place.run("publish", *words) for words in wrong}


@case(129, "SIGHUP ended it")
def hung_up(place: Place) -> Statuses:
    return place.stop(signal.SIGHUP, *STOPPED)


@case(130, "Ctrl-C ended it.")
def interrupted(place: Place) -> Statuses:
    short = place.run_short(stdout=Broken(KeyboardInterrupt()))
    return short | place.stop(signal.SIGINT, *(name for name in STOPPED if name not in ("on", "record", "follow")))


@case(143, "SIGTERM ended it, before")
def terminated_too_early(place: Place) -> Statuses:
    return place.stop(signal.SIGTERM, "wait", "disrupt")


def case_of(row: Row) -> tuple[int, str] | None:
    """The case that provokes *row*."""
    return next((key for key in CASES if key[0] == row.status and row.when.startswith(key[1])), None)


def test_each_row_has_a_case_and_each_case_a_row() -> None:
    """And every status that a command can name is in the table."""
    found = [case_of(row) for row in rows()]
    assert [row for row, its in zip(rows(), found, strict=True) if its is None] == []
    assert sorted(found, key=str) == sorted(CASES, key=str)
    assert {row.status for row in rows()} == {int(status) for status in ExitStatus}


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row.status} {row.when[:30]}")
def test_row(row: Row, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands of the row end with its status when that is the case; those that a row names do so one and all."""
    key = case_of(row)
    assert key is not None
    statuses = CASES[key](Place(world, tmp_path, monkeypatch))
    assert statuses == dict.fromkeys(statuses, row.status)
    names = {name if name in row.commands else name.partition(" ")[0] for name in statuses}
    assert names <= row.commands
    assert names == row.commands or len(row.commands) > len(STOPPED)
