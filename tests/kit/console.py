"""The user of a terminal, who types the commands of a manual's page and looks at what it says they print.

A command is a line after ``$ ``; the lines up to the next one are its output. In these, ``...`` stands for any
number of lines. Numbers, and the units of durations, may differ; so may the width of gaps between columns.

A command that ends in ``&`` goes on while the next ones are typed, and has printed its lines before. ``kill %1`` ends
it, with all that it has started. ``export`` and ``source`` change what later commands see, as in a shell.
"""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Self

from kit import signals
from kit.commands import run_words
from kit.forks import Forked, Started

__all__ = ("Console", "commands_in")

_SHELL: Final = frozenset("|&;<>()$`\\*?[]{}~#=")
"""What a shell may take for more than a part of a word."""


def _run_in(directory: str, *words: str) -> int:
    """What the command line does in *directory*."""
    os.chdir(directory)
    return run_words(*words)


def _likeness(line: str) -> str:
    """*line* without what differs from one run to the next."""
    line = re.sub(r"\d+(\.\d+)?", "0", line)
    line = re.sub(r"\b0 (ns|us|ms|s)\b", "0 s", line)
    return re.sub(r"\s+", " ", line).strip()


def commands_in(block: str) -> Iterator[tuple[str, list[str]]]:
    """The commands of *block*, each with the lines that it prints."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *shown = part.rstrip("\n").split("\n")
        yield command, shown


class Console:
    """A terminal; a context manager, at whose end all that was started in it has ended.

    Args:
        directory: where commands run.
        places: what stands for a path of the page: ``{"/dev/shm/vmclock-demo": ...}``.
        environment: variables of the commands, beside those of this process.
    """

    def __init__(self, directory: Path, places: Mapping[str, str], environment: Mapping[str, str]) -> None:
        self._directory = directory
        self._places = places
        scripts = str(Path(sys.executable).parent)
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("VMCLOCK")},
            "PATH": f"{scripts}:{os.environ['PATH']}",
            "COLUMNS": "80",
            **environment,
        }
        self._started: list[Started] = []
        self._jobs: list[Started] = []
        """Those in the background."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            with process:
                self._end(process, signal.SIGKILL)

    def type(self, command: str, shown: list[str]) -> None:
        """Run *command*, which has to print *shown*."""
        word, *arguments = shlex.split(self._placed(command))
        match word:
            case "export":
                self._environment |= dict(argument.split("=", 1) for argument in arguments)
            case "source":
                assert arguments == [".venv/bin/activate"]
            case "kill":
                (number,) = arguments
                job = self._jobs[int(number.removeprefix("%")) - 1]
                self._end(job, signal.SIGTERM)
                self._require(command, shown, job.communicate()[0])
            case _ if arguments[-1:] == ["&"]:
                job = self._start(command.rstrip("& "))
                self._jobs.append(job)
                assert job.stdout is not None
                self._require(command, shown, "".join(job.stdout.readline() for _ in shown))
            case _:
                self._require(command, shown, self._start(command).communicate()[0])

    def _start(self, command: str) -> Started:
        placed = self._placed(command)
        process = self._start_in_shell(placed) if _SHELL & set(placed) else self._start_plain(placed)
        self._started.append(process)
        return process

    def _start_plain(self, command: str) -> Started:
        """Start *command*, which a shell would not change; if it is the project's, without a new interpreter."""
        program, *words = shlex.split(command)
        if program != "vmclock-async":
            return self._start_in_shell(command)
        return Forked(
            _run_in,
            str(self._directory),
            *words,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _start_in_shell(self, placed: str) -> Started:
        return subprocess.Popen(
            ["bash", "-c", placed if placed.startswith("while ") else f"exec {placed}"],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=signals.at_default,
            start_new_session=True,  # a group of its own, as a job of an interactive shell has
        )

    @staticmethod
    def _end(process: Started, number: signal.Signals) -> None:
        if process.poll() is None:
            os.killpg(process.pid, number)

    def _placed(self, text: str) -> str:
        for place, stands_for in self._places.items():
            text = text.replace(place, stands_for)
        return text

    def _require(self, command: str, shown: list[str], output: str) -> None:
        wanted = [_likeness(self._placed(line)) for line in shown if line.strip()]
        pattern = "".join(r"(.*\n)*" if line == "..." else f"{re.escape(line)}\n" for line in wanted)
        lines = [_likeness(line) for line in output.splitlines() if line.strip()]
        got = "".join(f"{line}\n" for line in lines)
        assert re.fullmatch(pattern, got), f"$ {command}\nprinted\n{output}\nwhere the page has\n" + "\n".join(
            shown
        )
