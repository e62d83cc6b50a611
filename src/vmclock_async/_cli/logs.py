"""The log of a command, on stderr: as text for people, or one event a line for a collector, as logfmt or JSON.

An event is a log record or a complaint. It has `time` (UTC), `level`, `logger` and `msg`; `source`, if a source wrote
it or it is about one; whatever else the record carries; and `exception`, a traceback. It is ASCII without control
characters, so that no locale and no message can break a line. In logfmt a value with a space, a quote, =, a backslash
or other characters than ASCII is written as a JSON string, as parsers of logfmt expect.

Both forms are made here, because they share all but a dozen lines, and neither of the libraries for them promises one
line of ASCII whatever a stranger's source logs.
"""

import json
import logging
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, final

from vmclock_async._cli.output import complain, say, shape_complaints
from vmclock_async._wording import logged_message

__all__ = ("LogFormat", "LogLevel", "configure", "logging_to_stderr", "report_bug")


class LogFormat(StrEnum):
    """The form of a line."""

    TEXT = "text"
    LOGFMT = "logfmt"
    JSON = "json"


class LogLevel(StrEnum):
    """The least level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"asctime", "message", "taskName"}
"""The attributes of every record; others are what a program has added to one."""
_BARE: Final = re.compile(r"[!#-<>-\[\]-~]+")
"""Printable ASCII without a space, a quote, = and a backslash."""


@final
class _Notes(logging.Handler):
    """Writes records to stderr."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__()
        self._stack: Final = stack
        self._line: Callable[[Mapping[str, object]], str] | None = None
        """Gives the line of an event; None: text."""

    def emit(self, record: logging.LogRecord) -> None:
        if self._line is None:
            complain(f"{record.levelname.lower()}: {logged_message(record)}", level=record.levelno)
            return
        try:
            line = self._line(_event(record))
        except Exception as exc:  # a stranger's fields: a line of the log ends nothing
            unshown = logging.LogRecord(record.name, record.levelno, "", 0, "%s", (logged_message(record),), None)
            line = self._line(_event(unshown, {"fields": f"cannot be shown ({type(exc).__name__})"}))
        say(line)

    def configure(self, level: LogLevel, form: LogFormat) -> None:
        least = logging.getLevelNamesMapping()[level.upper()]
        own = logging.getLogger("vmclock_async")
        own.setLevel(least)
        self.setLevel(least)  # also for what other libraries log
        self._line = line = _LINES[form]
        # A collector gets what other libraries log as events too; as text they would come without a level.
        root = logging.getLogger()
        root.removeHandler(self)
        own.removeHandler(self)
        (own if line is None else root).addHandler(self)
        self._stack.callback(root.removeHandler, self)

        def event(text: str, level: int, fields: Mapping[str, object]) -> str:
            assert line is not None
            return line(_event(_complaint(text, level), fields))

        shape_complaints(least, None if line is None else event)


_notes: list[_Notes] = []
"""The handler of each command that runs; there may be one inside another, in a program that runs commands."""


@contextmanager
def logging_to_stderr() -> Iterator[None]:
    """For the length of the block, write records of this package to stderr, as text from the level INFO on."""
    logger = logging.getLogger("vmclock_async")
    with ExitStack() as stack:
        notes = _Notes(stack)
        stack.callback(logger.setLevel, logger.level)
        stack.callback(shape_complaints)
        logger.setLevel(logging.INFO)
        logger.addHandler(notes)
        stack.callback(logger.removeHandler, notes)
        _notes.append(notes)
        stack.callback(_notes.remove, notes)
        yield


def configure(level: str, format: str) -> None:
    """Write lines of the form *format* from now on, until the command ends, from *level* on.

    Args:
        level: one of ``LogLevel``. It holds for complaints as well; a failure is an error.
        format: one of ``LogFormat``.

    Raises:
        ValueError: *level* or *format* is none of these.
    """
    chosen, form = LogLevel(level), LogFormat(format)
    for notes in _notes[-1:]:
        notes.configure(chosen, form)


def report_bug(error: BaseException) -> bool:
    """Write *error*, which nobody expected, as an event with its traceback. False: lines are text, so it was not."""
    if not (_notes and _notes[-1]._line):
        return False
    record = _complaint(f"{type(error).__name__}: report this as a bug", logging.CRITICAL)
    record.exc_info = type(error), error, error.__traceback__
    _notes[-1].emit(record)
    return True


def _complaint(text: str, level: int) -> logging.LogRecord:
    """The record of a complaint, which as a text may begin with its level."""
    said = text.removeprefix(f"{logging.getLevelName(level).lower()}: ")
    # What is said is no format, so it has no arguments.
    return logging.LogRecord("vmclock_async", level, "", 0, said, None, None)


def _event(record: logging.LogRecord, more: Mapping[str, object] | None = None) -> dict[str, object]:
    moment = datetime.fromtimestamp(record.created, UTC)
    event: dict[str, object] = {
        "time": f"{moment:%Y-%m-%dT%H:%M:%S.%f}Z",
        "level": record.levelname.lower(),
        "logger": record.name,
        "msg": logged_message(record),
    }
    if record.exc_info:
        event["exception"] = logging.Formatter().formatException(record.exc_info)
    if record.stack_info:
        event["stack"] = record.stack_info
    added = {name: value for name, value in vars(record).items() if name not in _STANDARD}
    for name, value in sorted({**added, **(more or {})}.items(), key=lambda item: item[0] != "source"):
        event[f"{name}_" if name in event else name] = _plain(value)
    return event


def _plain(value: object) -> object:
    """*value* as one of JSON's simple values."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    try:
        return str(value)
    except Exception:  # a stranger's object
        return f"<{type(value).__name__} that cannot be shown>"


def _logfmt(event: Mapping[str, object]) -> str:
    return " ".join(
        f"{re.sub(r'[^A-Za-z0-9_.-]', '_', name) or '_'}={_value(value)}" for name, value in event.items()
    )


def _value(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if _BARE.fullmatch(text) else json.dumps(text)


_LINES: Final[Mapping[LogFormat, Callable[[Mapping[str, object]], str] | None]] = {
    LogFormat.TEXT: None,
    LogFormat.LOGFMT: _logfmt,
    LogFormat.JSON: json.dumps,
}
