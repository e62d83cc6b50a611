"""How a program tells a publisher of another process that the machine was disrupted.

A sandbox's agent, a post-resume hook or a script of CRIU knows of a restore that nothing else on the machine shows. It
connects to the Unix socket beside the segment, where the source ``told`` listens, sends one ``DisruptionReport`` as a
line of JSON, and gets one ``DisruptionAnswer`` back, once the new disruption marker is committed. The socket's
permissions decide who may report.
"""

import os
import socket
import struct
from contextlib import suppress
from typing import Annotated, Final, Self

import anyio
import anyio.abc
import anyio.lowlevel
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from vmclock_async._paths import absolute, default_path
from vmclock_async._wording import validation_reason
from vmclock_async.errors import DisruptionRefusedError, NobodyListensError

__all__ = ("LONGEST_LINE", "DisruptionAnswer", "DisruptionReport", "peer", "report_disruption", "socket_path")

LONGEST_LINE: Final = 4096
"""Longest line in bytes, with its end, that either side sends."""


def socket_path(segment: str | os.PathLike[str]) -> str:
    """Path of the socket of the publisher of *segment*: beside it, with ``.told`` added to its name."""
    return f"{absolute(segment)}.told"


class _Line(BaseModel):
    # Built at the first use: most programs that import this package report nothing.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    @classmethod
    def parse_line(cls, line: bytes) -> Self:
        """The message that *line* is.

        Raises:
            ValueError: it is none; the message says what is wrong.
        """
        try:
            return cls.model_validate_json(line)
        except ValidationError as exc:
            raise ValueError(validation_reason(exc)) from exc

    def line(self) -> bytes:
        """This message as a line."""
        return self.model_dump_json().encode() + b"\n"


class DisruptionReport(_Line):
    """A report that the machine was disrupted."""

    restored: bool = False
    """Whether the machine was restored from a snapshot, so that others may have been restored from the same one."""
    reason: Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f-\x9f]{1,500}$")] = "reported by a program"
    """What happened, for the publisher's log; 1 to 500 characters, none of them a control character."""


class DisruptionAnswer(_Line):
    """The publisher's answer to a report."""

    committed: bool
    """Whether the new disruption marker is in the segment."""
    reason: str = Field("", max_length=1000)
    """Why it is not; empty if it is."""


async def report_disruption(
    path: str | os.PathLike[str] | None = None, *, restored: bool = False, reason: str = "reported by a program"
) -> None:
    """Tell the publisher of the segment at *path* that the machine was disrupted; returns once that is committed.

    Every time measured before is void then, and clocks see the new disruption marker. The publisher must have the
    source ``told``, which is among those of ``publish auto``. Cancelling withdraws nothing that was sent.

    Args:
        path: the segment's path; None: where readers look for it, see ``Clock``.
        restored: whether the machine was restored from a snapshot, so that other machines may have been restored from
            the same one: clocks then see a restore, and have a new incarnation, unless a device gives a generation
            counter: then that counter alone says whether the machine was restored.
        reason: what happened, for the publisher's log; 1 to 500 characters.

    Raises:
        NobodyListensError: no publisher listens there (now).
        DisruptionRefusedError: the publisher did not take it, or this user may not report; or another user listens
            there than root, this one and the segment's owner, whose answer is worth nothing.
        SegmentError: *path* is None, and no place has a segment.
        ValueError: *reason* is empty, too long, or has control characters.
    """
    try:
        report = DisruptionReport(restored=restored, reason=reason)
    except ValidationError as exc:
        raise ValueError(validation_reason(exc)) from exc
    segment = default_path() if path is None else path
    place = socket_path(segment)
    try:
        stream = await anyio.connect_unix(place)
    except PermissionError as exc:
        raise DisruptionRefusedError(
            place, "this user may not report to it; run as the publisher's user, or set told.mode and its group"
        ) from exc
    except OSError as exc:
        raise NobodyListensError(place, f"no publisher listens here ({exc.strerror or exc})") from exc
    async with stream:
        _require_publisher(stream, segment, place)
        line = await _asked(stream, report, place)
    try:
        answer = DisruptionAnswer.parse_line(line)
    except ValueError as exc:
        raise DisruptionRefusedError(place, f"the answer {line[:80]!r} is none ({exc})") from exc
    if not answer.committed:
        raise DisruptionRefusedError(place, answer.reason or "the publisher did not take the report")


def _require_publisher(stream: anyio.abc.SocketStream, segment: str | os.PathLike[str], place: str) -> None:
    """Refuse a listener that may not publish *segment*: in a directory for everybody, anyone can listen there first."""
    _, uid = peer(stream.extra(anyio.abc.SocketAttribute.raw_socket))
    trusted = {0, os.geteuid()}
    with suppress(OSError):
        trusted.add(os.stat(segment).st_uid)
    if uid not in trusted:
        raise DisruptionRefusedError(
            place, f"user {uid} listens here, who neither owns the segment nor is root; stop that process"
        )


def peer(connection: socket.socket) -> tuple[int, int]:
    """Process and user at the other end of a Unix socket, as the kernel knows them: SO_PEERCRED in unix(7)."""
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid


async def _asked(stream: anyio.abc.ByteStream, report: DisruptionReport, place: str) -> bytes:
    """The line that answers *report*."""
    line = b""
    try:
        await stream.send(report.line())
        while not line.endswith(b"\n") and len(line) < LONGEST_LINE:
            line += await stream.receive(LONGEST_LINE)
    except (anyio.EndOfStream, anyio.BrokenResourceError, OSError) as exc:
        raise NobodyListensError(place, "the publisher ended before it had committed the report") from exc
    return line
