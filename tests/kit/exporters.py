"""Exporters of metrics as processes: the command line's, which say on stderr where they listen."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from kit.commands import start_command
from kit.forks import Started, killed_at_the_end

__all__ = ("RECORDING", "address_of", "exporters", "publishing")

RECORDING: Final = Path(__file__).parent.parent.parent / "examples/recordings/time-source-lost.jsonl"
"""A machine that has the time, and whose time source is lost after 13 s."""


@contextmanager
def exporters(runtime: Path) -> Iterator[Callable[..., Started]]:
    """A function that starts the command line with arguments; its processes are killed when the block ends."""
    start = partial(start_command, runtime, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    with killed_at_the_end(start) as start_exporter:
        yield start_exporter


def publishing(segment: Path) -> tuple[object, ...]:
    """The arguments of a publisher with metrics, of the machine in ``RECORDING``."""
    sets = ("--set", f"replay.path={RECORDING}", "--set", "replay.mode=live")
    return ("publish", "replay", "--segment", segment, *sets, "--metrics", ":0")


def address_of(process: Started) -> str:
    """Where the metrics of *process* are, as it says."""
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"info: metrics are at http://(\S+)/metrics$", line):
            return found[1]
    raise AssertionError("it did not say where")
