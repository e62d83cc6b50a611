"""Processes that tests start: the programs in ``tests/programs``, and others."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from kit.forks import Forked, Started, killed_at_the_end, needs_interpreter, run_program

_PROGRAMS: Final = Path(__file__).parent.parent / "programs"


def path_of(name: str) -> str:
    """The file of the program *name*."""
    return str(_PROGRAMS / f"{name}.py")


def started() -> AbstractContextManager[Callable[..., Started]]:
    """A function that starts a Python program with arguments; its processes are killed when the block ends.

    Warnings are errors there. Keyword arguments are those of ``start_program``.
    """
    return killed_at_the_end(start_program)


def start_program(
    path: str | Path,
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    own_interpreter: bool = False,
    **how: Any,
) -> Started:
    """Start a Python program, with *environment* beside this one's; *how* is what both kinds of process take.

    With *own_interpreter* nothing has happened there before, and the process is a child of this one.
    """
    env = {**os.environ, **(environment or {})}
    words = [str(path), *map(str, arguments)]
    if own_interpreter or needs_interpreter(environment or {}):
        command = [sys.executable, "-W", "error", *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, **how)
    return Forked(run_program, *words, env=env, stdout=subprocess.PIPE, **how)
