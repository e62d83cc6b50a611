"""``now``: one bounded reading."""

from pathlib import Path
from typing import Annotated

import typer

from vmclock_async._cli.output import bounds_fields, duration, print_json, print_line, utc
from vmclock_async._cli.paths import reader_path
from vmclock_async.abi import name_of
from vmclock_async.clock import Clock
from vmclock_async.intervals import TimeInterval
from vmclock_async.reckoning import Bounds

__all__ = ("now", "reading")


def now(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the interval that contains true time, or why there is none."""
    with Clock(reader_path(path)) as clock:
        interval = clock.now()
        fenced = clock.fenced
        chosen = clock.path
    status = name_of(interval.status)
    if as_json:
        print_json({"path": chosen, **bounds_fields(interval), "status": status, "fenced": fenced})
    else:
        print_line(f"{reading(interval)}  {status}")


def reading(bounds: Bounds | TimeInterval) -> str:
    """*bounds* as people read them: the middle, and how far off it can be."""
    return f"{utc(bounds.midpoint_ns)} +/- {duration(bounds.error_ns)}"
