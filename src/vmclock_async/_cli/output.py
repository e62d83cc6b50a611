"""Output shared by all commands: printing, showing values, and running an async command."""

import errno
import json
import logging
import os
import select
import signal
import stat
import sys
import termios
import traceback
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType, MappingProxyType
from typing import Final, TextIO, final

import anyio
from anyio.abc import TaskStatus

from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async.models import Snapshot

__all__ = (
    "EndedError",
    "EventLine",
    "complain",
    "is_terminal",
    "let_go_of_output",
    "print_json",
    "print_line",
    "printable",
    "run_async",
    "say",
    "shape_complaints",
    "show_traceback",
    "snapshot_fields",
    "terminal_is_gone",
)

EventLine = Callable[[str, int, Mapping[str, object]], str]
"""Makes a line of a complaint, its level, and further fields."""

_NOTHING: Final[Mapping[str, object]] = MappingProxyType({})
_TIME_TO_WRITE_S: Final = 1.0
"""Time, in seconds, for which a command that has to end waits for a reader of its output."""
_least_level: int = logging.NOTSET
_event_line: EventLine | None = None
"""None: complaints are text."""


@final
class EndedError(Exception):
    """Ends the command with exit status *status*, once all has been said."""

    def __init__(self, status: ExitStatus = ExitStatus.DONE) -> None:
        super().__init__(status)
        self.status = status


def printable(text: str) -> str:
    """*text* with control characters escaped: paths and plugins' messages may hold any."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether *stream* is open, and a terminal."""
    return stream is not None and stream.isatty()


def complain(text: str, *, level: int = logging.ERROR, fields: Mapping[str, object] = _NOTHING) -> None:
    """Say *text* on stderr, in one line, unless its *level* is too low; *fields* are for programs that read the log."""
    if level < _least_level:
        return
    say(f"vmclock-async: {printable(text)}" if _event_line is None else _event_line(text, level, fields))


def show_traceback(error: BaseException) -> None:
    """Show on stderr where *error* was raised, and before it where its causes were."""
    shown = "".join(traceback.format_exception(error))
    if _event_line is not None:
        say(_event_line(f"the traceback of {type(error).__name__}", logging.ERROR, {"exception": shown}))
        return
    for line in shown.splitlines():
        say(printable(line))


def shape_complaints(least_level: int = logging.NOTSET, event_line: EventLine | None = None) -> None:
    """Say complaints from *least_level* on, as lines that *event_line* makes; without arguments: all, as text."""
    global _least_level, _event_line
    _least_level, _event_line = least_level, event_line


def say(line: str) -> None:
    """Print *line* on stderr. Nobody may be listening, so a failure here never ends the work."""
    if sys.stderr is not None:
        try:
            print(f"{line}\n", end="", file=sys.stderr, flush=True)  # noqa: T201  one write, as threads print too
        except RuntimeError:  # this is a signal handler, and what it interrupted is writing
            pass
        except OSError:
            _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Redirect *stream* to /dev/null; otherwise its flush at exit fails again, and with it the exit status."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def print_line(text: str) -> None:
    """Print a line of result on stdout; if its reader has closed the pipe, end quietly with 0, or 129 if its terminal.

    Raises:
        OSError: stdout is closed, or cannot be written.
    """
    if sys.stdout is None:
        raise OSError("stdout is closed, and so the result is lost")
    try:
        print(text, flush=True)  # noqa: T201
    except BrokenPipeError:
        _silence(sys.stdout)
        raise EndedError from None
    except OSError as exc:
        if terminal_is_gone():
            raise EndedError(ExitStatus.HUNG_UP) from None
        _silence(sys.stdout)
        raise OSError(f"stdout cannot be written ({exc.strerror}), and so the result is lost") from exc


def print_json(value: Mapping[str, object]) -> None:
    """Print *value* on stdout as one line of JSON."""
    print_line(json.dumps(value))


def snapshot_fields(path: str, snapshot: Snapshot) -> dict[str, object]:
    """*snapshot* for JSON: the ABI's names and numbers."""
    return {"path": path, **snapshot.model_dump(mode="json")}


def run_async(
    main: Callable[[], Awaitable[None]],
    *,
    end_on: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGHUP),
) -> None:
    """Run *main* on asyncio. Ctrl-C ends the program with 130, SIGTERM with 0, SIGHUP with 129, after a clean-up.

    A signal in *end_on* cancels *main*; with SIGINT among them, Ctrl-C ends the program with 0.
    """
    try:
        anyio.run(_until_told, main, end_on)
    except KeyboardInterrupt:
        raise EndedError(ExitStatus.INTERRUPTED) from None
    except BaseExceptionGroup as group:
        error = _first(group)  # one line a failure: the others are its consequences
        raise error from error.__cause__


async def _until_told(main: Callable[[], Awaitable[None]], end_on: Sequence[signal.Signals]) -> None:
    """Run *main*. A service manager's stop is a clean end; the end of the terminal is not quite."""
    told: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _silence_terminals()
        signal.setitimer(signal.ITIMER_REAL, _TIME_TO_WRITE_S, _TIME_TO_WRITE_S)

    async def listen(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(*end_on) as signals:
            for number in end_on:
                # The receiver's own handler lets the kernel go on with a write that waits for a reader.
                signal.signal(number, note)
            task_status.started()
            told.append(await anext(aiter(signals)))
            scope.cancel()

    with _letting_go_of_output():
        async with anyio.create_task_group() as tasks:
            # A signal may be the answer to the first line that main prints.
            await tasks.start(listen, tasks.cancel_scope)
            await main()
            tasks.cancel_scope.cancel()
    if signal.SIGHUP in told:
        raise EndedError(ExitStatus.HUNG_UP)


@contextmanager
def _letting_go_of_output() -> Iterator[None]:
    """Once the timer has run out, give up an output that nobody reads: a stopped terminal, or a full pipe."""
    before = signal.signal(signal.SIGALRM, lambda number, frame: let_go_of_output())
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def let_go_of_output() -> None:
    """Redirect each output to /dev/null that takes nothing now, so that a write which waits there ends."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not select.select([], [stream], [], 0)[1]:
            _silence(stream)


def terminal_is_gone() -> bool:
    """Whether the terminal of an output is gone; then that output is redirected to /dev/null.

    The kernel refuses to write there, with EIO, from a moment before SIGHUP comes.
    """
    gone = False
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                termios.tcgetattr(stream.fileno())
        except termios.error as exc:
            if exc.args[0] == errno.EIO:
                gone = True
                _silence(stream)
    return gone


def _silence_terminals() -> None:
    """Redirect outputs on a terminal to /dev/null, because it is gone."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that is gone is a character device still, but no terminal any more.
        if stream is not None and stat.S_ISCHR(os.fstat(stream.fileno()).st_mode):
            _silence(stream)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
