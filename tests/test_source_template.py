"""The template of a third party's source: built, installed and published from, as its README says."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kit.commands import command, environment, run_new_interpreter
from kit.distributions import pip
from kit.fitness import fit
from kit.ntp import NtpResponder
from vmclock_async import Clock, ClockStatus, TimeInterval, VMClockError

TEMPLATE = Path(__file__).parent.parent / "examples/clock-source-template"
BOUND_S = 30.0
"""Longest time that a start may take, on a machine that is busy with others."""
AHEAD_NS = 3600 * 10**9
"""So far is the server's time from this machine's: it cannot be mistaken for it."""


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template in a directory of its own, because a build leaves things beside the sources."""
    return Path(shutil.copytree(TEMPLATE, tmp_path_factory.mktemp("template") / "copied"))


@pytest.fixture(scope="module")
def installed(copied: Path) -> Path:
    """The directory in which its wheel is installed."""
    pip("wheel", "--no-build-isolation", "--wheel-dir", copied / "dist", copied)
    (wheel,) = (copied / "dist").iterdir()
    pip("install", "--target", copied / "installed", wheel)
    return copied / "installed"


def first_reading(path: Path) -> TimeInterval:
    """The first time that the segment at *path* gives."""
    ends_s = time.monotonic() + BOUND_S
    while True:
        try:
            with Clock(path) as clock:
                return clock.now()
        except VMClockError:
            if time.monotonic() > ends_s:
                raise
            time.sleep(0.02)


def test_template_is_found_with_its_options(installed: Path, tmp_path: Path) -> None:
    """The installed wheel is listed beside the shipped sources, with the options and what they mean."""
    listed = run_new_interpreter(tmp_path, "sources", variables={"PYTHONPATH": str(installed)})
    assert listed.returncode == 0, listed.stderr
    assert "clock-source-template" in listed.stdout
    for option in ("sntp.server", "sntp.port", "sntp.poll_interval", "sntp.patience"):
        assert option in listed.stdout


@fit
def test_template_publishes_the_time_of_its_server(installed: Path, tmp_path: Path, segment_path: Path) -> None:
    """The interval that a clock reads contains the server's time, which is an hour ahead of this machine's."""
    with NtpResponder(lambda ns: ns + AHEAD_NS) as server:
        options = ("--set", "sntp.server=127.0.0.1", "--set", f"sntp.port={server.port}")
        publishing = subprocess.Popen(
            command("publish", "sntp", *options, "--segment", segment_path),
            stderr=subprocess.PIPE,
            text=True,
            env=environment(tmp_path, {"PYTHONPATH": str(installed)}),
        )
        try:
            before_ns = time.time_ns() + AHEAD_NS
            interval = first_reading(segment_path)
            after_ns = time.time_ns() + AHEAD_NS
        finally:
            publishing.send_signal(signal.SIGTERM)
            _, said = publishing.communicate(timeout=BOUND_S)
    assert publishing.returncode == 0, said
    assert interval.status == ClockStatus.SYNCHRONIZED
    assert interval.latest_ns >= before_ns
    assert interval.earliest_ns <= after_ns


def test_template_says_what_is_missing(installed: Path, tmp_path: Path, segment_path: Path) -> None:
    """An option that must be given is asked for by name, before anything is published."""
    refused = run_new_interpreter(
        tmp_path, "publish", "sntp", "--segment", segment_path, variables={"PYTHONPATH": str(installed)}
    )
    assert refused.returncode == 2
    assert "server: is missing" in refused.stderr


def test_template_passes_its_own_tests(installed: Path, copied: Path, tmp_path: Path) -> None:
    """What a third party copies comes with tests that pass, check_source among them, against the installed wheel."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio", "tests"],
        cwd=copied,
        env=environment(tmp_path, {"PYTHONPATH": str(installed)}),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
