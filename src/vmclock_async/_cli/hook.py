"""Runs of a hook: a command that gets an event as JSON on its standard input, and as environment variables.

A run is never cut short by cancellation: whoever ends the program waits for it. It has a process group of its own, so
Ctrl-C does not reach it, and the whole group ends with it when its time is over.
"""

import json
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, final

import anyio
from anyio.abc import Process

from vmclock_async._cli.output import complain
from vmclock_async._paths import SEGMENT_VARIABLE

__all__ = ("Hook", "Run")

_GRACE_S: Final = 5.0
"""Time, in seconds, for the group to end after SIGTERM, and then after SIGKILL."""
_LOOK_EVERY_S: Final = 0.02
_NOT_FOUND: Final = 127
_NOT_STARTED: Final = 126
_STDERR: Final = 2


class Run(NamedTuple):
    """How a run of the command ended."""

    exit_status: int
    """Its exit status; negative: the number of the signal that ended it; 127, 126: as a shell has it."""
    seconds: float


@final
class Hook:
    """The command *words*, for events of the segment at *path*.

    Args:
        words: the command and its arguments.
        path: path of the segment; the command gets it as ``VMCLOCK_ASYNC_SEGMENT``.
        limit_s: longest time, in seconds, that a run may take.
        stdout_is_free: whether the command may print to stdout; if not, what it prints goes to stderr.
    """

    def __init__(self, words: Sequence[str], path: str, *, limit_s: float, stdout_is_free: bool) -> None:
        self._words: Final = list(words)
        self._path: Final = path
        self._limit_s: Final = limit_s
        self._stdout: Final = None if stdout_is_free else _STDERR

    async def run(self, event: Mapping[str, Any]) -> Run:
        """Run the command for *event*; a failure is said on stderr, and is no error."""
        with anyio.CancelScope(shield=True):
            began = anyio.current_time()
            status, failed = await self._run(event)
            seconds = round(anyio.current_time() - began, 3)
        if failed:
            complain(f"{event['event']}: {shlex.join(self._words)} {failed}")
        return Run(status, seconds)

    async def _run(self, event: Mapping[str, Any]) -> tuple[int, str]:
        """The exit status, and in words how the run failed."""
        stdin = os.memfd_create("event")  # a file, because a command that does not read it blocks nobody
        try:
            os.write(stdin, json.dumps(event).encode() + b"\n")
            os.lseek(stdin, 0, os.SEEK_SET)
            process = await anyio.open_process(
                self._words,
                stdin=stdin,
                stdout=self._stdout,
                stderr=None,
                env={**os.environ, SEGMENT_VARIABLE: self._path, **_variables(event)},
                start_new_session=True,
            )
        except OSError as exc:
            status = _NOT_FOUND if isinstance(exc, FileNotFoundError) else _NOT_STARTED
            return status, f"cannot be started: {exc.strerror}"
        finally:
            os.close(stdin)
        with anyio.move_on_after(self._limit_s) as limit:
            await process.wait()
        if limit.cancelled_caught:
            await _end(process)
        status = await process.wait()
        if limit.cancelled_caught:
            return status, f"took longer than {self._limit_s:g} s, and was ended"
        return status, _failure(status)


def _variables(event: Mapping[str, Any]) -> dict[str, str]:
    """*event* as environment variables: VMCLOCK_ASYNC_EVENT, VMCLOCK_ASYNC_BEFORE, ...; None is empty."""
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in event.items()}
    return {f"VMCLOCK_ASYNC_{name.upper()}": "" if event[name] is None else text for name, text in texts.items()}


async def _end(process: Process) -> None:
    """Ask the group of *process* to end, and end it."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        _signal_group(process, number)
        with anyio.move_on_after(_GRACE_S):
            await process.wait()
            while _is_there(process):  # noqa: ASYNC110 (a process that it started may go on; no event tells its end)
                await anyio.sleep(_LOOK_EVERY_S)
            return


def _is_there(process: Process) -> bool:
    """Whether the group of *process* has a process left."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs as another user
    return True


def _signal_group(process: Process, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return  # it has ended
    except PermissionError as exc:  # it runs as another user
        complain(
            f"{number.name} cannot be sent to process group {process.pid}: {exc.strerror}; waiting for its end"
        )


def _failure(status: int) -> str:
    if status >= 0:
        return f"exited with status {status}" if status else ""
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:  # a realtime signal has no name
        return f"was ended by signal {-status}"
