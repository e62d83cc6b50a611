"""``watch``: a live view on a terminal, one line for each change on a pipe."""

import sys
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Final, Literal

import anyio
import typer
from rich.console import Console

from vmclock_async._cli.failures import failure_fields
from vmclock_async._cli.output import complain, is_terminal, print_json, run_async
from vmclock_async._cli.view import JsonView, LineView, Reading, TerminalView, View
from vmclock_async._reading.arrival import until_there
from vmclock_async.clock import Clock, open_clock
from vmclock_async.errors import SegmentNotInitializedError, VMClockError
from vmclock_async.events import events_between
from vmclock_async.segment import SegmentReader

__all__ = ("follow", "watch")

_REFRESH_S: Final = 0.2


def watch(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a change.")] = False,
) -> None:
    """Watch a segment: interval, error bound over time, status and events. Ends with Ctrl-C.

    On a pipe it prints one line for each commit, and one when the bounded time is lost or back.

    vmclock-async watch --json | jq 'select(any(.events[]; .event == "restored"))'
    """
    run_async(partial(follow, path, as_json=as_json, announce=True))


async def follow(
    path: Path | None, *, as_json: bool, announce: bool = False, fence: Literal["auto"] | Path | None = "auto"
) -> None:
    """Show every change of the segment at *path*, for ever; wait for it to appear wherever readers look.

    Args:
        path: path of the segment; None: the default paths.
        as_json: whether to print lines of JSON; otherwise a live view on a terminal, lines elsewhere.
        announce: whether to say that there is nothing yet.
        fence: see ``Clock``.
    """
    async with AsyncExitStack() as stack:
        clock, reader = await _open(stack, path, fence, announce=announce, as_json=as_json)
        view = stack.enter_context(_view_for(clock.path, as_json=as_json))
        tasks = await stack.enter_async_context(anyio.create_task_group())
        tasks.start_soon(_follow_changes, clock, reader, view)
        while True:
            await anyio.sleep(_REFRESH_S)
            view.refresh(_read(clock, reader))


def _view_for(path: str, *, as_json: bool) -> View:
    if as_json:
        return JsonView(path)
    if (
        is_terminal(sys.stdout) and not Console().is_dumb_terminal
    ):  # on a dumb terminal rich would draw nothing at all
        return TerminalView(path)
    return LineView()


async def _open(
    stack: AsyncExitStack,
    path: Path | None,
    fence: Literal["auto"] | Path | None,
    *,
    announce: bool,
    as_json: bool,
) -> tuple[Clock, SegmentReader]:
    async def attempt() -> tuple[Clock, SegmentReader]:
        clock = await stack.enter_async_context(open_clock(path, fence=fence))
        return clock, stack.enter_context(SegmentReader(clock.path))

    def say(error: SegmentNotInitializedError) -> None:
        if announce:
            complain(f"{error}; waiting for it")
            if as_json:
                print_json({**failure_fields(error), "now": None, "events": []})

    return await until_there(path, attempt, say)


async def _follow_changes(clock: Clock, reader: SegmentReader, view: View) -> None:
    before = await reader.wait_changed(-1)  # no seq_count is -1: this waits for the first commit
    view.change(before, (), _read(clock, reader))
    while True:
        after = await reader.wait_changed(before)
        view.change(after, events_between(before, after), _read(clock, reader))
        before = after


def _read(clock: Clock, reader: SegmentReader) -> Reading:
    """The present answer of ``now`` for the path. An open clock goes on with a segment that was removed."""
    try:
        if reader.is_replaced():
            SegmentReader(clock.path).close()
        return clock.now()
    except VMClockError as exc:
        return exc
