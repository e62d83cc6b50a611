"""One bounded reading, as ``now`` prints it.

A health check may run ``now`` every second, so nothing here imports typer, which would cost a fifth of the command's
processor time. ``plain_reading`` understands the usual arguments; typer handles the others, the help and wrong usage.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.failures import fail
from vmclock_async._cli.output import print_json, print_line
from vmclock_async._cli.paths import reader_path
from vmclock_async._notation import duration_text, parse_duration
from vmclock_async.clock import Clock
from vmclock_async.errors import ClockError, ClockStaleError, ClockUnboundedError
from vmclock_async.intervals import TimeInterval

__all__ = ("fail_to_read", "plain_reading", "print_bounded", "print_reading", "reading_facts", "require_limits")

_MAX_AGE_S: Final = 1000.0
"""The clock's own limit if --max-age does not ask for more."""
_LIMITS: Final = {"--max-error": "max_error_ns", "--max-age": "max_age_ns"}


def plain_reading(argv: Sequence[str]) -> Callable[[], int] | None:
    """``print_reading`` with the arguments of ``now`` in *argv*; None if typer has to look at *argv*."""
    words = iter(argv)
    if next(words, None) != "now":
        return None
    path: Path | None = None
    as_json = False
    limits: dict[str, int] = {}
    for word in words:
        if word == "--json":
            as_json = True
        elif word in _LIMITS:
            try:
                limits[_LIMITS[word]] = parse_duration(next(words, ""))
            except ValueError:
                return None
        elif path is None and word and not word.startswith("-"):
            path = Path(word)
        else:
            return None
    return partial(print_reading, path, as_json=as_json, **limits)


def print_reading(
    path: Path | None, *, as_json: bool = False, max_error_ns: int | None = None, max_age_ns: int | None = None
) -> int:
    """Print the interval that contains true time, or report why there is none; return the exit status.

    Raises:
        VMClockError, OSError: the segment cannot be opened, or the result not printed.
        EndedError: nobody reads the result any more.
    """
    max_age_s = max(_MAX_AGE_S, (max_age_ns or 0) / 10**9)
    with Clock(reader_path(path), max_age=max_age_s) as clock:
        facts: dict[str, object] = {"path": clock.path}
        try:
            interval = clock.now()
            age_ns = clock.age_ns
            facts |= reading_facts(clock, interval, age_ns)
            require_limits(interval, age_ns, max_error_ns=max_error_ns, max_age_ns=max_age_ns)
        except ClockError as exc:
            return fail_to_read(clock, exc, facts, as_json=as_json)
    print_bounded(interval, facts, age_ns, as_json=as_json)
    return ExitStatus.DONE


def fail_to_read(clock: Clock, error: ClockError, facts: dict[str, object], *, as_json: bool) -> int:
    """Report why *clock* gives no reading, or none within the limits; *facts* are known all the same."""
    if isinstance(error, ClockStaleError):
        facts.pop("error_ns", None)  # for a program that looks only at error_ns
        facts["age_ns"] = clock.age_ns
    return fail(error, as_json=as_json, facts=facts)


def reading_facts(clock: Clock, interval: TimeInterval, age_ns: int) -> dict[str, object]:
    """The reading *interval* of *clock* for JSON; *age_ns* is the age of its reference."""
    return {"path": clock.path, **interval.as_dict(), "fenced": clock.fenced, "age_ns": age_ns}


def print_bounded(interval: TimeInterval, facts: Mapping[str, object], age_ns: int, *, as_json: bool) -> None:
    """Print the reading *interval*; *facts* are its ``reading_facts``."""
    if as_json:
        print_json({"bounded": True, **facts})
    else:
        print_line(f"{interval}  {facts['status']}  reference {duration_text(max(age_ns, 0))} old")


def require_limits(
    interval: TimeInterval, age_ns: int, *, max_error_ns: int | None, max_age_ns: int | None = None
) -> None:
    """Raise if a limit is exceeded; the message names both limits if both are."""
    exceeded: dict[type[ClockError], str] = {}
    if max_age_ns is not None and age_ns > max_age_ns:
        exceeded[ClockStaleError] = (
            f"the segment's reference is {age_ns} ns old, more than --max-age ({max_age_ns} ns)"
        )
    if max_error_ns is not None and interval.error_ns > max_error_ns:
        exceeded[ClockUnboundedError] = (
            f"the error bound is {interval.error_ns} ns, more than --max-error ({max_error_ns} ns)"
        )
    for error in exceeded:
        raise error(f"{', and '.join(exceeded.values())}; is its publisher running, with a good source?")
