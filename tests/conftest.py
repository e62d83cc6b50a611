"""Fixtures that tests share: places for segments, pages to put there, and other processes.

Other processes are programs under the interpreter that runs the tests, killed and reaped when the test ends.
"""

import gc
import logging
import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

import vmclock_chrony.connection
from kit import markers
from kit.adjtimex import AdjtimexStandIn
from kit.chronyd import Chronyd, free_port
from kit.forks import Started
from kit.ntp_source import quicken
from kit.played_chronyd import PlayedChronyd
from kit.programs import path_of, started
from kit.stand_ins import compiled
from kit.told_world import World
from vmclock_async import Clock, SegmentWriter, VMClockBody

# A busy machine is no reason to fail, and a failure in CI must be there again when it is looked at.
settings.register_profile("unhurried", deadline=None, derandomize=bool(os.environ.get("CI")))
# For mutants, of which it is known that they fail: that they do is enough.
settings.register_profile("unshrunk", settings.get_profile("unhurried"), phases=(Phase.explicit, Phase.generate))
settings.load_profile("unhurried")

# What tests write is for them to write alone, as a writer demands; some users' umask lets their group write, too.
os.umask(0o022)

_BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("trio", {}), id="trio"),
]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """With ``-n auto``: four for each processor, because three quarters of the tests' time in all is waiting."""
    return min(4 * len(os.sched_getaffinity(0)), 8)


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Mark the tests that start processes, before ``-m`` chooses; of the chosen, long waits begin first."""
    markers.mark(items)
    yield
    items[:] = markers.with_long_waits_first(items)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Take what the collection made out of the garbage collector's hands.

    It is 170,000 objects that stay until the end, and a look at them takes 0.1 s: ``check_source`` alone, which
    collects garbage before it believes that a source left something, would take a minute for that.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def frozen() -> None:
    """Take out of the garbage collector's hands, too, what the tests of other modules have loaded for good."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where CI is set a skipped test is a failed one: nothing is left out unseen."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        *_, reason = report.longrepr if isinstance(report.longrepr, tuple) else ("",)
        report.outcome = "failed"
        report.longrepr = f"{reason}; with CI set, a skipped test is a failure"
    return report


@pytest.fixture(params=_BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The event loop a test of the async API runs on; such a test runs on every one."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture
def segment_path(tmp_path: Path) -> Iterator[Path]:
    """A path where nothing is yet, alone in a directory on tmpfs, where segments belong."""
    if not os.access("/dev/shm", os.W_OK):
        yield tmp_path / "shm0"
        return
    directory = Path(tempfile.mkdtemp(prefix="vmclock-async-", dir="/dev/shm"))
    directory.chmod(0o755)
    try:
        yield directory / "shm0"
    finally:
        shutil.rmtree(directory)


@pytest.fixture
def writer(segment_path: Path) -> Iterator[SegmentWriter]:
    """A writer that has committed once: seq_count is 2."""
    with SegmentWriter(segment_path) as opened:
        opened.write(VMClockBody(disruption_marker=1))
        yield opened


@pytest.fixture(scope="module")
def quiet_log() -> Iterator[None]:
    """No log of the publisher, for searches in which tens of thousands of steps are logged."""
    log = logging.getLogger("vmclock_async.publisher")
    log.setLevel(logging.CRITICAL)
    yield
    log.setLevel(logging.NOTSET)


@pytest.fixture
def world(segment_path: Path) -> Iterator[World]:
    """A segment that tells the time of a world where it is known."""
    told = World(segment_path)
    yield told
    told.close()


@pytest.fixture
def clock(world: World) -> Iterator[Clock]:
    """A clock of the world's segment, without a fence."""
    with Clock(world.path, fence=None) as opened:
        yield opened


@pytest.fixture
def fenced(world: World) -> Iterator[Clock]:
    """The same, with the world's device for a fence."""
    with Clock(world.path, fence=world.device) as opened:
        yield opened


@pytest.fixture
def vectors() -> Path:
    """The directory of pages that other programs wrote; each folder's README says which."""
    return Path(__file__).parent / "vectors"


@pytest.fixture
def make_page() -> Callable[..., bytes]:
    """Bytes of a page with the given header, written out by hand so that they do not follow our own packing."""

    def make(
        *,
        seq_count: int = 2,
        version: int = 1,
        size: int = 104,
        magic: int = 0x4B4C4356,
        counter_id: int = 0,
        time_type: int = 0,
        body: bytes = bytes(88),
    ) -> bytes:
        return struct.pack("<IIHBBI", magic, size, version, counter_id, time_type, seq_count) + body

    return make


@pytest.fixture
def start_script() -> Iterator[Callable[..., Started]]:
    """Starts a program of tests/programs, by name, with arguments; killed when the test ends.

    It has pipes to its stdin and from its stdout; keyword arguments are those of ``start_program``.
    """
    with started() as start:
        yield lambda program, *args, **how: start(path_of(program), *args, stdin=subprocess.PIPE, **how)


@pytest.fixture
def run_script(start_script: Callable[..., Started]) -> Callable[..., str]:
    """Runs a program to its end, which must be a success, and returns what it printed."""

    def run(program: str, *args: object, **how: Any) -> str:
        process = start_script(program, *args, **how)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, f"exit code {process.returncode}; it printed {output!r}"
        return output

    return run


@pytest.fixture(scope="session")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled library whose flock(2), fsync(2) and inotify_init1(2) fail as the environment says."""
    return compiled("refusals", tmp_path_factory.mktemp("refusing"))


@pytest.fixture(scope="session")
def adjtimex_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled stand-in for the kernel's clock."""
    return compiled("adjtimex", tmp_path_factory.mktemp("adjtimex"))


@pytest.fixture
def played_clock(adjtimex_library: Path, tmp_path: Path) -> Iterator[AdjtimexStandIn]:
    """A clock of the kernel's to play to other processes: ``start_script(..., environment=clock.environment)``."""
    clock = AdjtimexStandIn(adjtimex_library, tmp_path / "played-clock")
    try:
        yield clock
    finally:
        clock.close()


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedChronyd]:
    """A chronyd whose reports are the test's, and which is waited for: its thread may have to, on a busy machine."""
    monkeypatch.setattr(vmclock_chrony.connection, "_TIMEVAL", struct.pack("@ll", 50, 0))
    with PlayedChronyd() as chronyd:
        yield chronyd


@pytest.fixture(scope="module")
def followed() -> Iterator[tuple[Chronyd, int]]:
    """A real chronyd that follows another, and its command port."""
    port, command_port = free_port(), free_port()
    with Chronyd.server(port), Chronyd.client(port, command_port=command_port) as client:
        yield client, command_port


@pytest.fixture
def quick_ntp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ntp source asks every few hundredths of a second."""
    quicken(monkeypatch)
