"""A reader that knows the time, or that a second chronyd has another: it holds each interval against them."""

import time
from collections.abc import Callable
from typing import Final

from kit.waits import eventually
from vmclock_async import Clock, VMClockError

__all__ = ("AHEAD_NS", "Readings")

AHEAD_NS: Final = 5 * 10**9
"""How far ahead of this machine's time that of the second chronyd is."""


class Readings:
    """The readings of one clock while publishers come and go: none excludes the time that they are told."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.errors: set[type[VMClockError]] = set()
        self.is_ahead = False
        """Whether the last one has the time of the second chronyd."""

    def read(self) -> bool:
        """Read once; whether there is a time."""
        before = time.time_ns()
        try:
            now = self._clock.now()
        except VMClockError as exc:
            self.errors.add(type(exc))
            return False
        after = time.time_ns()
        contains = [
            now.earliest_ns <= after + ahead_ns and before + ahead_ns <= now.latest_ns
            for ahead_ns in (0, AHEAD_NS)
        ]
        assert contains.count(True) == 1, now
        assert contains[1] >= self.is_ahead, "it went back to the first chronyd's time"
        self.is_ahead = contains[1]
        return True

    def until(self, holds: Callable[[], object]) -> None:
        """Read again and again until there is a time and it *holds*."""
        eventually(lambda: self.read() and holds(), pause_s=0.002)
