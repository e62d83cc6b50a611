"""The connection to chronyd: real ones, silent ones, refused ones; and pychrony, where it is not what it was."""

import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from kit.chrony_source import running, settings
from kit.chronyd import Chronyd, needs_chronyd
from kit.fitness import fit
from kit.notes import Notes, contains_realtime
from kit.played_chronyd import PlayedChronyd, PlayedSource
from kit.waits import until
from vmclock_async import (
    ClockStatus,
    SourceError,
    SourceUnavailableError,
)
from vmclock_chrony import ChronySource
from vmclock_chrony.connection import Connection

pychrony = pytest.importorskip("pychrony")
pytestmark = fit

NS = 10**9


# The connection


@needs_chronyd
def test_command_port_tells_the_time_to_anyone(followed: tuple[Chronyd, int]) -> None:
    """127.0.0.1:port instead of the socket: the same reports."""
    _, command_port = followed
    notes = Notes()
    source = ChronySource(settings(f"127.0.0.1:{command_port}"))

    async def script() -> None:
        async with running(source, notes):
            await until(lambda: bool(notes.updates) and notes.updates[-1].clock_status == ClockStatus.SYNCHRONIZED)

    anyio.run(script)
    assert contains_realtime(notes.updates[-1])
    assert source.probe() == f"chronyd at 127.0.0.1:{command_port}, synchronized to 127.0.0.1"


@needs_chronyd
def test_chronyd_that_is_stopped_is_unavailable(followed: tuple[Chronyd, int]) -> None:
    """SIGSTOP: an error that says so within about two seconds, and no thread waits on."""
    client, _ = followed
    threads = threading.active_count()
    client.signal(signal.SIGSTOP)
    began_s = time.monotonic()
    try:
        with pytest.raises(SourceUnavailableError, match=r"no answer from chronyd at .*chronyd\.sock within 1 s"):
            anyio.run(ChronySource(settings(client.socket)).run, Notes())
    finally:
        client.signal(signal.SIGCONT)
    assert time.monotonic() - began_s > 0.9
    while threading.active_count() > threads:  # the loop's own worker ends a moment after it
        time.sleep(0.01)


def threads_in_a_request() -> list[int]:
    """The other threads that are in the connection's code; the backend keeps idle ones, however many it chose."""
    return [
        thread
        for thread, frame in sys._current_frames().items()
        if thread != threading.get_ident()
        and any(
            entry.filename.endswith("vmclock_chrony/connection.py") for entry in traceback.extract_stack(frame)
        )
    ]


@pytest.mark.parametrize("kind", ["socket", "command port"])
@pytest.mark.anyio
async def test_cancelling_leaves_nothing_behind(segment_path: Path, kind: str) -> None:
    """In the middle of a wait for an answer: at once, and as a cancellation, without a thread or a descriptor."""
    place = segment_path.with_name("silent")  # its path is short enough for a socket's, and pytest's may not be
    family = socket.AF_UNIX if kind == "socket" else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as silent:
        silent.bind(str(place) if kind == "socket" else ("127.0.0.1", 0))
        address = place if kind == "socket" else f"127.0.0.1:{silent.getsockname()[1]}"
        source = ChronySource(settings(address))
        await anyio.to_thread.run_sync(source.settings_type)  # the backend's own thread, which it keeps
        descriptors = os.listdir("/proc/self/fd")
        running = len(anyio.get_running_tasks())
        for _ in range(3):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(source.run, Notes())
                await anyio.wait_readable(silent)
                silent.recv(1024)
                assert len(os.listdir("/proc/self/fd")) > len(descriptors)
                assert threads_in_a_request() != []
                with anyio.CancelScope(shield=True):
                    tasks.cancel_scope.cancel()
                    for _ in range(50):  # turns of the loop: half an answer's time, or longer on a busy machine
                        await anyio.sleep(0.01)
                        if len(anyio.get_running_tasks()) == running:
                            break
                    else:
                        pytest.fail("it waits for the answer")
        assert os.listdir("/proc/self/fd") == descriptors
        assert threads_in_a_request() == []
    assert [path.name for path in place.parent.iterdir()] in ([], ["silent"])


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
@pytest.mark.parametrize("directory_mode", [0o750, 0o755])
def test_refused_socket_names_the_remedies(
    run_script: Callable[..., str], segment_path: Path, directory_mode: int
) -> None:
    """As on every distribution: the socket, or already its directory, is root's and the chrony user's alone."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as chronyd:
        directory = segment_path.parent / "chrony"
        directory.mkdir()
        chronyd.bind(str(directory / "chronyd.sock"))
        directory.chmod(directory_mode)
        said = run_script("probe_chronyd", directory / "chronyd.sock")
    assert said.startswith(f"chrony: this user may not use chronyd's socket {directory}/chronyd.sock")
    assert "run as root or the chrony user, or use the command port (address=127.0.0.1:323)" in said


def test_socket_that_is_not_there_is_no_refusal(tmp_path: Path) -> None:
    """It asks whether chronyd is running."""
    with pytest.raises(SourceUnavailableError, match=r"no answer .*is it running, and is this its address\?"):
        ChronySource(settings(tmp_path / "chronyd.sock")).probe()


FLOATS = (
    "offset", "last_offset", "rms_offset", "frequency", "residual_freq", "skew", "root_delay", "root_dispersion",
    "update_interval",
)  # fmt: skip
EXTREMES = tuple(bytes.fromhex(wire) for wire in ("7effffff", "7f000000", "7fffffff", "80ffffff", "81000000"))
"""The largest float of the wire, the least, one in between, and the smallest of either sign."""
ODD_REPORTS: list[dict[str, Any]] = [
    *({name: wire} for name in FLOATS for wire in EXTREMES),
    *(dict.fromkeys(FLOATS, wire) for wire in EXTREMES),
    *({"ref_time": ns} for ns in (1, 2**62, 2**92, 2**63 * NS, (2**64 - 1) * NS)),
    {"ref_time": 1, "offset": -time.time()},
    {"frequency": 1e6},
    {"frequency": -499_999.0},
    {"stratum": 99},
    {"leap": 7},
    {"reference_id": 0},
]


@pytest.mark.long
def test_no_report_of_chronyds_is_an_error_of_the_source(played: PlayedChronyd) -> None:
    """Whatever the wire can carry: updates that are valid, or a chronyd that is unavailable for now."""

    async def outcome() -> None:
        notes, asked = Notes(), played.asked
        async with anyio.create_task_group() as tasks:

            async def end() -> None:
                await until(lambda: played.asked > asked + 1)
                tasks.cancel_scope.cancel()

            tasks.start_soon(end)
            try:
                await ChronySource(settings(played.address)).run(notes)
            except SourceUnavailableError:
                tasks.cancel_scope.cancel()

    for odd in ODD_REPORTS:
        played.say(
            **{"leap": 0, "stratum": 2, "reference_id": 1, "ref_time": None, **dict.fromkeys(FLOATS, 1e-6), **odd}
        )
        anyio.run(outcome)


def test_source_that_comes_between_two_reports_is_no_nonsense(played: PlayedChronyd) -> None:
    """chronyd finds another server after it said how many it has: nothing is known of them this time, and no error."""
    played.before_count = lambda: played.sources.append(PlayedSource(1, 0))
    with Connection(played.address) as connection:
        assert connection.sources() == []
        played.before_count = lambda: None
        assert len(connection.sources()) == 2


@pytest.mark.parametrize(
    ("odd", "seen"),
    [
        ({"offset": 1e10}, "offset 1e+10"),
        ({"frequency": -1e6}, "frequency -1e+06"),
        ({"root_delay": -1.0}, "root_delay must be non-negative: -1"),
        ({"stratum": 99}, "Invalid stratum: 99"),
    ],
)
def test_nonsense_is_not_called_silence(played: PlayedChronyd, odd: dict[str, object], seen: str) -> None:
    """A chronyd that answered is not asked whether it is running: what it said is named."""
    played.say(**odd)
    with pytest.raises(SourceUnavailableError) as caught:
        ChronySource(settings(played.address)).probe()
    said = str(caught.value)
    assert said.startswith(
        f"chrony: chronyd at {played.address} answered, and what it said makes no sense ({seen}"
    )
    assert "is it running" not in said


def test_another_program_behind_the_port_is_named() -> None:
    """An answer that is no chronyd's: it is not asked whether chronyd is running, either."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))

        def answer() -> None:
            request, client = other.recvfrom(1024)
            reply = bytearray(request.ljust(132, b"\0"))  # of the version and to the command that was asked for
            reply[1:6] = bytes([2, 0, 0, *request[4:6]])
            reply[6:10] = bytes([0, 99, 0, 0])
            reply[16:20] = request[8:12]
            other.sendto(reply, client)

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(SourceUnavailableError, match="does something else listen there"):
            ChronySource(settings(f"127.0.0.1:{other.getsockname()[1]}")).probe()
        answering.join()


def test_missing_pychrony_is_named(run_script: Callable[..., str]) -> None:
    """With what to install; trying again is of no use."""
    said = run_script("probe_without_pychrony")
    assert said.startswith("SourceError chrony: needs pychrony (")
    assert "pip install 'vmclock-async[chrony]'" in said


def test_pychrony_of_another_make_is_named(
    played: PlayedChronyd, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that keeps its descriptor elsewhere: without it there is no time-out, so it is not used."""
    (tmp_path / "pychrony.py").write_text(
        "class ChronyError(Exception): pass\n"
        "class ChronyLibraryError(ChronyError): pass\n"
        "class ChronyConnection:\n"
        "    address = 'here'\n"
        "    def __init__(self, address): pass\n"
        "    def __enter__(self): return self\n"
        "    def __exit__(self, *_): pass\n"
        "__version__ = '99.0'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pychrony")
    with pytest.raises(SourceError, match=r"pychrony 99\.0 keeps no descriptor in _fd") as caught:
        ChronySource(settings(played.address)).probe()
    assert "supported is pychrony>=2.0.3,<3: pip install 'pychrony>=2.0.3,<3'" in str(caught.value)
    assert not isinstance(caught.value, SourceUnavailableError)
