"""The command line as a process, for the tests of it: in an environment that names no segment."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def command(*args: object) -> list[str]:
    """The command line with *args*."""
    return [sys.executable, "-m", "vmclock_async", *map(str, args)]


def environment(runtime: Path, variables: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of these tests without what names a segment, with *runtime* as the runtime directory."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("VMCLOCK")}
    return {**own, "XDG_RUNTIME_DIR": str(runtime), **(variables or {})}


def run_command(
    runtime: Path, *args: object, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command line with *args* to its end."""
    return subprocess.run(
        command(*args),
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(runtime, variables),
        check=False,
    )


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
