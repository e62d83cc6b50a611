"""Agreement: whether the sources of time contradict each other.

A source promises that true time lies in its interval. So at one counter value, in UTC, the intervals of all sources
have true time in common. Two intervals without a common instant show that at least one of the two sources is wrong.
Nothing here can say which one, and the published time stays that of the first in rank. A contradiction is something
else: there a new measurement does not agree with what was published (see ``nesting``).

At each commit, at the commit's own counter value, with A and B the intervals of two sources as each measured them:

    gap = max(0, B's earliest - A's latest, A's earliest - B's latest)      nanoseconds; 0: they agree

* Only intervals that readers on this machine would get are compared: no other counter, no other timescale than UTC and
  TAI, no smeared time, and nothing from before a disruption.
* A source that has been quiet for longer than the grace is not compared; what was found last stands until it measures
  again, because some sources measure only once a minute.
* Each change has a line in the log, a few a minute at most. A pair that can no longer be compared does not disagree.
"""

import logging
from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import Final, final

from vmclock_async._publishing.choice import Claim
from vmclock_async._publishing.complaints import Complaints
from vmclock_async.reckoning import Bounds

__all__ = ("Agreement", "Pair", "gap_ns")

_LINES_AT_ONCE: Final = 3
"""Number of times in a minute that a pair's disagreement, or its end, has a line at once."""


def gap_ns(first: Bounds, second: Bounds) -> int:
    """The nanoseconds between the two intervals: positive if *second* is later, negative if earlier; 0: they meet."""
    if second.earliest_ns > first.latest_ns:
        return second.earliest_ns - first.latest_ns
    if first.earliest_ns > second.latest_ns:
        return second.latest_ns - first.earliest_ns
    return 0


@final
class Pair:
    """Two sources, and what their comparison came to; the writer task changes it, and any thread may read it."""

    __slots__ = ("disagreements", "gap_ns", "intervals", "names", "was_compared")

    def __init__(self, names: tuple[str, str]) -> None:
        self.names: Final = names
        """In order of rank."""
        self.intervals: tuple[Bounds, Bounds] | None = None
        """The intervals of both at the counter value of the last comparison; None: they cannot be compared now."""
        self.gap_ns = 0
        """The gap between these two; 0 where they cannot be compared."""
        self.disagreements = 0
        """How often they began to contradict each other."""
        self.was_compared = False

    @property
    def disagrees(self) -> bool:
        """Whether the two contradicted each other at the last comparison."""
        return self.gap_ns != 0


@final
class Agreement:
    """Compares the sources called *names*, in order of rank; *complaints* limit its log lines."""

    def __init__(self, names: Iterable[str], complaints: Complaints) -> None:
        self.pairs: Final = tuple(Pair(names) for names in combinations(names, 2))
        self._complaints: Final = complaints

    def compare(self, claims: Mapping[str, Claim]) -> None:
        """Compare the *claims* of all sources that have one, at one counter value."""
        for pair in self.pairs:
            first, second = map(claims.get, pair.names)
            if first is None or second is None:
                if pair.intervals is not None:
                    self._give_up(pair, claims)
            elif not (first.is_quiet or second.is_quiet):
                self._compare(pair, first.bounds, second.bounds)

    def contradicting(self, name: str) -> dict[str, str]:
        """Where the interval of each source that contradicts the source *name* lies, seen from that one's."""
        found = {}
        for pair in self.pairs:
            if pair.gap_ns and name in pair.names:
                first, second = pair.names
                is_later = pair.gap_ns > 0 if name == first else pair.gap_ns < 0
                where = "later" if is_later else "earlier"
                found[second if name == first else first] = f"{abs(pair.gap_ns) / 10**6:.6f} ms {where}"
        return found

    def _compare(self, pair: Pair, first: Bounds, second: Bounds) -> None:
        gap, disagreed = gap_ns(first, second), pair.gap_ns
        pair.intervals, pair.gap_ns = (first, second), gap
        pair.was_compared = True
        if gap and not disagreed:
            pair.disagreements += 1
            one, other = pair.names
            self._say(
                pair,
                "disagreement",
                f"disagree: {one} says {first.earliest_ns} to {first.latest_ns} ns, {other} says {second.earliest_ns} "
                f"to {second.latest_ns} ns, {abs(gap) / 10**6:.6f} ms apart; at least one of the two is wrong",
                level=logging.WARNING,
            )
        elif disagreed and not gap:
            self._say(pair, "agreement", "agree again")

    def _give_up(self, pair: Pair, claims: Mapping[str, Claim]) -> None:
        disagreed, pair.intervals, pair.gap_ns = pair.gap_ns, None, 0
        if disagreed:
            lacking = " and ".join(name for name in pair.names if name not in claims)
            self._say(pair, "agreement", f"disagreed, and cannot be compared any more: no time from {lacking}")

    def _say(self, pair: Pair, kind: str, text: str, *, level: int = logging.INFO) -> None:
        about = " and ".join(pair.names)
        self._complaints.say(about, kind, f"{about} {text}", level=level, at_once=_LINES_AT_ONCE)
