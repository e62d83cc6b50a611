"""The source told: programs report disruptions over its socket."""

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from kit.commands import start_command
from kit.waits import is_committed, until
from vmclock_async import (
    DisruptionRefusedError,
    NobodyListensError,
    Publisher,
    SegmentReader,
    publisher as publisher_module,
    report_disruption,
)
from vmclock_async.abi import OWN_DISRUPTION, is_own_generation
from vmclock_async.disruption import LONGEST_LINE, DisruptionAnswer, DisruptionReport, socket_path
from vmclock_async.testing import check_source
from vmclock_told import ToldSettings, ToldSource


def source(**settings: object) -> ToldSource:
    """A source with *settings*."""
    return ToldSource(ToldSettings.model_validate(settings))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first commit of a publisher to which nobody says anything comes at once, and not after its second."""
    monkeypatch.setattr(publisher_module, "_NOTICE_EVERY_S", 0.02)


@asynccontextmanager
async def publishing(path: Path, **settings: object) -> AsyncIterator[Publisher]:
    """A publisher that takes reports."""
    publisher = Publisher(path, {"told": source(**settings)})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        await until(lambda: os.path.exists(socket_path(path)))
        if os.access(socket_path(path), os.W_OK):
            await until(lambda: is_listening(socket_path(path)))
        await until(lambda: is_committed(path))
        yield publisher
        tasks.cancel_scope.cancel()


def is_listening(place: str) -> bool:
    """Whether a connection to *place* is taken."""
    with closing(socket.socket(socket.AF_UNIX)) as tried:
        try:
            tried.connect(place)
        except OSError:
            return False
        return True


def asked(place: str, line: bytes, *, then_end: bool = False) -> DisruptionAnswer:
    """The answer to *line*."""
    with closing(socket.socket(socket.AF_UNIX)) as connection:
        connection.connect(place)
        connection.sendall(line)
        if then_end:
            connection.shutdown(socket.SHUT_WR)
        return DisruptionAnswer.parse_line(connection.recv(LONGEST_LINE))


@pytest.mark.anyio
async def test_report_returns_once_it_is_committed(segment_path: Path) -> None:
    """Readers see the new marker when the call returns, and a restore by its generation counter too."""
    async with publishing(segment_path):
        with SegmentReader(segment_path) as reader:
            first = reader.snapshot().body
            await report_disruption(segment_path)
            stopped = reader.snapshot().body
            await report_disruption(segment_path, restored=True, reason="a snapshot was resumed")
            restored = reader.snapshot().body
    assert first.vm_generation_counter is not None
    assert is_own_generation(first.vm_generation_counter)
    assert stopped.vm_generation_counter == first.vm_generation_counter
    assert restored.vm_generation_counter != first.vm_generation_counter
    markers = [body.disruption_marker // OWN_DISRUPTION for body in (first, stopped, restored)]
    assert markers == [0, 1, 2]
    assert not os.path.exists(socket_path(segment_path))


@pytest.mark.anyio
async def test_reports_at_once_are_all_committed(segment_path: Path) -> None:
    """Each of a hundred reports is a disruption of its own, though few are served at a time."""
    async with publishing(segment_path):
        async with anyio.create_task_group() as reporters:
            for _ in range(100):
                reporters.start_soon(report_disruption, segment_path)
        with SegmentReader(segment_path) as reader:
            assert reader.snapshot().body.disruption_marker == 100 * OWN_DISRUPTION


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"restored\n", "not JSON"),
        (b"{}" * LONGEST_LINE + b"\n", "is longer than 4096 bytes"),
        (b'{"restored": "yes"}\n', "restored"),
        (b'{"when": 1}\n', "when"),
        (b'{"reason": ""}\n', "reason"),
        (b'{"reason": "' + b"x" * 501 + b'"}\n', "reason"),
        (b'{"reason": "\xff"}\n', "not JSON"),
    ],
)
async def test_what_is_no_report_is_refused(segment_path: Path, line: bytes, reason: str) -> None:
    """Nonsense gets an answer that says why, disrupts nothing, and keeps nobody else from reporting."""
    async with publishing(segment_path):
        answer = await anyio.to_thread.run_sync(asked, socket_path(segment_path), line)
        assert not answer.committed
        assert reason in answer.reason
        with SegmentReader(segment_path) as reader:
            assert reader.snapshot().body.disruption_marker == 0
            await report_disruption(segment_path)
            assert reader.snapshot().body.disruption_marker == OWN_DISRUPTION


@pytest.mark.anyio
async def test_idle_connections_keep_nobody_from_reporting(segment_path: Path) -> None:
    """A connection that ends without a word, or before its answer, is no fault."""
    async with publishing(segment_path):
        for _ in range(20):
            assert is_listening(socket_path(segment_path))
        with closing(socket.socket(socket.AF_UNIX)) as hasty:
            hasty.connect(socket_path(segment_path))
            hasty.sendall(DisruptionReport().line())
        await report_disruption(segment_path)
        with SegmentReader(segment_path) as reader:
            await until(lambda: reader.snapshot().body.disruption_marker == 2 * OWN_DISRUPTION)


@pytest.mark.anyio
async def test_mode_decides_who_may_report(segment_path: Path) -> None:
    """The socket has its mode whatever the umask, and at first nobody but its owner may report."""
    before = os.umask(0o077)
    try:
        async with publishing(segment_path, mode="0660"):
            assert stat.S_IMODE(os.stat(socket_path(segment_path)).st_mode) == 0o660
        async with publishing(segment_path):
            assert stat.S_IMODE(os.stat(socket_path(segment_path)).st_mode) == 0o600
    finally:
        os.umask(before)


@pytest.mark.anyio
async def test_user_without_permission_is_refused(segment_path: Path) -> None:
    """The error says what to change."""
    async with publishing(segment_path, mode="0000"):
        if os.geteuid() == 0:
            return  # root may connect to any socket: test_mode_decides_who_may_report holds the mode
        with pytest.raises(DisruptionRefusedError, match=r"may not report.*told\.mode"):
            await report_disruption(segment_path)


@pytest.mark.anyio
async def test_nobody_listens(segment_path: Path) -> None:
    """Without a publisher the error says so, and names the socket."""
    with pytest.raises(NobodyListensError, match=r"shm0\.told: no publisher listens here"):
        await report_disruption(segment_path)


@pytest.mark.anyio
async def test_socket_that_was_left_behind_is_taken_over(segment_path: Path) -> None:
    """A publisher that was killed leaves its socket; the next one listens there. A file is not removed."""
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(socket_path(segment_path))
        left.listen()
    async with publishing(segment_path):
        await report_disruption(segment_path)
    Path(socket_path(segment_path)).write_text("mine")
    publisher = Publisher(segment_path, {"told": source()})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        await until(lambda: publisher.statistics().sources["told"].state == "unavailable")
        assert "is no socket; remove it" in str(publisher.statistics().sources["told"].last_error)
        tasks.cancel_scope.cancel()
    assert Path(socket_path(segment_path)).read_text() == "mine"


@pytest.mark.anyio
async def test_socket_of_another_publisher_is_left_alone(segment_path: Path, tmp_path: Path) -> None:
    """A publisher whose socket would be another's does not take it away."""
    async with publishing(segment_path):
        second = Publisher(segment_path.with_name("second"), {"told": source()})
        Path(socket_path(second.path)).hardlink_to(socket_path(segment_path))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(second.run)
            await until(lambda: second.statistics().sources["told"].state == "unavailable")
            assert "another publisher listens" in str(second.statistics().sources["told"].last_error)
            tasks.cancel_scope.cancel()
        await report_disruption(segment_path)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"group": "no such group"}, "there is no group no such group"),
    ],
)
async def test_socket_that_cannot_be_made(segment_path: Path, settings: dict[str, str], reason: str) -> None:
    """The source is unavailable and says why; other sources go on."""
    publisher = Publisher(segment_path, {"told": source(**settings)})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        await until(lambda: publisher.statistics().sources["told"].state == "unavailable")
        assert reason in str(publisher.statistics().sources["told"].last_error)
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_promises_of_a_source_are_kept() -> None:
    """It may be cancelled at each await, leaves nothing behind, and runs again."""
    assert len(await check_source(lambda: source())) == 1


def test_command_reports(segment_path: Path) -> None:
    """The command returns 0 once the marker is committed, and 1 if no publisher took it in time."""
    command = [sys.executable, "-m", "vmclock_async"]
    with subprocess.Popen(
        [*command, "publish", "told", "--segment", segment_path], stderr=subprocess.PIPE
    ) as process:
        told = subprocess.run(
            [*command, "disrupt", segment_path, "--restored", "--reason", "a test", "--json", "--timeout", "60s"],
            capture_output=True,
            text=True,
            check=False,
        )
        with SegmentReader(segment_path) as reader:
            marker = reader.snapshot().body.disruption_marker
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        log = process.stderr.read().decode()
    assert (told.returncode, told.stdout) == (0, '{"committed": true, "restored": true, "reason": "a test"}\n')
    assert marker == OWN_DISRUPTION
    assert "told: a test (process " in log
    late = subprocess.run(
        [*command, "disrupt", segment_path, "--timeout", "300ms"], capture_output=True, text=True, check=False
    )
    assert (late.returncode, late.stdout) == (1, "")
    assert "no publisher listens here" in late.stderr


def test_command_that_is_ended_does_not_say_that_it_reported(segment_path: Path) -> None:
    """A hook that its time limit ends must not take a disruption for committed: the status is that of SIGTERM."""
    with closing(socket.socket(socket.AF_UNIX)) as silent:
        silent.bind(socket_path(segment_path))
        silent.listen()
        command = start_command(segment_path.parent, "disrupt", segment_path, stderr=subprocess.PIPE)
        connection, _ = silent.accept()
        with connection:
            assert connection.recv(1)
            command.terminate()
            _, said = command.communicate()
    assert (command.returncode, said) == (143, "")


@pytest.mark.anyio
async def test_socket_that_nobody_may_use_is_not_left(segment_path: Path) -> None:
    """A wrong group leaves nothing behind, and a socket of this user without any permission is no other publisher's."""
    publisher = Publisher(segment_path, {"told": source(group="no such group")})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        await until(lambda: publisher.statistics().sources["told"].state == "unavailable")
        tasks.cancel_scope.cancel()
    assert not os.path.exists(socket_path(segment_path))
    with closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(socket_path(segment_path))
    os.chmod(socket_path(segment_path), 0)
    async with publishing(segment_path):
        await report_disruption(segment_path)


@pytest.mark.anyio
async def test_path_that_is_too_long_for_a_socket(segment_path: Path) -> None:
    """The source is unavailable and says why; the segment itself may be there."""
    path = segment_path.with_name("x" * 100)
    publisher = Publisher(path, {"told": source()})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        await until(lambda: publisher.statistics().sources["told"].state == "unavailable")
        assert "is longer than 107 bytes" in str(publisher.statistics().sources["told"].last_error)
        tasks.cancel_scope.cancel()


def test_reason_has_no_control_characters() -> None:
    """A report cannot forge lines of the publisher's log."""
    for reason in ("", "a\nb", "a\x1b[2J", "x" * 501):
        with pytest.raises(ValueError, match="reason"):
            DisruptionReport(reason=reason)


def test_command_refuses_a_reason_that_is_none(segment_path: Path) -> None:
    """A usage error, in one line."""
    command = [sys.executable, "-m", "vmclock_async", "disrupt", str(segment_path), "--reason", ""]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "Traceback" not in told.stderr
    assert "--reason" in told.stderr


@pytest.mark.anyio
async def test_listener_that_is_a_stranger_is_not_believed(
    segment_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever listens first in a directory for everybody cannot answer for the publisher; the segment's owner can."""
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind(socket_path(segment_path))
        listener.listen()
        with monkeypatch.context() as patch:
            patch.setattr("vmclock_async.disruption.peer", lambda _: (1, 12345))
            with pytest.raises(DisruptionRefusedError, match="user 12345 listens here"):
                await report_disruption(segment_path)
            listener.accept()[0].close()
        async with publishing(segment_path.with_name("other")):
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
            await report_disruption(segment_path.with_name("other"))
