"""``doctor`` as a command: what it prints, how it ends, and that it ends well on machines that hide themselves."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.adjtimex import STA_UNSYNC, AdjtimexStandIn
from kit.commands import failure, run_command
from kit.forks import Started
from kit.mounts import in_own_mounts
from kit.programs import path_of
from kit.terminals import run_on_terminal
from kit.told_world import World
from vmclock_async._cli.findings import LOOKS

LEVELS = ("ok", "warning", "missing")


def findings_in(said: dict[str, Any]) -> dict[str, dict[str, str]]:
    """The findings of an object of JSON, by their ids."""
    findings: list[dict[str, str]] = said["findings"]
    assert [finding["id"] for finding in findings] == list(LOOKS)
    for finding in findings:
        assert finding.keys() == {"id", "level", "found", "remedy"}
        assert finding["level"] in LEVELS
        assert finding["found"]
        assert bool(finding["remedy"]) == (finding["level"] != "ok"), finding
        assert "could not be looked at" not in finding["found"], finding
    return {finding["id"]: finding for finding in findings}


def test_machine_with_a_segment_can_give_a_time(world: World) -> None:
    """Status 0, one line a finding and the verdict last; nothing on stderr."""
    done = run_command(world.path.parent, "doctor", world.path)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, verdict = done.stdout.splitlines()
    assert re.match(r"a bounded time is possible from: (.*, )?segment$", verdict)
    assert [line.split()[1] for line in lines] == list(LOOKS)
    assert {line.split()[0] for line in lines} <= {*LEVELS}
    assert len({re.match(r"\w+ +[\w-]+ +", line).end() for line in lines}) == 1  # type: ignore[union-attr]
    assert all((" -> " in line) == (not line.startswith("ok")) for line in lines)
    assert "\x1b" not in done.stdout


def test_json_of_a_machine_with_a_segment(world: World) -> None:
    """One object: that a time is possible, from what, and all findings."""
    done = run_command(world.path.parent, "doctor", "--json", world.path)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    assert said.keys() == {"ok", "possible", "findings"}
    assert said["ok"] is True
    assert said["possible"][-1] == "segment"
    assert findings_in(said)["publisher"]["level"] == "ok"


def test_machine_without_a_time_fails(tmp_path: Path, played_clock: AdjtimexStandIn) -> None:
    """Status 1; JSON has what the object of each failure has, and all findings; prose ends with the verdict."""
    nothing = tmp_path / "none"
    played_clock.play(status=STA_UNSYNC)
    variables = {**played_clock.environment, "VMCLOCK_ASYNC_SOURCES": "replay,told,kernel"}
    said = failure(run_command(tmp_path, "doctor", "--json", nothing, variables=variables))
    assert (said["ok"], said["possible"], said["error"]) == (False, [], "ClockUnboundedError")
    assert said["reason"].startswith("nothing here can give a bounded time: ")
    assert findings_in(said)["segment"]["found"] == f"nothing is at {nothing}"
    done = run_command(tmp_path, "doctor", nothing, variables=variables)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.splitlines()[-1] == f"{said['reason']}; {said['remedy']}"


def test_terminal_gets_colours(world: World) -> None:
    """Each level has its own; the text is the same."""
    status, drawn = run_on_terminal("doctor", world.path)
    assert status == 0
    assert "\x1b[32mok" in drawn
    assert "\x1b[31mmissing" in drawn
    assert len([line for line in drawn.splitlines() if line]) == len(LOOKS) + 1


HARDENED = {
    "only processes in /proc": [
        "mount -t tmpfs none /mnt",
        *(f"mount --bind /mnt /proc/{name}" for name in ("sys", "fs")),
        "touch /mnt/nothing; chmod 0 /mnt/nothing; mount --bind /mnt/nothing /proc/cpuinfo",
    ],
    "an empty /proc and /sys": ["mount -t tmpfs none /proc", "mount -t tmpfs none /sys"],
}


@pytest.mark.parametrize("kind", HARDENED)
def test_machine_that_hides_itself_is_no_worse(kind: str, world: World) -> None:
    """Where /proc and /sys show nothing, that is a warning at most; the segment is read, and there is no traceback."""
    command = in_own_mounts(*HARDENED[kind])
    words = [*command, "-m", "vmclock_async", "doctor", "--json", str(world.path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    found = findings_in(said)
    assert "segment" in said["possible"]
    hidden = {"clocksource", "proc", "sys", "memory", "inotify", "time-namespace"}
    assert not {name for name in hidden if found[name]["level"] == "missing"}
    if kind == "an empty /proc and /sys":
        assert {name for name in hidden if found[name]["level"] == "warning"} == hidden
        assert all("cannot be read here" in found[name]["found"] for name in hidden)


def test_machine_without_proc_gives_findings(world: World) -> None:
    """Where nothing below /proc can be opened, in whatever thread, there is a report all the same."""
    words = ["doctor", "--json", str(world.path)]
    done = subprocess.run(
        [sys.executable, path_of("without_proc"), *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    findings_in(json.loads(done.stdout))


def test_ordinary_user_gets_findings(world: World, start_script: Callable[..., Started]) -> None:
    """Nothing needs root: what this user may not do is a finding, with what would let them."""
    world.path.chmod(0o600)
    process = start_script("doctor_as_nobody", "--json", world.path)
    output, _ = process.communicate(timeout=30)
    found = findings_in(json.loads(output))
    if os.geteuid() == 0:  # otherwise the user owns the segment
        assert found["segment"]["found"].endswith("mode 0600: this user may not read it")
        assert found["segment"]["remedy"] == f"chmod a+r {world.path}"
        assert found["reading"]["level"] == "warning"
        assert "segment" not in json.loads(output)["possible"]


PLUGIN = """
from pydantic import BaseModel

class Settings(BaseModel):
    pass

class Gps:
    settings_type = Settings
    rests_on_system_clock = False

    def __init__(self, settings):
        print("made")

    def probe(self):
        print("probed")
        return "four satellites"

    async def run(self, emit):
        pass
"""


def test_installed_sources_of_others_are_asked(tmp_path: Path) -> None:
    """One that finds what it needs can give a time; a broken one is named; what they print is no part of the result."""
    metadata = tmp_path / "others-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[vmclock_async.sources]\ngps = gps_plugin:Gps\nlost = no_such_module:Lost\n"
    )
    (tmp_path / "gps_plugin.py").write_text(PLUGIN)
    done = run_command(tmp_path, "doctor", "--json", tmp_path / "none", variables={"PYTHONPATH": str(tmp_path)})
    assert (done.returncode, "probed" in done.stderr) == (0, True), done.stderr
    said = json.loads(done.stdout)
    assert "gps" in said["possible"]
    finding = findings_in(said)["sources"]
    assert finding["level"] == "warning"
    assert re.search(r"present: .*\bgps\b", finding["found"])
    assert "broken: lost of others (no_such_module:Lost of others 1.0 cannot be imported" in finding["found"]
    assert finding["remedy"].startswith("repair or uninstall")
