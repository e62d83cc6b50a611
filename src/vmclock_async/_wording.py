"""One-line wording of errors that other people's code (pydantic, a plugin, a source, a callback) raises."""

from logging import LogRecord
from reprlib import Repr
from typing import Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from vmclock_async.errors import InvalidUpdateError, SourceError, SourceUnavailableError, VMClockError

__all__ = ("detail_reason", "failure", "logged_message", "source_error", "validation_reason")

_shallow: Final = Repr()
"""What ``repr`` gives, though of a value of a thousand levels too; the texts are shortened once more."""
_shallow.maxstring = _shallow.maxother = _shallow.maxlong = 120


def validation_reason(error: ValidationError) -> str:
    """Errors that *error* lists, on one line: each field with what is allowed and what was given; the first three."""
    details = error.errors(include_url=False, include_context=False)
    found = [_describe(detail) for detail in details[:3]]
    if len(details) > 3:
        found.append(f"{len(details) - 3} more")
    return ", and ".join(found)


def _describe(detail: ErrorDetails) -> str:
    where = _shortened(".".join(str(part) for part in detail["loc"]))
    return f"{where + ': ' if where else ''}{detail_reason(detail)}"


def detail_reason(detail: ErrorDetails) -> str:
    """What is allowed and what was given, on one line; not where."""
    message = detail["msg"]
    match detail["type"]:
        case "extra_forbidden":
            return "no such field"
        case "missing":
            return "is missing"
        case "json_invalid":
            return f"not JSON ({message.removeprefix('Invalid JSON: ')})"
        case "value_error":  # from a settings model's own validator, about several fields at once
            return message.removeprefix("Value error, ")
        case _:
            return f"{message}, not {_shown(detail['input'])}"


def _shown(value: object) -> str:
    try:
        return _shortened(_shallow.repr(value))
    except ValueError:  # an integer of more digits than Python shows
        return f"this {type(value).__name__}"


def _shortened(text: str) -> str:
    line = text.replace("\n", "\\n")
    return line if len(line) <= 60 else line[:57] + "..."


def _text_of(error: BaseException) -> str:
    """The message of *error*, whose ``__str__`` may fail as well."""
    try:
        return str(error)
    except Exception:  # also a stranger's code
        return "(an error that cannot be shown)"


def logged_message(record: LogRecord) -> str:
    """The message of *record*, whose format may not fit its arguments, and whose arguments may fail to show."""
    try:
        return record.getMessage()
    except Exception:  # a stranger's format, or the text of a stranger's object
        pass
    try:
        return f"{record.msg!r}, a log line whose arguments do not fit"
    except Exception:  # a stranger's object in place of a format
        return f"a log line of {record.name} that cannot be shown"


def failure(error: BaseException) -> str:
    """The class of *error* and its message."""
    return f"{type(error).__name__}: {_text_of(error)}"


def source_error(name: str, error: BaseException) -> SourceError:
    """A SourceError that names the source *name* for the *error* it raised; the original becomes its cause."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # raised inside a task group of the source's own
    match error:
        case SourceError(source=str(), reason=str()) if error.source == name:
            return error
        case SourceUnavailableError(reason=str()) | InvalidUpdateError(reason=str()):
            wrapped: SourceError = type(error)(name, error.reason)  # with the name that the source has here
        case SourceError(reason=str()):
            wrapped = SourceError(name, error.reason)
        case ValidationError():
            wrapped = InvalidUpdateError(name, f"invalid {error.title}: {validation_reason(error)}")
        case VMClockError():
            wrapped = SourceError(name, _text_of(error))
        case _:
            wrapped = SourceError(name, f"failed with {failure(error)}")
    wrapped.__cause__ = error
    return wrapped
