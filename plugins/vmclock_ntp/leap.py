"""Leap seconds: what servers announce, and when no time is given because of one.

UTC as NTP has it goes back by a second, or jumps over one, at the end of the month, and an interval cannot be carried
over that in terms of the counter. So from two seconds before an announced leap second until two seconds after it there
is no measurement: the page says that the leap second is due, and readers widen their intervals by themselves. After it
all answers from before are void, and the servers are asked again.

A leap second is taken for announced if the last answer of any server says so that is not found false, even if that
server does not answer any more. The wrong announcement of one costs a second of width at the end of the month, while a
leap second that nobody announced would make intervals wrong.
"""

import datetime
from collections.abc import Iterable
from typing import Final, final

from vmclock_async import LeapIndicator, TimeInterval

__all__ = ("LeapSecond", "end_of_month_ns")

_NEAR_NS: Final = 2 * 10**9
"""More than the second itself, and than what servers take to make it."""
_ANNOUNCED: Final = {1: LeapIndicator.PRE_POS, 2: LeapIndicator.PRE_NEG}
"""The leap indicator of RFC 5905, figure 9."""


def end_of_month_ns(utc_ns: int) -> int:
    """The end of the month of UTC that contains *utc_ns*, nanoseconds since 1970."""
    now = datetime.datetime.fromtimestamp(utc_ns // 10**9, datetime.UTC)
    end = datetime.datetime(now.year + now.month // 12, now.month % 12 + 1, 1, tzinfo=datetime.UTC)
    return int(end.timestamp()) * 10**9


@final
class LeapSecond:
    """The next leap second, if one is announced."""

    def __init__(self) -> None:
        self.indicator = LeapIndicator.NONE
        self._at_ns: int | None = None

    def hear(self, leaps: Iterable[int], interval: TimeInterval) -> None:
        """Take the leap indicators of all servers that are not found false; *interval* contains true time."""
        announced = [_ANNOUNCED[leap] for leap in leaps if leap in _ANNOUNCED]
        self.indicator = max(announced, key=announced.count, default=LeapIndicator.NONE)
        self._at_ns = end_of_month_ns(interval.latest_ns) if announced else None

    def is_near(self, interval: TimeInterval) -> bool:
        """Whether it may be so near to *interval* that no time is given."""
        return self._at_ns is not None and interval.latest_ns > self._at_ns - _NEAR_NS

    def is_over(self, interval: TimeInterval) -> bool:
        """Whether it was in the past in all of *interval*, which was carried forward as if there were none."""
        return self._at_ns is not None and interval.earliest_ns > self._at_ns + _NEAR_NS
