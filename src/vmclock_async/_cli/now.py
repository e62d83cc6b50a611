"""``now``: one bounded reading."""

from pathlib import Path
from typing import Annotated

import typer

from vmclock_async._cli.output import bounds_fields, duration, print_json, print_line, utc
from vmclock_async._cli.paths import reader_path
from vmclock_async.abi import name_of
from vmclock_async.errors import ClockDisruptedError
from vmclock_async.reckoning import Bounds, bounds_at
from vmclock_async.segment import SegmentReader
from vmclock_async.timebase import COUNTER_ID

__all__ = ("now",)


def now(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the interval that contains true time, or why there is none."""
    chosen = str(reader_path(path))
    with SegmentReader(chosen) as reader:
        if not reader.of_this_boot:
            raise ClockDisruptedError(f"{chosen} was written before this machine booted; wait for a new commit")
        snapshot, counter = reader.sample()
    bounds = bounds_at(snapshot, counter, counter_id=COUNTER_ID)
    status = name_of(snapshot.body.clock_status)
    if as_json:
        print_json({"path": chosen, **bounds_fields(bounds), "status": status, "seq_count": snapshot.seq_count})
    else:
        print_line(f"{reading(bounds)}  {status}")


def reading(bounds: Bounds) -> str:
    """*bounds* as people read them: the middle, and how far off it can be."""
    return f"{utc(bounds.midpoint_ns)} +/- {duration(bounds.error_ns)}"
