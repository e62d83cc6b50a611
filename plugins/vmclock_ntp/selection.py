"""Which servers agree, and what they agree on: Marzullo's intersection of intervals, of which some may be wrong.

Each server gives an interval at one counter value. From three servers up more than half must be right. Then true time
is at a point that more than half of the intervals contain, and the result is the hull of all such points: whatever the
other servers say, it contains true time. (Marzullo and Owicki, "Maintaining the Time in a Distributed System", 1983.
RFC 5905, section 11.2.1, takes the smallest number of wrong servers that is possible instead. That is narrower, and
contains true time only if no wrong server happens to agree: one whose clock runs away would pull the result with it for
as long as it overlaps with the others.)

Servers that have not answered yet have a vote as well, for a few requests: else those that answer first would decide,
and they may be the wrong ones. So there must be a point that more than half of all contain. But all that are wrong may
have answered, and some that are right may not: then fewer intervals contain true time, and the hull is of the points
that so many contain.

A server whose interval lies outside of the result is certain to be wrong, and found false.

Two servers must agree, and have what both contain. If they contradict each other nobody knows which one is right, so
there is no time. One of them stays wrong when their intervals have grown until they overlap a little, and what both
contain then may be just what is not true. So for an hour of votes after a contradiction two that overlap have what
either contains, and neither is believed alone.

One server is believed. But a server that a majority found false does not count where fewer than three are left, until a
majority finds it right again: a server does not become right because the others fail.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple, final

from vmclock_async import TimeInterval

__all__ = ("CALM_VOTES", "Choice", "Selection", "agreed")

CALM_VOTES: Final = 3600
"""Number of votes in a row, one a second, after which a quarrel of servers is over. An interval that grows from answer
to answer makes servers agree and contradict each other by turns: a turn takes eight polls of 64 s at most."""
_FOR_A_VOTE: Final = 3


class Choice(NamedTuple):
    """The result of one vote."""

    interval: TimeInterval | None
    """What contains true time; None if too few agree."""
    right: frozenset[str]
    """Names of the servers that may be right; without an interval, none."""
    false: frozenset[str]
    """Names of those that are wrong; without an interval, none."""


def agreed(intervals: Mapping[str, TimeInterval], silent: int = 0) -> Choice:
    """What *intervals*, by the names of their servers, agree on, though *silent* more have not said anything yet."""
    voters, wrong = len(intervals), 0
    if voters + silent >= _FOR_A_VOTE:
        voters += silent
        wrong = (voters - 1) // 2  # at most, and all of them may have answered

    def agreeing(ns: int) -> int:
        return sum(one.earliest_ns <= ns <= one.latest_ns for one in intervals.values())

    # As many as anywhere contain the point at which one of them begins, and that at which one ends.
    begins = {one.earliest_ns: agreeing(one.earliest_ns) for one in intervals.values()}
    ends = {one.latest_ns: agreeing(one.latest_ns) for one in intervals.values()}
    if max(begins.values(), default=-1) < voters - wrong:
        return Choice(None, frozenset(), frozenset())
    least = len(intervals) - wrong  # so many are right at least, and all of them contain true time
    result = TimeInterval(
        min(ns for ns, number in begins.items() if number >= least),
        max(ns for ns, number in ends.items() if number >= least),
    )
    right = frozenset(name for name, one in intervals.items() if not (one.before(result) or one.after(result)))
    return Choice(result, right, frozenset(intervals) - right)


@final
class Selection:
    """One vote after the other, with the memory of who was found false."""

    def __init__(self) -> None:
        self.false: frozenset[str] = frozenset()
        """Names of the servers that the last majority found false, and none has found right since."""
        self._doubted_votes = 0
        """Number of votes for which two servers have to agree yet, because they contradicted each other."""

    def vote(self, intervals: Mapping[str, TimeInterval], silent: int = 0) -> Choice:
        """What *intervals* agree on, without those of servers that may not take part; *silent* as for ``agreed``."""
        if len(intervals) + silent < _FOR_A_VOTE:
            return self._of_two({name: one for name, one in intervals.items() if name not in self.false})
        choice = agreed(intervals, silent)
        self.false = self.false - choice.right | choice.false
        if choice.interval is not None:
            self._doubted_votes = 0  # it is known who is false
        return choice

    def _of_two(self, intervals: Mapping[str, TimeInterval]) -> Choice:
        """What at most two servers agree on, and nobody else decides."""
        choice = agreed(intervals)
        if len(intervals) == 2 and choice.interval is None:
            self._doubted_votes = CALM_VOTES
        elif self._doubted_votes and len(intervals) == 2:
            self._doubted_votes -= 1
            either = TimeInterval(
                min(one.earliest_ns for one in intervals.values()),
                max(one.latest_ns for one in intervals.values()),
            )
            return choice._replace(interval=either)
        elif self._doubted_votes:
            return Choice(None, frozenset(), frozenset())
        return choice
