"""What a clock answered over time, thinned to what a terminal can show, with bounded memory.

Time is cut into columns of one width. Each keeps the largest bound in it, so that no peak is lost, the gravest status,
and the names of all events. Columns begin narrow, and two neighbors become one whenever there would be too many.
"""

from typing import Final, NamedTuple, final

from vmclock_async.abi import ClockStatus

__all__ = ("REFUSED", "Column", "History")

REFUSED: Final = "unbounded"
"""The mark of a column in which the clock refused; as the event is called."""
_LARGEST: Final = 1024
"""Columns at most, and half as many at least: more than a terminal is wide."""
_GRAVITY: Final = (
    *(ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING, ClockStatus.INITIALIZING, ClockStatus.UNKNOWN),
    ClockStatus.UNRELIABLE,
)
"""The statuses, the gravest last; one that has no name is graver."""


def _gravity(status: int) -> int:
    return _GRAVITY.index(ClockStatus(status)) if status in _GRAVITY else len(_GRAVITY)


class Column(NamedTuple):
    """What a stretch of time showed."""

    bound_ns: int | None
    """The largest bound, half the width of the interval; None: there was no bounded time in all of it."""
    status: int
    """The gravest clock_status."""
    marks: frozenset[str] = frozenset()
    """Names of the events in it, and ``REFUSED`` if there was no bounded time in a part of it."""

    def joined(self, other: "Column | None") -> "Column":
        """This column and *other* as one."""
        if other is None:
            return self
        bounds = [bound for bound in (self.bound_ns, other.bound_ns) if bound is not None]
        status = max(self.status, other.status, key=_gravity)
        return Column(max(bounds, default=None), status, self.marks | other.marks)


@final
class History:
    """Columns to which looks are added in the order of their time.

    Args:
        begin_ns: when the first column begins, in nanoseconds of any clock that goes on.
        step_ns: the width of a column at first.
    """

    def __init__(self, begin_ns: int, step_ns: int) -> None:
        self._begin_ns: Final = begin_ns
        self._width_ns = step_ns
        self._columns: list[Column | None] = []

    def add(self, t_ns: int, column: Column) -> None:
        """Add what was seen at *t_ns*, which is not before the last time."""
        if column.bound_ns is None:
            column = column._replace(marks=column.marks | {REFUSED})
        while (at := (t_ns - self._begin_ns) // self._width_ns) >= _LARGEST:
            self._width_ns *= 2
            self._columns = _joined_each(2, self._columns)
        self._columns += [None] * (at + 1 - len(self._columns))
        self._columns[at] = column.joined(self._columns[at])

    def columns(self, most: int) -> tuple[list[Column | None], int]:
        """At most so many columns, and the nanoseconds that each covers; None: nobody looked then."""
        together = max(-(-len(self._columns) // most), 1)
        return _joined_each(together, self._columns), together * self._width_ns


def _joined_each(count: int, columns: list[Column | None]) -> list[Column | None]:
    """*columns*, each *count* of them as one; the last one may be of fewer."""
    joined: list[Column | None] = []
    for begin in range(0, len(columns), count):
        whole: Column | None = None
        for column in columns[begin : begin + count]:
            whole = whole if column is None else column.joined(whole)
        joined.append(whole)
    return joined
