"""Quantiles of a length of time, in one pass and with bounded memory."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from typing import Final, NamedTuple, final

__all__ = ("Distribution", "Quantiles")

_DIGITS: Final = 4
"""Significant digits to which values are rounded up: a quantile is at most a thousandth too large."""

_SHIFT: Final = 96
"""So fine a unit that a nanosecond of weight can be spread over all values of 64 bits."""


class Quantiles(NamedTuple):
    """What half, nine tenths and 99 of 100 stay within, rounded up by a thousandth at most; and the exact maximum."""

    p50: int
    p90: int
    p99: int
    max: int


class _Step(NamedTuple):
    """From one value to the next."""

    low: int
    high: int
    between: int
    """Weight between the two."""
    at: int
    """Weight at the second."""


@final
class Distribution:
    """How much weight lies at which values; in units of 2**-96, so that all sums are integers."""

    def __init__(self) -> None:
        self._at: Final[defaultdict[int, int]] = defaultdict(int)
        """Weight by value."""
        self._slopes: Final[defaultdict[int, int]] = defaultdict(int)
        """By how much the weight that lies between two values grows at the lower one, for each nanosecond of it."""
        self._largest: int | None = None

    def add(self, one: int, other: int, weight: int) -> None:
        """Spread *weight* evenly over the values from *one* to *other*, whichever is the larger."""
        low, high = min(one, other), max(one, other)
        if self._largest is None or high > self._largest:
            self._largest = high
        low, high = _rounded_up(low), _rounded_up(high)
        if low == high:
            self._at[high] += weight << _SHIFT
        else:
            density = (weight << _SHIFT) // (high - low)
            self._slopes[low] += density
            self._slopes[high] -= density

    def quantiles(self) -> Quantiles | None:
        """The quantiles; None if nothing was added."""
        if self._largest is None:
            return None
        steps = list(self._steps())
        total = sum(step.between + step.at for step in steps)
        p50, p90, p99 = (min(_quantile(steps, -(-total * share // 100)), self._largest) for share in (50, 90, 99))
        return Quantiles(p50, p90, p99, self._largest)

    def _steps(self) -> Iterator[_Step]:
        values = sorted(self._at.keys() | self._slopes.keys())
        yield _Step(values[0], values[0], 0, self._at.get(values[0], 0))
        density = 0
        for low, high in pairwise(values):
            density += self._slopes.get(low, 0)
            yield _Step(low, high, density * (high - low), self._at.get(high, 0))


def _quantile(steps: list[_Step], wanted: int) -> int:
    """The least value up to which the weight is *wanted*, rounded up."""
    below = 0
    for step in steps:
        if step.between and below + step.between >= wanted:
            return step.low - (step.high - step.low) * (below - wanted) // step.between
        below += step.between + step.at
        if below >= wanted:
            return step.high
    return steps[-1].high


def _rounded_up(value: int) -> int:
    step: int = 10 ** max(len(str(value)) - _DIGITS, 0)
    return -(-value // step) * step
