"""``explain``: the error budget of one reading."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from vmclock_async._cli.output import print_json, print_line, printable
from vmclock_async._cli.paths import reader_path
from vmclock_async._cli.reading import fail_to_read, print_bounded, reading_facts
from vmclock_async._cli.terms import Explained, Row
from vmclock_async._reading.segment_feed import SegmentFeed
from vmclock_async._segment.account import Account
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
        feed = clock._feed
        assert isinstance(feed, SegmentFeed)
        facts: dict[str, object] = {"path": clock.path}
        try:
            explained = Explained.now(clock._readings, feed.account)
            facts |= reading_facts(clock, explained.interval, explained.age_ns)
        except ClockError as exc:
            raise typer.Exit(fail_to_read(clock, exc, facts, as_json=as_json)) from exc
        source = feed.time_source()
    rows = sorted((*explained.reference, *explained.since), key=lambda row: -row.ns)
    account = explained.account
    name = account.source if account else source.name if source else None
    if as_json:
        said = {
            "seq_count": explained.snapshot.seq_count,
            "counter": explained.counter,
            "source": name,
            "sources": account.sources if account else None,
            "passed_over": account.passed_over if account else None,
            "contradicted_by": account.contradicted_by if account else None,
            "explained_by_publisher": account is not None,
            "terms": [row._asdict() for row in rows],
        }
        print_json({"bounded": True, **facts, **said})
        return
    print_bounded(explained.interval, facts, explained.age_ns, as_json=False)
    for line in (*_table(rows, explained.interval.error_ns), *_choice(name, account)):
        print_line(printable(line))


def _choice(name: str | None, account: Account | None) -> list[str]:
    """The source called *name*, and why its time is published and not another's."""
    if name is None:
        return ["Nothing says which source the time comes from."]
    if account is None or len(account.sources) == 1:
        return [f"The time comes from {name}."]
    rank = account.sources.index(name) + 1 if name in account.sources else "?"
    return [
        f"The time comes from {name}, number {rank} in rank of {len(account.sources)} sources.",
        *(f"{other}: {lack}" for other, lack in account.passed_over.items()),
        *(f"{other} contradicts it: its interval is {gap}" for other, gap in account.contradicted_by.items()),
    ]


def _table(rows: Sequence[Row], error_ns: int) -> list[str]:
    """The lines of *rows*, whose sum is *error_ns*."""
    lines = (*(row for row in rows if row.ns), Row("sum", sum(row.ns for row in rows), "the bound"))
    digits = max(len(f"{row.ns:,}") for row in lines)
    names = max(len(row.name) for row in lines)
    return [
        f"{row.ns:>{digits},} ns {_share(row.ns, error_ns):>6}  {row.name:<{names}}  {row.words}" for row in lines
    ]


def _share(ns: int, error_ns: int) -> str:
    return f"{ns / error_ns:.1%}" if error_ns else "-"
