"""``doctor``: what this machine offers for a bounded time, and the remedy for each thing that is missing."""

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from vmclock_async._cli.bundle import write_bundle
from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.failures import failure_fields
from vmclock_async._cli.findings import Level, Machine, Report, look
from vmclock_async._cli.output import complain, is_terminal, print_json, print_line, printable
from vmclock_async._cli.outputs import OutputError, writing
from vmclock_async.errors import ClockUnboundedError

__all__ = ("doctor",)

_STYLE: Final = {Level.OK: "green", Level.WARNING: "yellow", Level.MISSING: "red"}


def doctor(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object of JSON.")] = False,
    bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a .tar.gz for a bug report, without personal data.")
    ] = None,
) -> None:
    """Say what this machine offers for a bounded time, and how to mend what is missing.

    Changes nothing, and needs no privilege. Exits with 1 if nothing here could give a bounded time.

    vmclock-async doctor --bundle report.tar.gz
    """
    if bundle is not None and bundle.exists():
        raise OutputError(str(bundle), "exists, and is not overwritten; choose another path, or remove it")
    machine = Machine(segment=path)
    with redirect_stdout(sys.stderr):  # what a plugin prints, also in its probe, is no part of the result
        report = look(machine)
    facts = report_fields(report)
    if bundle is not None:  # before anything is printed, so that a failure is the only object of JSON
        with writing(bundle):
            write_bundle(bundle, facts, machine)
        complain(f"info: wrote {bundle}")
    if as_json:
        print_json(facts)
        if not report.possible:
            complain(report.verdict)
    else:
        _print(report)
    if not report.possible:
        raise typer.Exit(ExitStatus.FAILED)


def report_fields(report: Report) -> dict[str, object]:
    """*report* for JSON; where no time is possible, it has what the object of every failure has."""
    failed = {} if report.possible else failure_fields(ClockUnboundedError(report.verdict))
    findings = [
        {"id": name, "level": finding.level.value, "found": finding.found, "remedy": finding.remedy}
        for name, finding in report.findings.items()
    ]
    return {**failed, "ok": bool(report.possible), "possible": report.possible, "findings": findings}


def _print(report: Report) -> None:
    width = max(map(len, report.findings))
    console = Console(soft_wrap=True, highlight=False) if is_terminal(sys.stdout) else None
    for name, finding in report.findings.items():
        remedy = f" -> {finding.remedy}" if finding.remedy else ""
        rest = f"  {name:<{width}}  {printable(finding.found + remedy)}"
        if console is None:
            print_line(f"{finding.level.value:<7}{rest}")
        else:
            console.print(Text.assemble((f"{finding.level.value:<7}", _STYLE[finding.level]), rest))
    print_line(printable(report.verdict))
