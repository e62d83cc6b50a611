"""Several commands, one after the other, in one kind of surroundings."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TypeAlias

from kit.commands import environment, run_command
from kit.programs import path_of

__all__ = ("forked_in_turn", "in_turn")

Printed: TypeAlias = tuple[list[int], str, str]
"""The status of each, and what they all printed to stdout and to stderr."""


def forked_in_turn(directory: Path, commands: list[list[object]]) -> Printed:
    """The same as ``in_turn``, in the tests' own surroundings but for the time zone, which is UTC."""
    done = [run_command(directory, *words, variables={"TZ": "UTC"}) for words in commands]
    return (
        [each.returncode for each in done],
        "".join(each.stdout for each in done),
        "".join(each.stderr for each in done),
    )


def in_turn(
    directory: Path,
    commands: list[list[object]],
    *,
    variables: dict[str, str],
    interpreter: list[str] | None = None,
) -> Printed:
    """The statuses of *commands*, each run by one new interpreter, and what they all printed to stdout and stderr."""
    words, told, complaints = (directory / name for name in ("commands", "told", "complaints"))
    words.write_text(json.dumps([[*map(str, command)] for command in commands]))
    complaints.write_bytes(b"")
    with complaints.open("ab") as stderr:
        done = subprocess.run(
            [*(interpreter or [sys.executable]), path_of("commands_in_turn"), words, told, complaints],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment(directory, variables),
            timeout=50,
            check=False,
        )
    said = complaints.read_text(encoding="utf-8")
    assert done.returncode == 0, said
    assert "Traceback" not in said
    return [status for status, _ in json.loads(told.read_bytes())], done.stdout.decode(), said
