"""``publish auto``: what it picks of what a machine has, and what it says of that."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Self

import pytest
from pydantic import BaseModel

from kit.adjtimex import AdjtimexStandIn
from kit.chronyd import Chronyd, free_port, needs_chronyd
from kit.commands import run_command, start_command
from kit.fitness import fit
from kit.waits import eventually, is_committed
from vmclock_async import CounterId, Emit, SegmentReader, SegmentWriter, VMClockBody
from vmclock_async._cli.auto import pick

NEVER_RESTORED = ("--set", "vmgenid.sysfs=/nonexistent")
"""Whatever the kernel's log says about the machine that runs these tests."""


class Published:
    """What a ``publish`` said and did until it was told to stop, after its first commit."""

    def __init__(self, segment: Path, *args: object, **variables: str) -> None:
        process = start_command(
            segment.parent,
            *("publish", *args, "--segment", segment, *NEVER_RESTORED, "--json"),
            variables=variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            eventually(lambda: is_committed(segment))
        finally:
            process.terminate()
            out, self.said = process.communicate()
        self.status = process.returncode
        statistics = json.loads(out)
        self.groups, self.sources = statistics["groups"], list(statistics["sources"])


@pytest.fixture
def page(tmp_path: Path) -> Path:
    """A page as QEMU makes it: a marker, and no time."""
    path = tmp_path / "page"
    with SegmentWriter(path) as writer:
        writer.write(VMClockBody(disruption_marker=41), counter_id=CounterId.INVALID)
    return path


@fit
@needs_chronyd
@pytest.mark.parametrize("names", [["auto"], []])
def test_device_and_chronyd_are_picked_where_they_are(names: list[str], page: Path, segment_path: Path) -> None:
    """The device for disruptions, chronyd for the time, before the kernel; said with what was found.

    It is what no source means.
    """
    port = free_port()
    with Chronyd.server(port), Chronyd.client(port) as client:
        options = (f"device.path={page}", f"chrony.address={client.socket}")
        sets = [word for option in options for word in ("--set", option)]
        published = Published(segment_path, *names, *sets)
    assert f"auto: device: {page}, marker 41, no time" in published.said
    assert f"auto: chrony: chronyd at {client.socket}" in published.said
    assert published.sources == ["device", "vmgenid", "told", "chrony", "kernel"]
    assert published.status == 0
    assert published.groups["disruption"] == "device"
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().body.disruption_marker == 41


@fit
def test_kernel_is_picked_where_nothing_better_is(tmp_path: Path, segment_path: Path) -> None:
    """No device, no chronyd: the kernel's clock, and why the others are not."""
    options = (f"device.path={tmp_path / 'none'}", f"chrony.address={tmp_path / 'none.sock'}")
    sets = [word for option in options for word in ("--set", option)]
    published = Published(segment_path, *sets)
    assert f"auto: not device: {tmp_path / 'none'}: nothing is there" in published.said
    assert "auto: not chrony: no answer from chronyd at" in published.said
    assert "auto: kernel: the kernel's clock" in published.said
    assert published.groups["time"] == "kernel"


@fit
def test_source_can_be_named_beside_auto(page: Path, tmp_path: Path, segment_path: Path) -> None:
    """It keeps its rank before what ``auto`` picks, and comes but once."""
    options = (f"device.path={page}", f"chrony.address={tmp_path / 'none.sock'}")
    sets = [word for option in options for word in ("--set", option)]
    published = Published(segment_path, "kernel", "auto", *sets)
    assert published.sources == ["kernel", "device", "vmgenid", "told", "chrony"]


def test_nothing_to_pick_from_is_told(run_cli: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Where no source is installed that reads a clock there is one line at the end, and status 1."""
    done = run_cli("publish", VMCLOCK_ASYNC_SOURCES="replay")
    assert done.returncode == 1
    assert "auto: no source to pick from" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["device.pth=x", "chrony.poll_interval=0", "kernel.assumed_error=-1"])
def test_bad_option_of_a_picked_source_is_wrong_usage(
    option: str, run_cli: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """It is told, and not passed over as a source that is not there; no chronyd is, whichever runs here."""
    done = run_cli("publish", "auto", "--set", option, "--set", "chrony.address=/nowhere/chronyd.sock")
    assert done.returncode == 2
    assert option.partition("=")[0].partition(".")[2] in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["kernel", "kernel"], "named twice"),
        (["--set", "replay.path=x"], "not among the sources"),
        (
            ["kernel", "--config", "TYPO"],
            "sources.kernl: not among the sources: kernel; did you mean sources.kernel?",
        ),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    run_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """A name that is mistyped, or given twice, is wrong usage."""
    (tmp_path / "TYPO").write_text("[sources.kernl]\nassumed_error = 1\n")
    done = run_cli("publish", *(str(tmp_path / "TYPO") if word == "TYPO" else word for word in arguments))
    assert done.returncode == 2
    assert complaint in " ".join(done.stderr.replace("│", " ").split())


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line to its end."""

    def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_command(tmp_path, *args, "--segment", tmp_path / "segment", variables=variables)

    return run


class Going:
    """A ``publish`` that goes on, whose log is read line by line; killed when the block ends."""

    def __init__(self, segment: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        sets = [word for option in options for word in ("--set", option)]
        self.process = start_command(
            segment.parent,
            *("publish", *NEVER_RESTORED, "--segment", segment, *sets),
            variables=environment,
            stderr=subprocess.PIPE,
        )
        self.said: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def until(self, pattern: str) -> str:
        """The next line in which *pattern* is found."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError(f"it ended without {pattern!r}: {self.said}")


@fit
@needs_chronyd
def test_chronyd_that_starts_later_is_taken(
    tmp_path: Path, segment_path: Path, played_clock: AdjtimexStandIn
) -> None:
    """The kernel's clock first; then chronyd, and its end and its return: each is said once, in plain words."""
    port = free_port()
    client = Chronyd.client(port)
    sets = (f"device.path={tmp_path / 'none'}", f"chrony.address={client.socket}", "kernel.poll_interval=0.2")
    going = Going(segment_path, *sets, environment=played_clock.environment)
    with Chronyd.server(port), going:
        assert "it is looked for from now on" in going.until("auto: not chrony: ")
        going.until("info: publishing device, vmgenid, told, chrony, kernel to ")
        assert re.search(r"\+/- \d+\.\d+ ms, SYNCHRONIZED", going.until("the time comes from kernel"))
        with client:
            going.until("auto: chrony is there now: chronyd at ")
            assert re.search(r"\+/- \d+\.\d+ ms, SYNCHRONIZED", going.until("the time comes from chrony"))
            client.kill()
            going.until("warning: chrony: .*; it is tried again")
            going.until("the time comes from kernel")
            client.start()
            going.until(r"info: chrony: is there again, after \d+\.\d s")
            going.until("the time comes from chrony")
    said = "".join(going.said)
    assert said.count("not device") == 1


def test_device_that_comes_later_is_taken(tmp_path: Path, segment_path: Path) -> None:
    """A page that appears at the device's path becomes the source of disruptions."""
    sets = (f"device.path={tmp_path / 'page'}", f"chrony.address={tmp_path / 'none.sock'}")
    with Going(segment_path, *sets) as going:
        going.until("info: publishing device, vmgenid, told, chrony, kernel to ")
        with SegmentWriter(tmp_path / "page") as writer:
            writer.write(VMClockBody(disruption_marker=41), counter_id=CounterId.INVALID)
        going.until("auto: device is there now: .*marker 41, no time")
        going.until("the disruption marker of device is now 41")


class Probed:
    """A source with a probe of its own."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, probe: Callable[[], str]) -> None:
        self.probe = probe

    async def run(self, emit: Emit) -> None:
        """Say nothing."""


@pytest.mark.long
def test_probe_that_fails_or_hangs_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a plugin's probe does, the others are picked, and it is looked for later on."""
    over = threading.Event()

    def hang() -> str:
        over.wait(60)
        return "late"

    def leave() -> str:
        sys.exit(3)

    def found() -> str:
        return "found"

    probes = {"device": hang, "vmgenid": found, "told": found, "chrony": leave, "kernel": found}
    try:
        picked = pick(lambda name: Probed(probes[name]))
    finally:
        over.set()
    assert list(picked) == ["device", "vmgenid", "told", "chrony", "kernel"]
    said = capsys.readouterr().err
    assert "auto: not device: its probe has not ended within 5 s; it is looked for from now on" in said
    assert "auto: not chrony: its probe failed with SystemExit: 3; it is looked for from now on" in said
    assert "auto: kernel: found" in said
