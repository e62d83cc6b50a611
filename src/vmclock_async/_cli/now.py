"""``now``: one bounded reading."""

from pathlib import Path
from typing import Annotated, Final

import typer

from vmclock_async._cli.durations import parse_duration
from vmclock_async._cli.failures import fail
from vmclock_async._cli.output import print_json, print_line
from vmclock_async._cli.paths import reader_path
from vmclock_async._notation import duration_text
from vmclock_async.clock import Clock
from vmclock_async.errors import ClockError, ClockStaleError, ClockUnboundedError
from vmclock_async.intervals import TimeInterval

__all__ = ("now",)

_MAX_AGE_S: Final = 1000.0
"""The clock's own limit if --max-age does not ask for more."""


def now(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    max_error_ns: Annotated[
        int | None,
        typer.Option(
            "--max-error", metavar="DURATION", parser=parse_duration, help="Fail if the time is off by more: 1ms."
        ),
    ] = None,
    max_age_ns: Annotated[
        int | None,
        typer.Option(
            "--max-age", metavar="DURATION", parser=parse_duration, help="Fail if the reference is older: 10s."
        ),
    ] = None,
) -> None:
    """Print the interval that contains true time, or why there is none.

    A publisher that ended looks healthy until its reference is 1000 s old: --max-age finds it sooner.
    """
    max_age_s = max(_MAX_AGE_S, (max_age_ns or 0) / 10**9)
    with Clock(reader_path(path), max_age=max_age_s) as clock:
        facts: dict[str, object] = {"path": clock.path}
        try:
            interval = clock.now()
            age_ns = clock.age_ns
            facts |= {**interval.as_dict(), "fenced": clock.fenced, "age_ns": age_ns}
            _require(interval, age_ns, max_error_ns, max_age_ns)
        except ClockError as exc:
            if isinstance(exc, ClockStaleError):
                facts.pop("error_ns", None)  # for a program that looks only at error_ns
                facts["age_ns"] = clock.age_ns
            raise typer.Exit(fail(exc, as_json=as_json, facts=facts)) from exc
    if as_json:
        print_json({"bounded": True, **facts})
    else:
        print_line(f"{interval}  {facts['status']}  reference {duration_text(max(age_ns, 0))} old")


def _require(interval: TimeInterval, age_ns: int, max_error_ns: int | None, max_age_ns: int | None) -> None:
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
