"""The plot of ``watch``, drawn to the letter for small widths."""

from collections.abc import Sequence

import pytest

from vmclock_async._cli.history import REFUSED, Column
from vmclock_async._cli.plot import plot
from vmclock_async.abi import ClockStatus

S, F, U = ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING, ClockStatus.UNKNOWN
HALF_NS = 5 * 10**8


def marked(bound_ns: int | None, status: int, *marks: str) -> Column:
    """A column with *marks*."""
    return Column(bound_ns, status, frozenset(marks))


COLUMNS = [
    *(Column(bound, S) for bound in (1_000, 2_000, 5_000, 9_999)),
    marked(50_000, F, "leap"),
    marked(None, U, REFUSED, "disrupted"),
    marked(None, U, REFUSED, "disrupted", "restored"),
    None,
    marked(2_000, S, REFUSED),
    Column(1_500, S),
    *(Column(1_000, S) for _ in range(6)),
]


def drawn(columns: Sequence[Column | None], *, width: int, rows: int, ascii_only: bool = False) -> list[str]:
    """The lines of a plot, without the blanks at their ends."""
    lines = plot(columns, HALF_NS, width=width, rows=rows, ascii_only=ascii_only)
    assert all(len(line.plain) <= width for line in lines)
    return [line.plain.rstrip() for line in lines]


def test_plot_to_the_letter() -> None:
    """Bars on a logarithmic scale with its labels; no bar without a bounded time; status and events as letters."""
    assert drawn(COLUMNS, width=30, rows=4) == [
        "100 us │    ▃",
        " 10 us │    █",
        "       │  ▄██",
        "  1 us │▁▆███   ▆▄▁▁▁▁▁▁",
        "status │SSSSFUU SSSSSSSS",
        "events │    LDR -",
        "        8 s ago      now",
        "F FREERUNNING, S SYNCHRONIZED,",
        "U UNKNOWN, R restored,",
        "D disrupted, L leap second,",
        "- no bounded time",
    ]


def test_plot_in_ascii() -> None:
    """The same where the encoding of stdout has no blocks."""
    assert drawn(COLUMNS, width=60, rows=4, ascii_only=True) == [
        "100 us |    .",
        " 10 us |    #",
        "       |  :##",
        "  1 us |.####   #:......",
        "status |SSSSFUU SSSSSSSS",
        "events |    LDR -",
        "        8 s ago      now",
        "F FREERUNNING, S SYNCHRONIZED, U UNKNOWN, R restored,",
        "D disrupted, L leap second, - no bounded time",
    ]


@pytest.mark.parametrize("columns", [[], [None], [marked(None, 99, REFUSED)]])
def test_plot_without_any_bound(columns: list[Column | None]) -> None:
    """There is no scale and no number; a status without a name is its number in the legend."""
    lines = drawn(columns, width=40, rows=2)
    assert lines[:2] == ["       │", "       │"]
    assert not columns or columns == [None] or lines[-1] == "? 99, - no bounded time"


def test_plot_of_a_bound_of_nothing_and_of_the_largest() -> None:
    """What no scale holds is at its end."""
    lines = drawn([Column(0, S), Column(2**64, S)], width=40, rows=2)
    assert lines[0].endswith(" █")
    assert lines[1].startswith("  1 ns │▁█")
    assert {line.index("│") for line in lines[:4]} == {7}


@pytest.mark.parametrize(
    ("column_ns", "since"),
    [(10**9, "16 s ago"), (60 * 10**9, "16 min ago"), (900 * 10**9, "4 h ago"), (21_600 * 10**9, "4 d ago")],
)
def test_span_of_a_plot_is_readable(column_ns: int, since: str) -> None:
    """Days of watching are no number of seconds."""
    span = plot(COLUMNS, column_ns, width=40, rows=1)[3]
    assert " ".join(span.plain.split()) == f"{since} now"


def test_status_is_told_by_color_too() -> None:
    """Bars and letters have the status's color."""
    (line, *_) = plot([Column(5, S), Column(5, F), Column(5, U)], HALF_NS, width=40, rows=1)
    assert [str(span.style) for span in line.spans] == ["green", "yellow", "red"]
