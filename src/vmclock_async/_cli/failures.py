"""Reports of failures: one line for people on stderr, and with ``--json`` also one object on stdout."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Final, final

from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.output import EndedError, complain, print_json
from vmclock_async.errors import SourceSettingsError, UnknownSourceError, VMClockError

__all__ = ("ConfigurationError", "fail", "fail_usage", "failure_fields", "wants_debug", "wants_json")

_UNBOUNDED_NS: Final = 2**64 - 1
"""error_ns if nothing bounds the error, because jq takes a missing one as less than any limit, and so as good."""


@final
class ConfigurationError(VMClockError):
    """The configuration has a key or a value at `place` that it cannot have, for `reason`."""

    _remedy = "change it there"

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(place, reason)
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


def wants_json(argv: Sequence[str]) -> bool:
    """Whether *argv* asks for JSON. This is known before the rest of *argv* is understood."""
    return "--json" in argv[: _end_of_options(argv)]


def wants_debug(argv: Sequence[str]) -> tuple[bool, list[str]]:
    """Whether *argv* asks for tracebacks, and *argv* without that: ``--debug`` may stand beside any option."""
    end = _end_of_options(argv)
    options = [word for word in argv[:end] if word != "--debug"]
    return len(options) < end, [*options, *argv[end:]]


def _end_of_options(argv: Sequence[str]) -> int:
    return argv.index("--") if "--" in argv else len(argv)


def failure_fields(error: BaseException) -> dict[str, object]:
    """*error* for JSON: that there is no bound, the class, what was seen and the remedy, and where it was seen."""
    where: dict[str, object] = {}
    if isinstance(error, VMClockError):
        where = {
            name: getattr(error, name) for name in ("path", "line", "source", "place") if hasattr(error, name)
        }
    return _fields(type(error).__name__, *_seen_and_remedy(error)) | where


def _seen_and_remedy(error: BaseException) -> tuple[str, str]:
    match error:
        case VMClockError():
            return error.seen, error.remedy
        case OSError():
            return str(error), "check the path, who may use it, and the space that is left"
        case _:
            return str(error), "report it as a bug, with the traceback"


def _in_one_line(error: BaseException) -> str:
    """The message of *error*, and the remedy for its class if the message has none."""
    _, remedy = _seen_and_remedy(error)
    return str(error) if remedy in str(error) else f"{error}; {remedy}"


def _fields(name: str, reason: str, remedy: str) -> dict[str, object]:
    return {"bounded": False, "error_ns": _UNBOUNDED_NS, "error": name, "reason": reason, "remedy": remedy}


def fail(error: BaseException, *, as_json: bool, facts: Mapping[str, object] | None = None) -> ExitStatus:
    """Report *error*, with *facts* in JSON; return the exit status."""
    fields = failure_fields(error)
    complain(
        _in_one_line(error),
        fields={name: fields[name] for name in ("error", "path", "place", "source") if name in fields},
    )
    for note in getattr(error, "__notes__", ()):
        complain(note)
    if as_json:
        _print({**fields, **(facts or {})})
    is_usage = isinstance(error, ConfigurationError | UnknownSourceError | SourceSettingsError)
    return ExitStatus.WRONG_USAGE if is_usage else ExitStatus.FAILED


def fail_usage(reason: str, remedy: str, *, as_json: bool) -> ExitStatus:
    """Report what is wrong with the command line; return the exit status."""
    complain(f"{reason}; {remedy}")
    if as_json:
        _print(_fields("UsageError", reason, remedy))
    return ExitStatus.WRONG_USAGE


def _print(fields: Mapping[str, object]) -> None:
    with suppress(EndedError, OSError):  # if nobody reads stdout, the exit status still reports it
        print_json(fields)
