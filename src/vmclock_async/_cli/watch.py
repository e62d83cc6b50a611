"""``watch``: a live view on a terminal, a line a change on a pipe."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import anyio
import typer

from vmclock_async._cli.output import complain, is_terminal, run_async
from vmclock_async._cli.paths import reader_path
from vmclock_async._cli.view import JsonView, LineView, TerminalView, View
from vmclock_async.errors import SegmentNotInitializedError
from vmclock_async.events import events_between
from vmclock_async.segment import SegmentReader

__all__ = ("follow", "view_for", "watch")

_POLL_S: Final = 0.05
_REFRESH_S: Final = 0.2


def watch(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a change.")] = False,
) -> None:
    """Watch a segment: interval, error bound over time, status and events. Ends with Ctrl-C."""
    chosen = str(reader_path(path))
    run_async(partial(_watch, chosen, view_for(chosen, as_json=as_json)))


def view_for(path: str, *, as_json: bool) -> View:
    """JSON where it is asked for, a live view on a terminal, lines elsewhere."""
    if as_json:
        return JsonView(path)
    return TerminalView(path) if is_terminal(sys.stdout) else LineView()


async def _watch(path: str, view: View) -> None:
    try:
        SegmentReader(path).close()
    except SegmentNotInitializedError as exc:
        complain(f"{exc}; waiting for it")
    await follow(path, view)


async def follow(path: str, view: View) -> None:
    """Show every change of the segment at *path* in *view*, for ever; waits for the segment to appear."""
    with await _open(path) as reader, view:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_follow_changes, reader, view)
            while view.refreshes:
                await anyio.sleep(_REFRESH_S)
                view.refresh()


async def _open(path: str) -> SegmentReader:
    while True:
        try:
            return SegmentReader(path)
        except SegmentNotInitializedError:
            await anyio.sleep(_POLL_S)


async def _follow_changes(reader: SegmentReader, view: View) -> None:
    before = await reader.wait_changed(-1)  # no seq_count is -1: the first commit there is
    view.change(before, ())
    while True:
        after = await reader.wait_changed(before)
        view.change(after, events_between(before, after))
        before = after
