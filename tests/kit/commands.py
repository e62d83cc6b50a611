"""The command line as a process, for the tests of it: in an environment that names no segment."""

import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from vmclock_async._cli import main


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
    """Run the command line with *args* to its end, in a process that has started already: a tenth of the price.

    It is a real process of its own, which another that has imported the command line makes by a fork. PYTHONPATH is
    heeded; other variables that an interpreter looks at when it starts (PYTHON..., LC_...) need
    ``run_new_interpreter``.
    """
    assert not any(name.startswith(("PYTHON", "LC_")) for name in {*(variables or ())} - {"PYTHONPATH"})
    words = [str(arg) for arg in args]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        streams = [DupFd(out.fileno()), DupFd(err.fileno())]
        process = _forks.Process(target=_become_command, args=(words, environment(runtime, variables), *streams))
        process.start()
        try:
            process.join(60)
            assert process.exitcode is not None, f"{words} did not end"
        finally:
            process.kill()
            process.join()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="strict"))
    return subprocess.CompletedProcess(words, process.exitcode, *texts)


def run_new_interpreter(
    runtime: Path, *args: object, variables: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The same with an interpreter of its own."""
    return subprocess.run(
        command(*args),
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(runtime, variables),
        check=False,
    )


_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        "trio",
        *(f"vmclock_async._cli.{name}" for name in ("app", "now", "on", "publish", "show", "sources", "watch")),
        *(f"vmclock_{name}.source" for name in ("chrony", "device", "kernel", "replay")),
    ]
)


def _become_command(words: list[str], variables: dict[str, str], out: Any, err: Any) -> None:
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, fd in enumerate((nowhere, out.detach(), err.detach())):
        os.dup2(fd, number)
        os.close(fd)
    os.environ.clear()
    os.environ.update(variables)
    sys.path[:0] = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    sys.exit(main(words))


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
