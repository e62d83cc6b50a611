"""``publish auto``: what it picks of what a machine has, and what it says of that."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from chrony_rig import Chronyd, free_port, needs_chronyd
from vmclock_async import CounterId, SegmentReader, SegmentWriter, VMClockBody
from vmclock_async.timebase import counter_unfit_because

START_S = 20.0

fit = pytest.mark.skipif(counter_unfit_because() is not None, reason=str(counter_unfit_because()))


class Published:
    """What a ``publish`` said and did until it was told to stop, after its first commit."""

    def __init__(self, segment: Path, *args: object, **variables: str) -> None:
        command = [sys.executable, "-W", "error", "-m", "vmclock_async", "publish", *map(str, args)]
        process = subprocess.Popen(
            [*command, "--segment", str(segment), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | variables,
        )
        try:
            with open(os.devnull, "w") as nowhere:
                subprocess.run(
                    [sys.executable, "-c", _WAIT, str(segment)], timeout=START_S, check=True, stdout=nowhere
                )
        finally:
            process.terminate()
            out, self.said = process.communicate()
        self.status = process.returncode
        statistics = json.loads(out)
        self.groups, self.sources = statistics["groups"], list(statistics["sources"])


_WAIT = """
import sys, time
from vmclock_async import SegmentError, SegmentReader
while True:
    try:
        SegmentReader(sys.argv[1]).snapshot()
        break
    except SegmentError:
        time.sleep(0.02)
"""


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
    """The device for disruptions, chronyd for the time; said with what was found. It is what no source means."""
    port = free_port()
    with Chronyd.server(port), Chronyd.client(port) as client:
        options = (f"device.path={page}", f"chrony.address={client.socket}")
        sets = [word for option in options for word in ("--set", option)]
        published = Published(segment_path, *names, *sets)
    assert f"auto: device: {page}, marker 41, no time" in published.said
    assert f"auto: chrony: chronyd at {client.socket}" in published.said
    assert "kernel" not in published.said
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
    assert published.sources == ["kernel", "device"]


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
    """It is told, and not passed over as a source that is not there."""
    done = run_cli("publish", "auto", "--set", option)
    assert done.returncode == 2
    assert option.partition("=")[0].partition(".")[2] in done.stderr


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["kernel", "kernel"], "named twice"),
        (["--set", "replay.path=x"], "not among the sources"),
        (["kernel", "--config", "TYPO"], "a table kernl for what is not among the sources"),
    ],
)
def test_options_that_would_have_no_effect_are_refused(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    run_cli: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """A name that is mistyped, or given twice, is wrong usage."""
    (tmp_path / "TYPO").write_text("[kernl]\nassumed_error = 1\n")
    done = run_cli("publish", *(str(tmp_path / "TYPO") if word == "TYPO" else word for word in arguments))
    assert done.returncode == 2
    assert complaint in " ".join(done.stderr.replace("│", " ").split())


@pytest.fixture
def run_cli(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command line to its end."""

    def run(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "vmclock_async", *args, "--segment", str(tmp_path / "segment")]
        environment = os.environ | variables
        return subprocess.run(command, capture_output=True, text=True, timeout=30, env=environment, check=False)

    return run
