"""Processes that tests start: the programs in ``tests/programs``, and others."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

_PROGRAMS: Final = Path(__file__).parent.parent / "programs"


def path_of(name: str) -> str:
    """The file of the program *name*."""
    return str(_PROGRAMS / f"{name}.py")


@contextmanager
def started() -> Iterator[Callable[..., "subprocess.Popen[str]"]]:
    """A function that starts a Python program with arguments; its processes are killed when the block ends.

    Keyword arguments are those of ``subprocess.Popen``.
    """
    processes: list[subprocess.Popen[str]] = []

    def start(path: str | Path, *arguments: object, **how: Any) -> "subprocess.Popen[str]":
        command = [sys.executable, "-W", "error", str(path), *map(str, arguments)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **how))
        return processes[-1]

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.communicate()
