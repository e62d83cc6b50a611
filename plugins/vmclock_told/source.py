"""The source ``told``: a program that knows of a disruption reports it, over a Unix socket beside the segment.

A connection has one report and one answer, see ``vmclock_async.disruption``. The socket's mode and group decide who may
connect, and a report is limited in length and in time. A report can void the time, and do no more.
"""

import logging
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import ClassVar, Final, final

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from vmclock_async import BodyUpdate, Emit, SourceUnavailableError, VMClockError
from vmclock_async.disruption import LONGEST_LINE, DisruptionAnswer, DisruptionReport, peer, socket_path

__all__ = ("ToldSettings", "ToldSource")

_LONGEST_REPORT_S: Final = 5.0
"""Longest time, in seconds, from a connection to its whole report."""
_MOST_AT_ONCE: Final = 16
"""Number of connections that are served at the same time; others wait in the kernel's queue."""
_LONGEST_PATH: Final = 107
"""Bytes in the path of a Unix socket: unix(7), ``sun_path`` without its null."""
_DIRECTORY_COMES_WITHIN_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.02
_NO_ROOM_PAUSE_S: Final = 0.5
"""Pause while the process or the machine has no descriptor or memory left for a connection."""

_log: Final = logging.getLogger("vmclock_async.told")


@final
class ToldSettings(BaseModel):
    """Options of the source told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: str = Field(
        "0600", pattern="^[0-7]{3,4}$", description="permissions of the socket: 0660 lets its group report too"
    )
    group: str | None = Field(None, description="group of the socket, by name; by default the publisher's")
    restores: bool = Field(
        True, description="whether each restore is reported here; then clocks know that they see restores"
    )


@final
class ToldSource:
    """Listens for reports, and passes them on.

    Raises from ``run``:
        SourceUnavailableError: the socket cannot be made, or another publisher listens there.
    """

    settings_type: ClassVar[type[BaseModel]] = ToldSettings

    def __init__(self, settings: ToldSettings) -> None:
        self._settings = settings

    def probe(self) -> str:
        """A few words on what is reported here."""
        return "takes reports from vmclock-async disrupt"

    async def run(self, emit: Emit) -> None:
        """Listen until cancelled."""
        path = socket_path(emit.segment)
        await emit(BodyUpdate())  # it says nothing, but the publisher opens the segment, and makes its directory
        await _wait_for_directory(path)
        with self._listening(path) as listener:
            if self._settings.restores:
                await emit.announce_restores()
            async with anyio.create_task_group() as tasks:
                free = anyio.Semaphore(_MOST_AT_ONCE)
                while True:
                    await free.acquire()
                    tasks.start_soon(_serve, await _accepted(listener), emit, free)

    @contextmanager
    def _listening(self, path: str) -> Iterator[socket.socket]:
        """The socket at *path*, for the length of the block."""
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise SourceUnavailableError(
                "told",
                f"{path} is longer than {_LONGEST_PATH} bytes, so that no socket can be there; publish elsewhere",
            )
        try:
            with closing(self._bound(path)) as listener:
                made = os.stat(path)
                try:
                    listener.listen()
                    yield listener
                finally:
                    with suppress(OSError):
                        if os.path.samestat(os.stat(path), made):
                            os.unlink(path)
        except OSError as exc:
            raise SourceUnavailableError(
                "told", f"{path}: cannot listen ({exc.strerror or exc}); see who may write its directory"
            ) from exc

    def _bound(self, path: str) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            _remove_abandoned(path)
            os.fchmod(listener.fileno(), 0)  # the file begins with this mode, and nobody connects too early
            listener.bind(path)
            try:
                if self._settings.group is not None:
                    _give_to(path, self._settings.group)
                os.chmod(path, int(self._settings.mode, 8))
            except BaseException:
                os.unlink(path)
                raise
        except BaseException:
            listener.close()
            raise
        return listener


async def _wait_for_directory(path: str) -> None:
    give_up = anyio.current_time() + _DIRECTORY_COMES_WITHIN_S
    while not os.path.isdir(os.path.dirname(path)) and anyio.current_time() < give_up:  # noqa: ASYNC110 (no event says so)
        await anyio.sleep(_LOOK_EVERY_S)


def _remove_abandoned(path: str) -> None:
    """Remove the socket that a publisher left at *path* when it was killed.

    Raises:
        SourceUnavailableError: something else is there, or another publisher listens.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise SourceUnavailableError("told", f"{path} is no socket; remove it")
    except FileNotFoundError:
        return
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)) as tried:
        try:
            tried.connect(path)
        except (ConnectionRefusedError, PermissionError):
            # A socket that lives has told.mode, and its owner may use it, unless the owner has chosen otherwise.
            os.unlink(path)
            return
        except BlockingIOError:
            pass  # its queue is full
    raise SourceUnavailableError("told", f"another publisher listens at {path}; stop it")


def _give_to(path: str, group: str) -> None:
    import grp  # few need it

    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise SourceUnavailableError("told", f"there is no group {group}; correct told.group") from None
    try:
        os.chown(path, -1, number)
    except PermissionError as exc:
        raise SourceUnavailableError(
            "told", f"this user may not give {path} to the group {group}; take a group that the user is in"
        ) from exc


async def _accepted(listener: socket.socket) -> socket.socket:
    is_told = False
    while True:
        await anyio.wait_readable(listener)
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            continue
        except OSError as exc:  # accept(2): EMFILE, ENFILE, ENOBUFS, ENOMEM
            if not is_told:
                is_told = True
                _log.warning("no report can be taken at this moment (%s); it is tried again", exc.strerror)
            await anyio.sleep(_NO_ROOM_PAUSE_S)
            continue
        connection.setblocking(False)
        return connection


async def _serve(connection: socket.socket, emit: Emit, free: anyio.Semaphore) -> None:
    """Take one report, and answer it."""
    try:
        with closing(connection), suppress(OSError):  # nobody waits for the answer any more
            connection.send((await _answer(connection, emit)).line())
    finally:
        free.release()


async def _answer(connection: socket.socket, emit: Emit) -> DisruptionAnswer:
    pid, uid = peer(connection)
    who = f"process {pid} of user {uid}"
    try:
        report = DisruptionReport.parse_line(await _line(connection))
    except ValueError as exc:
        _log.warning("%s sent what is no report: %s", who, exc)
        return DisruptionAnswer(committed=False, reason=f"this is no report: {exc}"[:1000])
    try:
        await emit.disrupt(f"{report.reason} ({who})", restored=report.restored)
    except VMClockError as exc:
        return DisruptionAnswer(committed=False, reason=str(exc)[:1000])
    return DisruptionAnswer(committed=True)


async def _line(connection: socket.socket) -> bytes:
    """The line that comes.

    Raises:
        ValueError: it does not come in time, or is too long.
    """
    line = b""
    with anyio.move_on_after(_LONGEST_REPORT_S):
        while not line.endswith(b"\n"):
            if len(line) > LONGEST_LINE:
                raise ValueError(f"it is longer than {LONGEST_LINE} bytes")
            await anyio.wait_readable(connection)
            try:
                received = connection.recv(LONGEST_LINE)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise ValueError(f"it was cut off ({exc.strerror})") from exc
            if not received:
                raise ValueError("it ended before its end of line")
            line += received
        return line
    raise ValueError(f"it did not come within {_LONGEST_REPORT_S:g} s")
