"""A connection to chronyd that neither hangs nor leaves a thread behind. Only this module uses pychrony.

pychrony waits for an answer without a time-out, and a thread that waits so keeps the process alive. So this module sets
the time-outs of the socket itself, on a duplicate of its descriptor, which pychrony keeps in a private attribute; each
connection checks that the attribute exists. Requests run in a worker thread. Cancelling one shuts the socket down,
which ends the wait at once, and then waits for the thread. A read from a socket that was shut down is empty; libchrony
ignores an empty answer, and reads again, for ever. So the descriptor is replaced by one that cannot be read, until the
connection is closed.

A connection that failed is not used again, because its socket may still get the answer to the request that timed out.

libchrony binds its end of a Unix socket in a directory ``libchrony.*`` beside chronyd's, and removes it on closing.
"""

from __future__ import annotations

import math
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import TYPE_CHECKING, Final, Self, TypeVar, final

import anyio
import anyio.lowlevel
import anyio.to_thread

from vmclock_async import SourceError, SourceUnavailableError

if TYPE_CHECKING:
    from pychrony import ChronyConnection, Source, SourceStats, TrackingStatus

__all__ = ("TIMEOUT_S", "Connection", "ask")

TIMEOUT_S: Final = 1
"""Longest wait for one datagram, in seconds; a report takes two datagrams."""
_USUAL_SOCKET: Final = "/run/chrony/chronyd.sock"

_SUPPORTED: Final = "pychrony>=2.0.3,<3"
_MAX_S: Final = 2**32
"""Largest correction of its clock, in seconds, that chronyd accepts (``MAX_OFFSET``, local.c)."""
_MAX_PPM: Final = 500_000
"""Largest correction of its rate, in ppm, that chronyd accepts (``MAX_FREQ``, local.c)."""
_IN_SECONDS: Final = ("offset", "last_offset", "rms_offset", "root_delay", "root_dispersion")
_NOT_NEGATIVE: Final = ("ref_time", "rms_offset", "skew", "root_delay", "root_dispersion", "update_interval")
_FINITE: Final = {"ref_time", "frequency", "residual_freq", "skew", "update_interval", *_IN_SECONDS}

_TIMEVAL: Final = struct.pack("@ll", TIMEOUT_S, 0)
_T = TypeVar("_T")


def _pychrony() -> ModuleType:
    try:
        import pychrony  # an extra: imported only when used
    except ImportError as exc:
        raise SourceError(
            "chrony", f"needs pychrony ({exc}); install it: pip install 'vmclock-async[chrony]'"
        ) from exc
    return pychrony


@final
class Connection:
    """Opened by the first request, and closed by ``close``; serves one thread at a time.

    Args:
        address: path of a socket, ``host:port`` of the command port, or None for chronyd's usual places.
    """

    def __init__(self, address: str | None) -> None:
        self._address: Final = address
        self._chrony: ChronyConnection | None = None
        self._socket: socket.socket | None = None
        self._descriptor: int | None = None
        """pychrony's own descriptor; the socket here is a duplicate of it."""
        self._interrupted = False

    @property
    def address(self) -> str | None:
        """Address at which chronyd was reached; None before that."""
        return self._chrony.address if self._chrony else None

    def tracking(self) -> TrackingStatus:
        """chronyd's ``tracking`` report; waits at most two seconds.

        Raises:
            SourceUnavailableError: there is no answer, or none that makes sense; the message says what to do.
            SourceError: pychrony is missing, or has changed.
        """
        return self._translated(lambda chrony: _believed(chrony.get_tracking()))

    def sources(self) -> list[tuple[Source, SourceStats]]:
        """chronyd's time sources, each with its statistics; takes some datagrams a source. Empty while they change.

        Raises:
            SourceUnavailableError, SourceError: as for ``tracking``.
        """

        def both(chrony: ChronyConnection) -> list[tuple[Source, SourceStats]]:
            sources, statistics = chrony.get_sources(), chrony.get_source_stats()
            # Both reports follow the order of chronyd's own table, unless that has grown between them.
            return list(zip(sources, statistics, strict=True)) if len(sources) == len(statistics) else []

        return self._translated(both)

    def interrupt(self) -> None:
        """End the wait of a request in another thread."""
        self._interrupted = True
        if self._socket is not None and self._descriptor is not None:
            with open(os.devnull, "rb") as no_socket:
                os.dup2(no_socket.fileno(), self._descriptor, inheritable=False)
            with suppress(OSError):  # a connectionless socket: shutdown() wakes it all the same
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close it, and remove this end's socket."""
        if self._socket is not None:
            if self._interrupted and self._descriptor is not None:
                os.dup2(self._socket.fileno(), self._descriptor, inheritable=False)  # its name is to be removed
            self._socket.close()
        if self._chrony is not None:
            self._chrony.__exit__(None, None, None)
        self._chrony = self._socket = self._descriptor = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> ChronyConnection:
        if self._chrony is None:
            pychrony = _pychrony()
            chrony: ChronyConnection = pychrony.ChronyConnection(self._address)
            chrony.__enter__()
            self._chrony = chrony
            descriptor = getattr(chrony, "_fd", None)
            if not isinstance(descriptor, int):
                raise SourceError(
                    "chrony",
                    f"pychrony {getattr(pychrony, '__version__', 'of an unknown version')} keeps no descriptor in _fd, "
                    f"without which its requests have no time-out; supported is {_SUPPORTED}: "
                    f"pip install '{_SUPPORTED}'",
                )
            duplicate = socket.fromfd(descriptor, socket.AF_UNIX, socket.SOCK_DGRAM)
            for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
                duplicate.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL)
            self._descriptor, self._socket = descriptor, duplicate
        if self._interrupted:
            raise SourceUnavailableError("chrony", "interrupted")
        return self._chrony

    def _translated(self, request: Callable[[ChronyConnection], _T]) -> _T:
        pychrony = _pychrony()
        where = self._address or "its usual sockets and 127.0.0.1:323"
        try:
            return request(self._open())
        except pychrony.ChronyLibraryError as exc:
            raise SourceError("chrony", f"pychrony is not usable: {exc}") from exc
        except (getattr(pychrony, "ChronyDataError", ValueError), ValueError) as exc:
            raise SourceUnavailableError(
                "chrony",
                f"chronyd at {self.address or where} answered, and what it said makes no sense ({_in_short(exc)}); "
                "does something else listen there, or a chronyd that is too new for this pychrony?",
            ) from exc
        except (pychrony.ChronyError, OSError) as exc:
            if refused := _refused_socket(self.address or self._address):
                raise SourceUnavailableError(
                    "chrony",
                    f"this user may not use chronyd's socket {refused} ({_in_short(exc)}); run as root or the chrony "
                    "user, or use the command port (address=127.0.0.1:323), which serves anyone in the same network "
                    "namespace",
                ) from exc
            raise SourceUnavailableError(
                "chrony",
                f"no answer from chronyd at {self.address or where} within {TIMEOUT_S} s; is it running, and is this "
                f"its address? ({_in_short(exc)})",
            ) from exc


def _believed(status: TrackingStatus) -> TrackingStatus:
    """Return *status*, if a chronyd may report it.

    Raises:
        ValueError: a value is one that no chronyd has.
    """
    for name in sorted(_FINITE):
        value = getattr(status, name)
        if (
            not math.isfinite(value)
            or (value < 0 and name in _NOT_NEGATIVE)
            or (abs(value) > _MAX_S and name in _IN_SECONDS)
            or (abs(value) > _MAX_PPM and name == "frequency")
        ):
            raise ValueError(f"{name} {value:g}")
    return status


def _in_short(error: Exception) -> str:
    """pychrony's first sentence, because the others advise users of its interface."""
    return str(error).partition(". ")[0]


def _refused_socket(address: str | None) -> str | None:
    """The socket at *address* if this user may not use it.

    The directory counts as well: it is closed to others, and this end's socket has to be created there.
    """
    path = address or _USUAL_SOCKET
    if not path.startswith("/"):
        return None
    try:
        os.stat(path)
    except PermissionError:
        return path
    except OSError:
        return None  # nothing is there
    is_usable = os.access(path, os.W_OK) and os.access(os.path.dirname(path), os.W_OK | os.X_OK)
    return None if is_usable else path


async def ask(connection: Connection, request: Callable[[], _T]) -> _T:
    """Run *request* of *connection* in a worker thread. Cancelling ends the thread's wait, and waits for the thread.

    Raises:
        Exception: whatever *request* raises.
    """
    answered = False

    def outcome() -> _T | Exception:
        try:
            return request()
        except Exception as exc:  # returned as a value, because a task group would wrap it
            return exc

    async def interrupt_when_cancelled() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            if not answered:
                connection.interrupt()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(interrupt_when_cancelled)
        answer = await anyio.to_thread.run_sync(outcome)
        answered = True
        tasks.cancel_scope.cancel()
    if isinstance(answer, Exception):
        await anyio.lowlevel.checkpoint_if_cancelled()  # if the cancellation is why the request failed
        raise answer
    return answer
