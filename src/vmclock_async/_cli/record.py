"""``record``: every change of a segment into a file."""

import signal
from pathlib import Path
from typing import Annotated

import typer

from vmclock_async._cli.options import size
from vmclock_async._cli.output import EndedError, complain, print_json, run_async
from vmclock_async._cli.recorder import Recorder
from vmclock_async._cli.series import Series
from vmclock_async._cli.sizes import size_text

__all__ = ("record",)


def record(
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="The recording; compressed if its name ends in .gz.")
    ],
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    max_size: Annotated[
        int | None,
        typer.Option(metavar="SIZE", parser=size, help="End when FILE has this size: 10MB. See --rotate."),
    ] = None,
    rotate: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Go on in a new FILE instead; keep N former ones as FILE.1 to FILE.N, and delete older ones.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a summary as JSON at the end.")] = False,
) -> None:
    """Record every change of a segment, until Ctrl-C.

    Each commit goes to FILE at once, so a recorder that is killed leaves a whole recording. A segment that is not there
    yet is waited for. A FILE that is there already is refused, or with --rotate kept as FILE.1. If the segment changes
    its counter, timescale or size, which all of a recording share, FILE becomes FILE.1 and another begins.

    vmclock-async record --output incident.jsonl.gz --max-size 10MB --rotate 5
    """
    if rotate is not None and max_size is None:
        raise typer.BadParameter(
            "it needs --max-size, the size at which another file begins", param_hint="--rotate"
        )
    series = Series(output, max_size=max_size, keep=rotate)
    recorder = Recorder(path, series, complain)
    try:
        run_async(recorder.run, end_on=(signal.SIGTERM, signal.SIGHUP, signal.SIGINT))
    except EndedError:  # the terminal is gone
        _tell_the_end(series, recorder, is_over=False, as_json=as_json)
        raise
    _tell_the_end(series, recorder, is_over=series.is_over, as_json=as_json)


def _tell_the_end(series: Series, recorder: Recorder, *, is_over: bool, as_json: bool) -> None:
    if is_over:
        complain(f"{series.path} has the size of --max-size, so the recording ends; --rotate N would go on")
    files = "" if series.files == 1 else f" in {series.files} files"
    parts = [f"{_number(series.records, 'record')} to {series.path}{files}, {size_text(series.size)}"]
    if recorder.gaps:
        parts.append(f"{_number(recorder.gaps, 'gap')} ({_number(recorder.missed, 'commit')} not seen)")
    if recorder.restarts:
        parts.append(f"{_number(recorder.restarts, 'restart')} of the segment")
    complain(", ".join(parts))
    if as_json:
        print_json(
            {
                "path": series.path,
                "records": series.records,
                "files": series.files,
                "bytes": series.size,
                "gaps": recorder.gaps,
                "missed": recorder.missed,
                "restarts": recorder.restarts,
                "full": is_over,
            }
        )


def _number(number: int, noun: str) -> str:
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"
