"""``wait``: until there is a bounded time that is good enough, for scripts and service managers."""

import math
from pathlib import Path
from typing import Annotated

import typer

from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.failures import fail
from vmclock_async._cli.options import duration
from vmclock_async._cli.output import complain, run_async
from vmclock_async._cli.readiness import Demand, Found, Readiness
from vmclock_async._cli.reading import print_bounded
from vmclock_async.abi import TELLS_TIME, ClockStatus
from vmclock_async.errors import VMClockError

__all__ = ("wait",)


def _statuses(text: str) -> frozenset[ClockStatus]:
    """The statuses that *text* names, with commas; wrong usage if a bounded time never has one of them."""
    names = {status.name: status for status in map(ClockStatus, sorted(TELLS_TIME))}
    wanted = text.upper().split(",")
    if unknown := [name for name in wanted if name not in names]:
        raise typer.BadParameter(f"no bounded time has the status {unknown[0]!r}: take {' or '.join(names)}")
    return frozenset(names[name] for name in wanted)


def wait(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    statuses: Annotated[
        frozenset[ClockStatus] | None,
        typer.Option(
            "--status",
            metavar="STATUS",
            parser=_statuses,
            help="Wait for this status, or one of several, with commas.",
        ),
    ] = None,
    max_error_ns: Annotated[
        int | None,
        typer.Option(
            "--max-error",
            metavar="DURATION",
            parser=duration,
            help="Wait until the time is off by this at most: 1ms.",
        ),
    ] = None,
    stable_ns: Annotated[
        int | None,
        typer.Option(
            "--stable",
            metavar="DURATION",
            parser=duration,
            help="Wait until all of this was true for so long without a break: 10s.",
        ),
    ] = None,
    timeout_ns: Annotated[
        int | None,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            parser=duration,
            help="Fail if it is not true by then; else wait for ever.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Wait until now gives a time, and print it; at the time-out, print what is missing and return 1.

    Neither a segment nor a publisher has to be there yet. --stable begins again after a disruption, a moment without a
    bounded time, and one with an error above --max-error.

    vmclock-async wait --max-error 1ms --stable 10s --timeout 60s && serve
    """
    demand = Demand(statuses or frozenset(), max_error_ns, stable_ns or 0)
    timeout_s = math.inf if timeout_ns is None else timeout_ns / 10**9
    results: list[Found] = []

    def say(lack: VMClockError) -> None:
        if timeout_ns is None:  # otherwise the failure says it
            complain(f"{lack}; waiting for it")

    async def run() -> None:
        results.append(await Readiness(path, demand, say).wait(timeout_s))

    run_async(run)
    if not results:
        raise typer.Exit(ExitStatus.TERMINATED)
    (found,) = results
    if found.lack is not None:
        raise typer.Exit(fail(found.lack, as_json=as_json, facts=found.facts))
    assert found.interval is not None
    print_bounded(found.interval, found.facts, found.age_ns, as_json=as_json)
