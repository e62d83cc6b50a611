"""``on``: run a command at each event of some kinds.

Events are received one by one, and the command for one has ended before the next is asked for. No disruption or restore
is lost meanwhile, because events are derived from differences; what comes and goes during a run is not seen.
"""

import signal
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple, get_args

import anyio.to_thread
import typer
from typer.core import TyperCommand

from vmclock_async._cli.handled import Handled, StateFile
from vmclock_async._cli.hook import Hook, Run
from vmclock_async._cli.options import duration
from vmclock_async._cli.output import complain, print_json, run_async
from vmclock_async._reading.arrival import until_there
from vmclock_async.clock import open_clock
from vmclock_async.events import Event

__all__ = ("Parser", "on")

_NAMES: Final = tuple(kind.name for kind in get_args(Event))
_LIMIT: Final = "60s"


class Parser(TyperCommand):
    """The parser of this command: what comes after ``--`` is the command to run, and no path."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "-- COMMAND [ARG]..."]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        super().parse_args(ctx, args[:end])
        ctx.args = command = args[end + 1 :]
        return command


def _lists_that_begin(typed: str) -> list[str]:
    """Lists of events that begin with *typed*, each with one more event."""
    before, comma, last = typed.rpartition(",")
    return [f"{before}{comma}{name}" for name in _NAMES if name.startswith(last)]


def on(
    context: typer.Context,
    events: Annotated[
        str,
        typer.Argument(
            metavar="EVENTS",
            autocompletion=_lists_that_begin,
            show_default=False,
            help=f"One or several, with commas: {', '.join(_NAMES)}.",
        ),
    ],
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    state: Annotated[
        Path | None,
        typer.Option("--state", metavar="FILE", help="Remember here what was handled, to learn what was missed."),
    ] = None,
    now: Annotated[
        bool, typer.Option("--now", help='Run COMMAND once at the start, with the event "now".')
    ] = False,
    limit_ns: Annotated[
        int,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            parser=duration,
            help="Longest time that COMMAND may take; then it gets SIGTERM, and 5 s later SIGKILL.",
        ),
    ] = _LIMIT,  # type: ignore[assignment]
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a run.")] = False,
) -> None:
    """Run COMMAND at each of EVENTS, until Ctrl-C.

    COMMAND gets the event as one object of JSON on its standard input, and as variables: VMCLOCK_ASYNC_EVENT,
    VMCLOCK_ASYNC_BEFORE, VMCLOCK_ASYNC_AFTER. If it fails, a line on stderr says so, and the next event comes. SIGTERM
    and Ctrl-C wait for the COMMAND that runs. A segment that is not there yet is waited for.

    vmclock-async on restored --state restores.json -- systemctl restart app
    """
    wanted = frozenset(events.split(","))
    if unknown := sorted(wanted.difference(_NAMES)):
        raise typer.BadParameter(f"{unknown[0]!r} is no event: take some of {', '.join(_NAMES)}")
    if not context.args:
        raise typer.BadParameter("there is no COMMAND: write it after --")
    orders = _Orders(wanted, context.args, StateFile(state), limit_ns / 10**9, now, as_json)
    run_async(partial(_serve, path, orders), end_on=(signal.SIGTERM, signal.SIGHUP, signal.SIGINT))


class _Orders(NamedTuple):
    """What the command line asks for."""

    events: frozenset[str]
    command: list[str]
    file: StateFile
    limit_s: float
    now: bool
    as_json: bool


async def _serve(path: Path | None, orders: _Orders) -> None:
    """Run the command at each event of the segment at *path*, for ever."""
    kept = await anyio.to_thread.run_sync(orders.file.read)
    async with AsyncExitStack() as stack:
        clock = await until_there(
            path,
            lambda: stack.enter_async_context(open_clock(path)),
            lambda exc: complain(f"{exc}; waiting for it"),
        )
        hook = Hook(orders.command, clock.path, limit_s=orders.limit_s, stdout_is_free=not orders.as_json)
        since = None if kept is None else kept.as_body()
        stream = await stack.enter_async_context(clock.events(since=since))
        handled = Handled.of(stream.snapshot) if kept is None else kept.joined_by(stream.snapshot)
        if handled != kept:
            await anyio.to_thread.run_sync(orders.file.write, handled)
        if "restored" in orders.events and stream.snapshot.body.vm_generation_counter is None:
            complain(
                f"{clock.path} has no generation counter, so restored does not come: publish vmgenid or told too, or "
                "take disrupted"
            )
        if orders.now:
            _report({"event": "now"}, await hook.run({"event": "now"}), orders)
        while True:
            handled = await _handle(await stream.receive(), handled, hook, orders)


async def _handle(event: Event, handled: Handled, hook: Hook, orders: _Orders) -> Handled:
    """Run the command for *event* if it is one to run for; return what is handled then. Not cut short."""
    with anyio.CancelScope(shield=True):
        is_due = event.name in orders.events and not handled.knows(event)
        run = await hook.run(event.as_dict()) if is_due else None
        after = handled.after(event)
        if after != handled:
            await anyio.to_thread.run_sync(orders.file.write, after)
        if run is not None:
            _report(event.as_dict(), run, orders)
    return after


def _report(event: dict[str, Any], run: Run, orders: _Orders) -> None:
    if orders.as_json:
        print_json({**event, **run._asdict()})
