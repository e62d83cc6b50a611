"""The command line as a process, for the tests of it: in an environment that names no segment."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from kit import signals
from kit.forks import Forked, Started, needs_interpreter

_NOWHERE: Final = Path("/run/vmclock-async-nowhere/shm0")


def command(*args: object) -> list[str]:
    """The command line with *args*."""
    return [sys.executable, "-m", "vmclock_async", *map(str, args)]


def environment(runtime: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of these tests without what names a segment, with *runtime* as the runtime directory."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("VMCLOCK")}
    return {**own, "XDG_RUNTIME_DIR": str(runtime), **(variables or {})}


def start_command(runtime: Path, *args: object, variables: Mapping[str, str] | None = None, **how: Any) -> Started:
    """Start the command line with *args*; *how* is what both ``Forked`` and ``subprocess.Popen`` take.

    Its signals are at their defaults, and it reads nothing. It is forked from a process that has imported the command
    line, unless *variables* are some that an interpreter looks at when it starts.
    """
    env = environment(runtime, variables)
    if not needs_interpreter(variables or {}):
        return Forked(run_words, *map(str, args), env=env, **how)
    return subprocess.Popen(
        command(*args), stdin=subprocess.DEVNULL, text=True, env=env, preexec_fn=signals.at_default, **how
    )


def run_command(
    runtime: Path, *args: object, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line with *args* to its end."""
    process = start_command(runtime, *args, variables=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode is not None
    return subprocess.CompletedProcess([*map(str, args)], process.returncode, out, err)


def run_new_interpreter(
    runtime: Path, *args: object, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The same with an interpreter of its own, whose signals are this one's."""
    return subprocess.run(
        command(*args),
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(runtime, variables),
        check=False,
    )


def run_words(*words: str) -> int:
    """Run the command line in this process; return the exit status."""
    from vmclock_async import _paths
    from vmclock_async._cli import main

    if _paths.SYSTEM_PATH.exists():  # a publisher runs here, or ran, and its segment comes before those of tests
        _paths.SYSTEM_PATH = _NOWHERE  # type: ignore[misc]
    return main(list(words))


def assert_one_line(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The run failed with status 1 and one line of complaint that holds *parts*; nothing on stdout."""
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""
    complaints = [line for line in result.stderr.splitlines() if not re.search(r": (warning|info): ", line)]
    assert len(complaints) == 1, result.stderr
    for part in parts:
        assert part in complaints[0]


def failure(result: subprocess.CompletedProcess[str], *, status: int = 1) -> dict[str, Any]:
    """The only line on stdout of a run that failed with *status*: the object that says so, and why."""
    assert result.returncode == status, result.stderr
    assert "Traceback" not in result.stderr
    (line,) = result.stdout.splitlines()
    said: dict[str, Any] = json.loads(line)
    assert said["bounded"] is False
    assert not said["error_ns"] <= 10**9  # as jq's '.error_ns <= 1000000000', where a missing one is less
    assert all(isinstance(said[name], str) and said[name] for name in ("error", "reason", "remedy"))
    return said
