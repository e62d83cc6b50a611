"""The programs in ``examples``, started on a machine to which things happen."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kit.forks import Started
from kit.programs import started
from vmclock_async.testing import PlayedSegment

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
Start = Callable[..., Started]


@contextmanager
def started_examples() -> Iterator[Start]:
    """A function that starts the example of a name with arguments, its output in pipes; killed at the end."""
    with started() as start:
        yield lambda name, *arguments: start(EXAMPLES / name, *arguments, stderr=subprocess.PIPE)


def on(segment: PlayedSegment) -> tuple[object, ...]:
    """The arguments that let an example run on *segment*."""
    return segment.path, "--fence", segment.device


def ended(process: Started) -> tuple[int | None, str, str]:
    """Exit status, output and complaints of *process*, once it has ended."""
    output, errors = process.communicate(timeout=30)
    return process.returncode, output, errors


def line_of(stream: Any) -> str:
    """The next line of a pipe, which has to come."""
    line: str = stream.readline()
    assert line.endswith("\n"), f"the process ended, with {line!r} left"
    return line.rstrip("\n")
