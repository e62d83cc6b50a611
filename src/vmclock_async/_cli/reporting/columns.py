"""A line over time, thinned to what a picture can show, in one pass and with bounded memory.

Time is cut into at most ``LARGEST`` columns. Each keeps its first, lowest, highest and last point (the aggregation that
is known as M4), so that a line through them covers the same pixels as one through all points: no peak is lost, and each
point that is left is one of those that were added. Where nobody knows in advance how long the line is, columns begin
narrow, and two neighbors become one whenever there would be too many.
"""

from typing import Final, NamedTuple, cast, final

__all__ = ("LARGEST", "Columns", "Point")

LARGEST: Final = 2000
"""Columns at most, and half as many at least: about the pixels in the width of a large screen."""


class Point(NamedTuple):
    """A value at a moment."""

    t_ns: int
    """Nanoseconds since the first record."""
    value: int | None
    """None: the line has a gap here."""


class _Column:
    __slots__ = ("broken", "first", "high", "last", "low")

    def __init__(self, point: Point) -> None:
        self.first = self.last = point
        self.low: Point | None = None
        self.high: Point | None = None
        self.broken = False
        self.add(point)

    def add(self, point: Point) -> None:
        self.last = point
        if point.value is None:
            self.broken = True
        elif self.low is None or self.high is None:
            self.low = self.high = point
        elif point.value < cast("int", self.low.value):
            self.low = point
        elif point.value > cast("int", self.high.value):
            self.high = point

    def append(self, other: "_Column") -> None:
        """Take in the column after this one."""
        for point in other.extremes():
            self.add(point)
        self.last = other.last
        self.broken = self.broken or other.broken

    def extremes(self) -> list[Point]:
        """The lowest and the highest point, the earlier one first; none if no point has a value."""
        return sorted({point for point in (self.low, self.high) if point is not None}, key=_time)

    def points(self) -> list[Point]:
        extremes = self.extremes()
        if not extremes:
            return [Point(self.first.t_ns, None)]
        if not self.broken:
            return sorted({self.first, *extremes, self.last}, key=_time)
        # The extremes as a bar that touches no neighbor; the ends go on into the columns beside this one.
        return [self.first, Point(self.first.t_ns, None), *extremes, Point(self.last.t_ns, None), self.last]


@final
class Columns:
    """A line to which points are added in the order of their time."""

    def __init__(self) -> None:
        self.width_ns = 1
        self._columns: dict[int, _Column] = {}

    def reach(self, t_ns: int) -> None:
        """Make columns so wide that *t_ns* lies in one of the first ``LARGEST``."""
        while t_ns >= self.width_ns * LARGEST:
            self.width_ns *= 2
            halves, self._columns = self._columns, {}
            for at, half in halves.items():
                if (column := self._columns.setdefault(at // 2, half)) is not half:
                    column.append(half)

    def borders(self, begin_ns: int, end_ns: int) -> range:
        """The moments between *begin_ns* and *end_ns*, without the two, at which a column begins."""
        return range((begin_ns // self.width_ns + 1) * self.width_ns, end_ns, self.width_ns)

    def add(self, point: Point) -> None:
        """Add *point*, whose time is not before that of the last one."""
        self.reach(point.t_ns)
        at = point.t_ns // self.width_ns
        if (column := self._columns.get(at)) is None:
            self._columns[at] = _Column(point)
        else:
            column.add(point)

    def points(self) -> list[Point]:
        """The line, thinned."""
        return [point for column in self._columns.values() for point in column.points()]


def _time(point: Point) -> int:
    return point.t_ns
