"""``report``: a recording as one page of HTML."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from vmclock_async._cli.output import is_terminal, print_json, print_line
from vmclock_async._cli.outputs import OutputError, replace_file, writing
from vmclock_async._cli.reporting.series import Report, collect
from vmclock_async._notation import duration_text
from vmclock_async.errors import VMClockError
from vmclock_async.recording import RecordingReader

__all__ = ("report",)

_COUNTED_BYTES: Final = 2**30
"""Most bytes of text in which the records are counted first, to show how far the command is."""


def report(
    file: Annotated[Path, typer.Argument(readable=False, help="A recording, perhaps compressed with gzip.")],
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE.html", help="The page; an earlier report is replaced.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers of the summary as JSON.")] = False,
) -> None:
    """Draw a recording: the bound over time, with status, events and gaps, on one page of HTML.

    The page needs no network and no other file.

    vmclock-async report incident.jsonl.gz --output incident.html
    """
    make_page = _page_maker()
    target = Path(os.path.realpath(output))
    _require_replaceable(output, target)
    with RecordingReader(file) as reader, _progress(reader) as progress:
        found = collect(reader, progress)
    page = make_page(found)
    with writing(output):
        _replace(target, page)
    if as_json:
        print_json(_summary(found, output))
        return
    bound = "never a bounded time"
    if found.bound_ns is not None:
        bound = f"bound p50 {duration_text(found.bound_ns.p50)}, max {duration_text(found.bound_ns.max)}"
    print_line(f"{output}: {found.records} records, {bound}, {len(found.marks)} events and gaps")


def _page_maker() -> Callable[[Report], str]:
    try:
        from vmclock_async._cli.reporting.page import page
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] != "plotly":
            raise
        raise VMClockError("a report needs plotly; install it with: pip install 'vmclock-async[report]'") from exc
    return page


def _require_replaceable(output: Path, target: Path) -> None:
    """Refuse to write over a file that is neither empty nor a report: it could be the recording itself.

    Raises:
        OutputError: there is another file.
        OSError: it cannot be read.
    """
    from vmclock_async._cli.reporting.page import MARKER

    if not target.exists():
        return
    if target.is_file():
        with target.open("rb") as file:
            if file.read(len(MARKER)) in (b"", MARKER.encode()):
                return
    raise OutputError(str(output), "exists and is no report; choose another path")


def _replace(target: Path, text: str) -> None:
    """Put *text* at *target*, with the permissions of a file that this user makes."""
    umask = os.umask(0)
    os.umask(umask)
    replace_file(target, text, 0o666 & ~umask)


@contextmanager
def _progress(reader: RecordingReader) -> Iterator[Callable[[int], object]]:
    """What takes the number of records that have been read, and shows it where somebody sees it."""
    if not is_terminal(sys.stderr):
        yield lambda records: None
        return
    from rich.console import Console
    from rich.progress import Progress

    total = reader.count(_COUNTED_BYTES)
    reader.rewind()
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading records", total=total)
        yield lambda records: bar.update(task, completed=records)


def _summary(found: Report, output: Path) -> dict[str, Any]:
    quantiles = {"bound_ns": found.bound_ns, "update_interval_ns": found.update_interval_ns}
    return {
        "path": found.path,
        "output": str(output),
        "records": found.records,
        "duration_ns": found.duration_ns,
        **{name: each and each._asdict() for name, each in quantiles.items()},
        "bound_max_at_ns": found.bound_max_at_ns,
        "status_ns": found.status_ns,
        "unbounded_ns": found.unbounded_ns,
        "commits_missed": found.commits_missed,
        "events": dict(Counter(mark.kind for mark in found.marks)),
    }
