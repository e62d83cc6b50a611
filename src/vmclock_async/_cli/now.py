"""``now``: one bounded reading."""

from pathlib import Path
from typing import Annotated

import typer

from vmclock_async._cli.options import duration
from vmclock_async._cli.reading import print_reading

__all__ = ("now",)


def now(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    max_error_ns: Annotated[
        int | None,
        typer.Option(
            "--max-error", metavar="DURATION", parser=duration, help="Fail if the time is off by more: 1ms."
        ),
    ] = None,
    max_age_ns: Annotated[
        int | None,
        typer.Option(
            "--max-age", metavar="DURATION", parser=duration, help="Fail if the reference is older: 10s."
        ),
    ] = None,
) -> None:
    """Print the interval that contains true time, or why there is none.

    A publisher that ended looks healthy until its reference is 1000 s old: --max-age finds it sooner.

    vmclock-async now --max-error 1ms --max-age 10s
    """
    raise typer.Exit(print_reading(path, as_json=as_json, max_error_ns=max_error_ns, max_age_ns=max_age_ns))
