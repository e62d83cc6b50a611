"""How errors of a stranger's code (a plugin, a source, a callback) are told: whatever they are, in one line."""

from pydantic import ValidationError

from vmclock_async._wording import validation_reason
from vmclock_async.errors import InvalidUpdateError, SourceError, SourceUnavailableError, VMClockError

__all__ = ("failure", "source_error")


def _text_of(error: BaseException) -> str:
    """The message of *error*, whose ``__str__`` may fail as well."""
    try:
        return str(error)
    except Exception:  # a stranger's code, again
        return "(an error that cannot be shown)"


def failure(error: BaseException) -> str:
    """The class of *error* and its message."""
    return f"{type(error).__name__}: {_text_of(error)}"


def source_error(name: str, error: BaseException) -> SourceError:
    """*error*, raised by the source called *name*, as one that names it; the original becomes its cause."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]  # of a source that has a task group of its own
    match error:
        case SourceError(source=str(), reason=str()) if error.source == name:
            return error
        case SourceUnavailableError(reason=str()) | InvalidUpdateError(reason=str()):
            wrapped: SourceError = type(error)(name, error.reason)  # by the name that it has here
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
