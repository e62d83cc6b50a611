"""Plugins of strangers: whatever one is or does, it is named, and what others say and show goes on.

Those here are real distributions on the module search path, each with one fault, and run by the command line.
"""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.commands import run_command
from kit.waits import eventually, is_committed
from vmclock_async import SegmentReader, SegmentWriter, VMClockBody

START_S = 30.0
"""Longest time that a start may take, on a machine that is busy with others."""

HEAD = """
import asyncio, os, sys, time
import anyio
from pydantic import BaseModel
from vmclock_async import BodyUpdate

class Settings(BaseModel):
    pass

class Good:
    settings_type = Settings
    def __init__(self, settings):
        pass
    async def run(self, emit):
        number = 0
        while True:
            number += 1
            await emit(BodyUpdate(disruption_marker=7, leap_second_smearing_hint=number % 3))
            await anyio.sleep(0.05)
"""

UNUSABLE = {
    "exits": ("sys.exit(3)\n", "cannot be imported (SystemExit: 3)"),
    "raises": ("class Odd(BaseException): pass\nraise Odd('bang')\n", "cannot be imported (Odd: bang)"),
    "unshowable": (
        "class Odd(Exception):\n    def __str__(self): return 1\nraise Odd\n",
        "cannot be imported (Odd: (an error that cannot be shown))",
    ),
    "broken": ("import no_such_module\n", "cannot be imported (ModuleNotFoundError: "),
    "nothing": ("Source = None\n", "is no source: it lacks settings_type or run()"),
    "dict": (
        "class Source(Good):\n    settings_type = dict\n",
        "settings_type is <class 'dict'>, not a class derived",
    ),
    "synchronous": (
        "class Source(Good):\n    def run(self, emit):\n        while True: time.sleep(0.1)\n",
        "its run() is no async function; declare it with async def",
    ),
    "generator": (
        "class Source(Good):\n    async def run(self, emit):\n        yield 1\n",
        "its run() is no async function; declare it with async def",
    ),
    "computed": (
        (
            "class Meta(type):\n    @property\n    def settings_type(cls): raise RuntimeError('not now')\n"
            "class Source(metaclass=Meta):\n    async def run(self, emit): pass\n"
        ),
        "cannot be used (RuntimeError: not now)",
    ),
}
"""A module, and why it cannot be loaded."""

UNLISTABLE = {
    "schemaless": (
        (
            "class Settings(BaseModel):\n    model_config = {'arbitrary_types_allowed': True}\n    x: Good = None\n"
            "class Source(Good):\n    settings_type = Settings\n"
        ),
        "its options cannot be shown (PydanticInvalidForJsonSchema: ",
    ),
}

FAILING = {
    "unmade": (
        "class Source(Good):\n    def __init__(self, settings): raise SystemExit(3)\n",
        "cannot be made (SystemExit: 3)",
    ),
    "leaving": (
        "class Source(Good):\n    async def run(self, emit):\n        await anyio.sleep(0.1)\n        sys.exit(3)\n",
        "failed with SystemExit: 3",
    ),
    "child": (
        (
            "class Source(Good):\n    async def run(self, emit):\n"
            "        async with anyio.create_task_group() as tasks:\n"
            "            tasks.start_soon(self.leave)\n            await anyio.sleep_forever()\n"
            "    async def leave(self):\n        await anyio.sleep(0.1)\n        sys.exit(3)\n"
        ),
        "failed with SystemExit: 3",
    ),
    "marking": (
        "class Source(Good):\n    def disruption_marker(self): raise SystemExit(3)\n",
        "disruption_marker() failed with SystemExit: 3",
    ),
    "half": (
        (
            "class Source(Good):\n    async def run(self, emit):\n"
            "        await emit(BodyUpdate.model_construct(_fields_set={'nonsense'}, flags=0))\n"
        ),
        "sent what is no update: ",
    ),
    "epoch": (
        (
            "class Source(Good):\n    async def run(self, emit):\n"
            "        await emit(BodyUpdate(disruption_marker=1), epoch='now')\n"
        ),
        "sent an update with an epoch of str, not what emit.epoch gave",
    ),
}


@pytest.fixture
def install(tmp_path: Path) -> Callable[[str, str], None]:
    """Installs a distribution that offers the source *name*, made of *code*."""

    def install(name: str, code: str) -> None:
        (tmp_path / f"plugin_{name}.py").write_text(HEAD + code)
        metadata = tmp_path / f"dist_{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: dist-{name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[vmclock_async.sources]\n{name} = plugin_{name}:Source\n")

    return install


def environment(tmp_path: Path) -> dict[str, str]:
    """With the plugins of *tmp_path*, and no segment of the machine's."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("VMCLOCK")}
    return kept | {"PYTHONPATH": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path)}


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line to its end."""

    def run(*args: object) -> subprocess.CompletedProcess[str]:
        return run_command(tmp_path, *args, variables={"PYTHONPATH": str(tmp_path)})

    return run


@pytest.fixture
def start(tmp_path: Path, segment_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``publish``; killed when the test ends."""
    started = []

    def start(*args: object) -> subprocess.Popen[str]:
        command = [
            sys.executable,
            "-m",
            "vmclock_async",
            "publish",
            *map(str, args),
            "--segment",
            str(segment_path),
        ]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment(tmp_path))
        started.append(process)
        return process

    try:
        yield start
    finally:
        for process in started:
            process.kill()
            process.communicate()


def test_sources_lists_the_others_and_what_is_wrong(
    install: Callable[[str, str], None], run: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """Each plugin that cannot be used is listed with its reason; the shipped sources with their options, as ever."""
    for name, (code, _) in (UNUSABLE | UNLISTABLE).items():
        install(name, code)
    install("talking", "print('hello')\nSource = Good\n")
    odd = tmp_path / "odd-1.0.dist-info"
    odd.mkdir()
    (odd / "METADATA").write_text("Metadata-Version: 2.1\n")
    (odd / "entry_points.txt").write_text("[vmclock_async.sources]\nodd = !\n")
    listed = run("sources")
    assert listed.returncode == 0, listed.stderr
    assert "kernel.poll_interval" in listed.stdout
    assert "Traceback" not in listed.stderr
    facts = json.loads(run("sources", "--json").stdout)
    assert {"chrony", "device", "kernel", "replay", "talking"} <= facts.keys()
    assert "cannot be imported" in facts["odd"]["error"]
    for name, (_, reason) in (UNUSABLE | UNLISTABLE).items():
        assert reason in facts[name]["error"]
        assert reason in listed.stdout


@pytest.mark.parametrize("name", UNUSABLE | FAILING)
def test_publish_names_the_plugin_that_fails(
    name: str,
    install: Callable[[str, str], None],
    run: Callable[..., subprocess.CompletedProcess[str]],
    segment_path: Path,
) -> None:
    """One line with the plugin's name and what it did, status 1, and no traceback."""
    code, reason = (UNUSABLE | FAILING)[name]
    install(name, code)
    ended = run("publish", name, "--segment", segment_path)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    (line,) = [line for line in ended.stderr.splitlines() if ": info: " not in line]
    assert line.startswith(f"vmclock-async: {name}: ")
    assert reason in line


HELD = {
    "held": (
        (
            "class Source(Good):\n    async def run(self, emit):\n        while True:\n"
            "            try: time.sleep(1000)\n            except Exception: pass\n"
        ),
        "Source.run",
    ),
    "heldbychild": (
        (
            "class Source(Good):\n    async def run(self, emit):\n"
            "        async with anyio.create_task_group() as tasks:\n"
            "            tasks.start_soon(self.child)\n            await anyio.sleep_forever()\n"
            "    async def child(self):\n        while True: time.sleep(0.01)\n"
        ),
        "Source.child",
    ),
}


DEBUGGED = {
    "imported": ("def import_ours():\n    raise LookupError('not \\x1b[31mhere')\nimport_ours()\n", "import_ours"),
    "made": (
        "class Source(Good):\n    def __init__(self, settings):\n        raise LookupError('no such part')\n",
        "__init__",
    ),
    "run": (
        (
            "async def measure():\n    raise LookupError('no such part')\n"
            "class Source(Good):\n    async def run(self, emit):\n"
            "        async with anyio.create_task_group() as tasks:\n            tasks.start_soon(measure)\n"
        ),
        "measure",
    ),
}


@pytest.mark.parametrize("kind", DEBUGGED)
@pytest.mark.parametrize("place", ["before the command", "after it"])
def test_debug_shows_the_plugin_s_traceback(
    install: Callable[[str, str], None],
    run: Callable[..., subprocess.CompletedProcess[str]],
    segment_path: Path,
    kind: str,
    place: str,
) -> None:
    """A failure is one line; with --debug the traceback of the plugin's own error comes before it, escaped."""
    code, function = DEBUGGED[kind]
    install("faulty", code)
    words = ["publish", "faulty", "--segment", segment_path]
    plain = run(*words)
    assert (plain.returncode, "Traceback" in plain.stderr) == (1, False)
    debugged = run(*(["--debug", *words] if place == "before the command" else [*words, "--debug"]))
    assert debugged.returncode == 1
    assert debugged.stderr.splitlines()[-1] == plain.stderr.splitlines()[-1]
    assert re.search(rf'File ".*/plugin_faulty.py", line \d+, in {function}\n', debugged.stderr), debugged.stderr
    assert "\nLookupError: no" in debugged.stderr
    assert "\x1b" not in debugged.stderr


def test_debug_is_taken_from_no_other_program(run: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """It stands in the help, and what comes after ``--`` is left alone."""
    assert "--debug" in run("--help").stdout
    refused = run("show", "--", "--debug")
    assert refused.returncode == 1
    assert "--debug: " in refused.stderr


@pytest.mark.parametrize("name", HELD)
def test_who_holds_the_loop_is_told_and_can_be_ended(
    name: str, install: Callable[[str, str], None], start: Callable[..., subprocess.Popen[str]]
) -> None:
    """The log says once which source blocks, and where; a service manager's stop ends it all the same."""
    code, place = HELD[name]
    install(name, code)
    install("good", "Source = Good\n")
    process = start("good", name)
    assert process.stderr is not None
    said = next(line for line in process.stderr if "has held the event loop" in line)
    pattern = rf"warning: {name} has held the event loop for \d+ s, in {place} \(.*plugin_{name}\.py:\d+\): "
    assert re.search(pattern, said)
    process.send_signal(signal.SIGTERM)
    _, rest = process.communicate(timeout=START_S)
    assert f"{name}: interrupted, because it held the event loop when it had to end" in rest
    assert "has held" not in rest
    assert "Traceback" not in rest
    assert process.returncode == 0


@pytest.mark.waits
def test_source_that_does_not_end_is_ended_by_force(
    install: Callable[[str, str], None], start: Callable[..., subprocess.Popen[str]], segment_path: Path
) -> None:
    """One that ignores its cancellation keeps no service alive; what was published is whole, and the lock free."""
    install(
        "stubborn",
        "class Source(Good):\n    async def run(self, emit):\n"
        "        with anyio.CancelScope(shield=True):\n            await super().run(emit)\n",
    )
    process = start("stubborn")
    eventually(lambda: is_committed(segment_path))
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=START_S)
    assert "ended by force, because a source neither ends nor lets others run" in said
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().body.disruption_marker == 7
    with SegmentWriter(segment_path) as writer:
        writer.write(VMClockBody())
