"""``explain``: the error budget of one reading."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vmclock_async._cli.output import print_json, print_line
from vmclock_async._cli.paths import reader_path
from vmclock_async._cli.reading import fail_to_read, print_bounded, reading_facts
from vmclock_async._cli.terms import Explained, Row
from vmclock_async._reading.segment_feed import SegmentFeed
from vmclock_async.clock import Clock
from vmclock_async.errors import ClockError

__all__ = ("explain",)


def explain(
    path: Annotated[Path | None, typer.Argument(readable=False, help="A segment or /dev/vmclock0.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say where the error of now comes from, term by term, largest first; or why there is no time.

    The sum is the bound of a reading by now at the same moment, to the nanosecond.

    vmclock-async explain --json | jq '.terms[0]'
    """
    with Clock(reader_path(path)) as clock:
        facts: dict[str, object] = {"path": clock.path}
        try:
            explained = Explained.now(clock._readings)
            facts |= reading_facts(clock, explained.interval, explained.age_ns)
        except ClockError as exc:
            raise typer.Exit(fail_to_read(clock, exc, facts, as_json=as_json)) from exc
        assert isinstance(clock._feed, SegmentFeed)
        source = clock._feed.time_source()
    rows = sorted((*explained.reference, *explained.since), key=lambda row: -row.ns)
    if as_json:
        said = {"source": source.name if source else None, "seq_count": explained.snapshot.seq_count}
        terms = [row._asdict() for row in rows]
        print_json({"bounded": True, **facts, **said, "counter": explained.counter, "terms": terms})
        return
    print_bounded(explained.interval, facts, explained.age_ns, as_json=False)
    for line in _table(rows, explained.interval.error_ns):
        print_line(line)
    print_line(
        f"The time comes from {source.name}." if source else "Nothing says which source the time comes from."
    )


def _table(rows: Sequence[Row], error_ns: int) -> list[str]:
    """The lines of *rows*, whose sum is *error_ns*."""
    lines = (*rows, Row("sum", sum(row.ns for row in rows), "the bound"))
    digits = max(len(f"{row.ns:,}") for row in lines)
    names = max(len(row.name) for row in lines)
    return [
        f"{row.ns:>{digits},} ns {_share(row.ns, error_ns):>6}  {row.name:<{names}}  {row.words}" for row in lines
    ]


def _share(ns: int, error_ns: int) -> str:
    return f"{ns / error_ns:.1%}" if error_ns else "-"
