"""A logarithmic axis between round values, for a page and for a terminal."""

from collections.abc import Iterable
from math import log
from typing import Final, NamedTuple

__all__ = ("Scale",)

_ROUND: Final = [digit * 10**power for power in range(20) for digit in (1, 2, 5)]
"""Nanoseconds at which an axis may begin and end."""


class Scale(NamedTuple):
    """An axis from *low* to *high*, in nanoseconds, with a tick at each of *ticks*."""

    low: int
    high: int
    ticks: list[int]

    @classmethod
    def around(cls, values: Iterable[int], *, most_ticks: int) -> "Scale":
        """The axis from the round value below *values* to the one above; powers of ten if there are many ticks.

        A logarithmic axis has no 0: such a value is at 1 ns.
        """
        values = [max(value, 1) for value in values] or [1]
        low = max(value for value in _ROUND if value <= min(values))
        high = min((value for value in _ROUND if value > max(values)), default=_ROUND[-1])
        ticks = [value for value in _ROUND if low <= value <= high]
        if len(ticks) > most_ticks:
            ticks = [value for value in ticks if str(value).startswith("1")]
        return cls(low, high, ticks)

    def part(self, value: int) -> float:
        """How far up *value* is, from 0 at *low* to 1 at *high*."""
        within = min(max(value, self.low), self.high)
        return log(within / self.low) / log(self.high / self.low)
