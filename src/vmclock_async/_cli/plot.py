"""A history as lines of text: the bound on a logarithmic scale, the status below it, and what happened.

It can be read without color: the status is a letter too. A column without a bounded time has no bar. A column that had
one only in part has its bar, and the mark "-" unless an event has a letter there.
"""

import textwrap
from collections.abc import Sequence
from typing import Final

from rich.text import Text

from vmclock_async._cli.history import REFUSED, Column
from vmclock_async._cli.reporting.scale import Scale
from vmclock_async._notation import duration_text
from vmclock_async.abi import ClockStatus, name_of

__all__ = ("STATUS_STYLE", "plot", "plot_width")

STATUS_STYLE: Final[dict[int, str]] = {ClockStatus.SYNCHRONIZED: "green", ClockStatus.FREERUNNING: "yellow"}
_OTHER_STYLE: Final = "red"
_BARS: Final = " ▁▂▃▄▅▆▇█"
_PLAIN_BARS: Final = " .:#"
_LETTERS: Final[dict[int, str]] = {
    ClockStatus.SYNCHRONIZED: "S",
    ClockStatus.FREERUNNING: "F",
    ClockStatus.INITIALIZING: "I",
    ClockStatus.UNKNOWN: "U",
    ClockStatus.UNRELIABLE: "X",
}
_OTHER_LETTER: Final = "?"
_MARKS: Final = {
    "restored": ("R", "restored"),
    "disrupted": ("D", "disrupted"),
    "leap": ("L", "leap second"),
    "maintenance": ("M", "maintenance"),
    REFUSED: ("-", "no bounded time"),
}
"""Letter and words of each kind of mark; where a column has several, the first of these is shown."""
_TIE: Final = "\N{WORD JOINER}"
"""In place of a space at which no line ends."""
_LABEL: Final = 7
"""Columns for a label: the longest is ``500 us``, ``status`` or ``events``, and a space."""


def plot_width(width: int) -> int:
    """How many columns of a history fit into *width*."""
    return width - _LABEL - 1


def plot(
    columns: Sequence[Column | None], column_ns: int, *, width: int, rows: int, ascii_only: bool = False
) -> list[Text]:
    """*columns*, at most ``plot_width(width)``, of *column_ns* each, in lines no longer than *width*.

    Args:
        columns: the history, the last column being the present; None: nobody looked.
        column_ns: nanoseconds that a column covers.
        width: characters a line.
        rows: lines for the bars; below them are the status, the marks, the time and the legend.
        ascii_only: whether only ASCII can be shown.
    """
    bar = "|" if ascii_only else "│"
    bounds = [column.bound_ns for column in columns if column is not None and column.bound_ns is not None]
    lines = _bars(columns, bounds, rows, bar, _PLAIN_BARS if ascii_only else _BARS)
    status, marks = Text(f"{'status':>{_LABEL - 1}} {bar}"), Text(f"{'events':>{_LABEL - 1}} {bar}")
    for column in columns:
        status.append(*(" ", "") if column is None else (_letter(column.status), _style(column.status)))
        marks.append(" " if column is None else _mark(column), "bold")
    since = f"{_ago(len(columns) * column_ns)} ago"
    span = f"{since}{'now':>{len(columns) - len(since)}}" if len(columns) > len(since) + 3 else since
    legend = [Text(line.replace(_TIE, " "), "dim") for line in textwrap.wrap(_legend(columns), width)]
    return [*lines, status, marks, Text(f"{'':{_LABEL}} {span}"[:width], "dim"), *legend]


def _bars(columns: Sequence[Column | None], bounds: Sequence[int], rows: int, bar: str, steps: str) -> list[Text]:
    """The lines of the bars, the highest first."""
    scale = Scale.around(bounds, most_ticks=rows)
    ticks = {min(int(scale.part(tick) * rows), rows - 1): tick for tick in scale.ticks}
    ticks |= {0: scale.low, rows - 1: scale.high}  # the ends, between which the bars are
    labels = {row: _label(tick) for row, tick in ticks.items()} if bounds else {}
    lines = [Text(f"{labels.get(row, ''):>{_LABEL - 1}} {bar}") for row in range(rows)]
    levels = len(steps) - 1
    for column in columns:
        height = 0
        if column is not None and column.bound_ns is not None:
            height = 1 + round(scale.part(column.bound_ns) * (rows * levels - 1))
        for row, line in enumerate(lines):
            step = steps[min(max(height - row * levels, 0), levels)]
            line.append(step, "" if column is None else _style(column.status))
    return lines[::-1]


def _label(bound_ns: int) -> str:
    """*bound_ns*, a round value, in no more characters than a label has."""
    text = duration_text(bound_ns)
    if len(text) < _LABEL:
        return text
    digits = str(bound_ns // 10**9)
    return f"{digits[0]}e{len(digits) - 1} s"


def _ago(ns: int) -> str:
    """*ns*, a length of time that is no bound, to the unit that reads best; days as well."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if ns >= 2 * size * 10**9:
            return f"{ns / size / 10**9:.3g} {unit}"
    return duration_text(ns, to_nearest=True)


def _letter(status: int) -> str:
    return _LETTERS.get(status, _OTHER_LETTER)


def _style(status: int) -> str:
    return STATUS_STYLE.get(status, _OTHER_STYLE)


def _mark(column: Column) -> str:
    return next((letter for kind, (letter, _) in _MARKS.items() if kind in column.marks), " ")


def _legend(columns: Sequence[Column | None]) -> str:
    """What the letters of *columns* mean."""
    seen = [column for column in columns if column is not None]
    statuses = sorted({column.status for column in seen}, key=_letter)
    words = {_letter(status): name_of(status) for status in statuses}
    shown = {_mark(column) for column in seen}
    words |= {letter: text for letter, text in _MARKS.values() if letter in shown}
    return ", ".join(f"{letter} {text}".replace(" ", _TIE) for letter, text in words.items())
