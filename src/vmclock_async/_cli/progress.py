"""The progress of sources that have an end, while ``publish`` has the terminal to itself."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Final

import anyio
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from vmclock_async.publisher import Publisher
from vmclock_async.sources import ReportsProgress, Source

__all__ = ("show_progress", "totals")

_REFRESH_S: Final = 0.1


@contextmanager
def _progress() -> Iterator[Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False) as progress:
        yield progress


async def show_progress(publisher: Publisher, sources: Mapping[str, Source]) -> None:
    """Draw the progress of the sources that have an end, while this program has the terminal to itself."""
    with ExitStack() as stack:
        progress: Progress | None = None
        rows: dict[str, TaskID] = {}
        while True:
            for name, total in totals(sources).items():
                if not _is_in_foreground():
                    break  # a background job draws nothing over the foreground
                progress = progress or stack.enter_context(_progress())
                if name not in rows:
                    rows[name] = progress.add_task(name, total=None, rate="")
                statistics = publisher.statistics().sources[name]
                speed = progress.tasks[rows[name]].speed
                rate = f"{speed:,.0f}/s" if speed else ""
                shown = rate if statistics.state == "running" else f"{statistics.state} {rate}"
                progress.update(rows[name], completed=statistics.updates, total=total, rate=shown)
                progress.refresh()
            await anyio.sleep(_REFRESH_S)


def totals(sources: Mapping[str, Source]) -> dict[str, int]:
    """Total number of updates of each source that has an end."""
    totals = {}
    for name, source in sources.items():
        try:
            total = source.progress().total if isinstance(source, ReportsProgress) else None
        except KeyboardInterrupt:
            raise
        except BaseException:  # a stranger's code: what cannot be shown is left out
            continue
        if isinstance(total, int):
            totals[name] = total
    return totals


def _is_in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except OSError:  # ENOTTY: not the controlling terminal of this process, so there are no jobs on it
        return True
