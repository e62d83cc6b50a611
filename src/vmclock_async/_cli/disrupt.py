"""``disrupt``: tells the publisher of a disruption that it cannot see."""

from pathlib import Path
from typing import Annotated, Final

import anyio
import typer

from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.options import duration
from vmclock_async._cli.output import EndedError, complain, print_json, run_async
from vmclock_async._notation import duration_text
from vmclock_async._paths import default_path
from vmclock_async.disruption import report_disruption, socket_path
from vmclock_async.errors import NobodyListensError, SegmentError, SegmentNotInitializedError

__all__ = ("disrupt",)

_TIMEOUT_NS: Final = 10**10
_LOOK_EVERY_S: Final = 0.1


def disrupt(
    path: Annotated[Path | None, typer.Argument(readable=False, help="The segment.")] = None,
    restored: Annotated[
        bool, typer.Option("--restored", help="The machine was restored from a snapshot, or is a clone.")
    ] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What happened, for the publisher's log.")] = (
        "reported by vmclock-async disrupt"
    ),
    timeout_ns: Annotated[
        int | None,
        typer.Option(
            "--timeout",
            metavar="DURATION",
            parser=duration,
            help="Fail if no publisher has taken it by then; 10s if not given.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell the publisher that the machine was disrupted: restored, migrated, or stopped for a while.

    Returns 0 once the new disruption marker is committed: every time measured before is void then.
    For example in a hook that runs after a snapshot was resumed.

    vmclock-async disrupt --restored
    """
    is_committed = False

    async def report() -> None:
        nonlocal is_committed
        await _report(path, restored=restored, reason=reason, timeout_ns=timeout_ns or _TIMEOUT_NS)
        is_committed = True

    run_async(report)
    if not is_committed:
        raise EndedError(ExitStatus.TERMINATED)
    complain("committed")
    if as_json:
        print_json({"committed": True, "restored": restored, "reason": reason})


async def _report(path: Path | None, *, restored: bool, reason: str, timeout_ns: int) -> None:
    """Report until a publisher takes it; the last failure is raised after *timeout_ns*."""
    failure: SegmentError | None = None
    with anyio.move_on_after(timeout_ns / 10**9):
        while True:
            try:
                return await report_disruption(path, restored=restored, reason=reason)
            except ValueError as exc:
                raise typer.BadParameter(str(exc), param_hint="--reason") from exc
            except (NobodyListensError, SegmentNotInitializedError) as exc:
                failure = exc
            await anyio.sleep(_LOOK_EVERY_S)
    if failure is None:
        where = socket_path(default_path() if path is None else path)
        failure = NobodyListensError(where, f"the publisher has not answered within {duration_text(timeout_ns)}")
    raise failure
