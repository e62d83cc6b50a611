"""``publish auto``: what it picks of what a machine has, and what it says of that."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self, cast

import anyio
import pytest
import trio
import trio.testing

from kit.adjtimex import AdjtimexStandIn
from kit.chronyd import Chronyd, free_port, needs_chronyd
from kit.commands import run_command, start_command
from kit.fitness import fit
from kit.sources import Script, Scripted, measured, saying
from kit.waits import BOUND_S, eventually, is_committed, until
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    CounterId,
    Emit,
    Publisher,
    SegmentReader,
    SegmentWriter,
    Source,
    SourceError,
    SourceUnavailableError,
    UnknownSourceError,
    VMClockBody,
)
from vmclock_async._cli.auto import pick
from vmclock_async.testing import Heard

NEVER_RESTORED = ("--set", "vmgenid.sysfs=/nonexistent")
"""Whatever the kernel's log says about the machine that runs these tests."""
OF_THIS_MACHINE = {"VMCLOCK_ASYNC_SOURCES": "device,vmgenid,told,chrony,kernel"}
"""Without the sources that look for a host's clock, or for servers on the network."""
RANKS = ["device", "vmgenid", "told", "chrony", "ptp", "ntp", "kernel"]


class Published:
    """What a ``publish`` said and did until it was told to stop, after its first commit."""

    def __init__(self, segment: Path, *args: object, **variables: str) -> None:
        process = start_command(
            segment.parent,
            *("publish", *args, "--segment", segment, *NEVER_RESTORED, "--json"),
            variables={**OF_THIS_MACHINE, **variables},
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
    """Where no source is installed that reads a clock there is one line, and status 1."""
    done = run_cli("publish", VMCLOCK_ASYNC_SOURCES="replay")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "auto: no source to pick from: none that it picks is installed; name one" in line
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
        given = {**OF_THIS_MACHINE, **variables}
        return run_command(tmp_path, *args, "--segment", tmp_path / "segment", variables=given)

    return run


class Going:
    """A ``publish`` that goes on, whose log is read line by line; killed when the block ends."""

    def __init__(self, segment: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        sets = [word for option in options for word in ("--set", option)]
        self.process = start_command(
            segment.parent,
            *("publish", *NEVER_RESTORED, "--segment", segment, *sets),
            variables={**OF_THIS_MACHINE, **(environment or {})},
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


@pytest.mark.waits
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


class Probed(Scripted):
    """A source with a probe of its own; without a script it says nothing."""

    def __init__(self, probe: Callable[[], str], script: Script | None = None) -> None:
        super().__init__(script or saying())
        self.probe = probe


def found() -> str:
    return "found"


def no_bound() -> str:
    raise SourceUnavailableError("ptp", "nothing bounds the error of /dev/ptp0; set ptp.assumed_error")


def building(probes: Mapping[str, Callable[[], str]]) -> Callable[[str], Source]:
    """Builds the sources of *probes*; no other is installed."""

    def build(name: str) -> Source:
        if name not in probes:
            raise UnknownSourceError(name, f"no source of this name; installed are {', '.join(probes)}")
        return cast("Source", Probed(probes[name]))

    return build


@pytest.mark.long
def test_probe_that_fails_or_hangs_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a plugin's probe does, the others are picked, and it is looked for later on."""
    over = threading.Event()

    def hang() -> str:
        over.wait(60)
        return "late"

    def leave() -> str:
        sys.exit(3)

    probes = dict.fromkeys(RANKS, found) | {"device": hang, "chrony": leave}
    try:
        picked = pick(building(probes))
    finally:
        over.set()
    assert list(picked) == RANKS
    said = capsys.readouterr().err
    assert "auto: not device: its probe has not ended within 5 s; it is looked for from now on" in said
    assert "auto: not chrony: its probe failed with SystemExit: 3; it is looked for from now on" in said
    assert "auto: kernel: found" in said


@pytest.mark.parametrize("installed", [RANKS, RANKS[:4], ["kernel"], ["ntp"]])
def test_source_that_is_not_installed_makes_no_noise(
    installed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """What is installed is picked in order of rank, with a line for each and for no other."""
    picked = pick(building(dict.fromkeys(reversed(installed), found)))
    assert list(picked) == installed
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(installed)
    assert all(line.endswith(f"auto: {name}: found") for line, name in zip(lines, installed, strict=True))


def test_source_without_a_bound_is_no_reason_to_publish(capsys: pytest.CaptureFixture[str]) -> None:
    """A host's clock whose error nobody knows is said so, with the remedy; alone it is not enough."""
    with pytest.raises(SourceError, match="no source to pick from: none of ptp is usable here; name one"):
        pick(building({"ptp": no_bound}))
    said = capsys.readouterr().err
    assert "auto: not ptp: nothing bounds the error of /dev/ptp0; set ptp.assumed_error; it is looked for" in said


@pytest.mark.parametrize(("name", "pause_s"), [("ptp", 5), ("ntp", 60)])
def test_absent_source_is_looked_for(name: str, pause_s: int) -> None:
    """Every five seconds, but once a minute where a look asks servers on the network."""
    outcomes = [no_bound] * 3 + [found]
    picked = pick(building({name: lambda: outcomes.pop(0)(), "kernel": found}))

    async def main() -> float:
        began = trio.current_time()
        await picked[name].run(Heard())
        return float(trio.current_time() - began)

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == 3 * pause_s
    assert not outcomes


@pytest.mark.anyio
async def test_chronyd_that_is_not_synchronized_hides_no_clock_of_the_host(segment_path: Path) -> None:
    """The time comes from the first that has it: ptp, then chrony once it is synchronized, then ptp once it is not."""
    say, listened = anyio.create_memory_object_stream[BodyUpdate](0)

    async def chronyd(emit: Emit) -> None:
        async with listened:
            async for update in listened:
                await emit(update, epoch=emit.epoch)

    async def measuring(emit: Emit) -> None:
        while True:
            await emit(measured(), epoch=emit.epoch)
            await anyio.sleep(0.01)

    scripts: dict[str, Script] = {"chrony": chronyd, "ptp": measuring, "ntp": measuring, "kernel": measuring}
    picked = pick(lambda name: cast("Source", Probed(found, scripts.get(name))))
    publisher = Publisher(segment_path, picked)

    def time_from(name: str) -> Callable[[], bool]:
        return lambda: publisher.statistics().groups["time"] == name

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks, say:
            tasks.start_soon(publisher.run)
            await say.send(BodyUpdate(clock_status=ClockStatus.INITIALIZING))
            await until(time_from("ptp"))
            await say.send(measured())
            await until(time_from("chrony"))
            await say.send(BodyUpdate(clock_status=ClockStatus.UNKNOWN))
            await until(time_from("ptp"))
            tasks.cancel_scope.cancel()
    assert list(publisher.statistics().sources) == RANKS
