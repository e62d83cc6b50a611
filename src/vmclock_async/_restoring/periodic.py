"""Timers by UTC, as a clock knows it: no sleep of the event loop knows of a restore.

A loop sleeps by CLOCK_MONOTONIC, which stands still in a suspend and does not know that the machine was restored three
days later. So a timer here looks at the clock after each commit, because a disruption is one, and at least once a
second, because a stopped publisher commits none.
"""

import datetime
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal, Self, final, get_args

import anyio.lowlevel

from vmclock_async._reading.waiting import Waiting
from vmclock_async._segment.belonging import OfThisProcess
from vmclock_async.clock import Clock
from vmclock_async.intervals import TimeInterval, latest_ns_of
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import LATEST_NS

__all__ = ("Periodic", "Tick", "sleep_until")

Missed = Literal["skip", "delay", "all"]

_LONGEST_SLEEP_S: Final = 1.0
"""Longest sleep without a look: a suspend or a restore that nobody has committed delays a tick by so much at most."""
_LONGEST_PERIOD_S: Final = 2**31


async def sleep_until(clock: Clock, utc: TimeInterval | int | datetime.datetime) -> TimeInterval:
    """Sleep until true time is certain to have reached *utc*; return the first reading that says so.

    Unlike ``Clock.wait_past`` it goes on after a disruption: *utc* is a moment by the calendar. After a restore or a
    suspend beyond *utc* it returns as soon as there is a bounded time again, or a second later where nobody commits it.
    While there is no bounded time it waits on; put a limit around it with ``anyio.fail_after``.

    Args:
        clock: the clock that says what time it is.
        utc: UTC in nanoseconds since 1970, less than 2**63; an aware datetime; or an interval, of which the end counts.

    Raises:
        TypeError: *utc* is none of these.
        ValueError: *utc* is 2**63 ns or more, in 2262, past which there is no reading.
        CounterNotSupportedError: the kernel does not trust this machine's counter, so waiting does not help.
        SegmentError: what is there is no segment, or the clock is closed.
    """
    ns = _moment(utc)
    await anyio.lowlevel.checkpoint()
    while True:
        snapshot, interval = await clock._waiting.sample_bounded(None)
        if interval.earliest_ns >= ns:
            return interval
        await _sleep(clock._waiting, snapshot, ns - interval.earliest_ns)


@final
@dataclass(frozen=True, slots=True)
class Tick:
    """One tick of a ``Periodic``."""

    due_ns: int
    """UTC at which it was due, nanoseconds since 1970."""
    interval: TimeInterval
    """The reading that showed it: true time is certain to have reached `due_ns`."""
    missed: int
    """Ticks that were due since the one before, and will not come."""


@final
class Periodic(OfThisProcess):
    """A timer by UTC, which gives a ``Tick`` each period: ``async for tick in Periodic(clock, 60)``.

    Ticks are due at *start* and each *every_s* seconds of UTC after it. None comes early. There is none while there is
    no bounded time, and it never ends. If UTC is found to be behind the last tick, the next one comes within a period.

    An object serves one task. Cancelling a wait for a tick loses none.

    Args:
        clock: the clock that says what time it is.
        every_s: the period in seconds, up to 2**31; it is rounded to nanoseconds.
        missed: what happens after a restore, a suspend, or a body of the loop that took longer than a period. "skip":
            one tick comes at once, the next one when it would have been due. "delay": one tick comes at once, the next
            one a whole period later. "all": each missed tick comes, one right after the other.
        start: UTC of the first tick, as for ``sleep_until``. If it is past, ticks begin with the next one due by it:
            with 0, a period of 3600 s is due at each full hour. None: the first tick comes at once.

    Raises from ``async for``:
        CounterNotSupportedError, SegmentError: as for ``sleep_until``.

    Raises:
        TypeError: *start* is no moment.
        ValueError: *every_s*, *missed* or *start* is out of range.
    """

    _instead = "make one there"

    def __init__(
        self,
        clock: Clock,
        every_s: float,
        missed: Missed = "skip",
        *,
        start: TimeInterval | int | datetime.datetime | None = None,
    ) -> None:
        if not 0 < every_s <= _LONGEST_PERIOD_S or not (every_ns := round(Fraction(every_s) * 10**9)):
            raise ValueError(f"every_s must be from 1 ns to {_LONGEST_PERIOD_S} s, not {every_s}")
        if missed not in get_args(Missed):
            raise ValueError(f"missed must be one of {', '.join(get_args(Missed))}, not {missed!r}")
        self._waiting: Final = clock._waiting
        self._every_ns: Final = every_ns
        self._missed: Final = missed
        self._start_ns: Final = None if start is None else _moment(start)
        self._due_ns: int | None = None
        """UTC of the next tick; None before the first look at the clock."""
        self._has_ticked = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Tick:
        """Wait for the next tick; there is no last one."""
        await anyio.lowlevel.checkpoint()
        while True:
            snapshot, interval = await self._waiting.sample_bounded(None)
            due_ns = self._next_due(interval)
            if interval.earliest_ns >= due_ns:
                return self._tick(due_ns, interval)
            await _sleep(self._waiting, snapshot, due_ns - interval.earliest_ns)

    def _next_due(self, now: TimeInterval) -> int:
        """UTC of the next tick."""
        if self._due_ns is None:
            start_ns = now.earliest_ns if self._start_ns is None else self._start_ns
            self._due_ns = start_ns + max(0, -(-(now.earliest_ns - start_ns) // self._every_ns)) * self._every_ns
        early_ns = self._due_ns - now.latest_ns
        if early_ns > self._every_ns:  # time went back
            periods = early_ns // self._every_ns
            if not self._has_ticked and self._start_ns is not None:
                periods = min(
                    periods, (self._due_ns - self._start_ns) // self._every_ns
                )  # but not before the start
            self._due_ns -= periods * self._every_ns
        return self._due_ns

    def _tick(self, due_ns: int, now: TimeInterval) -> Tick:
        """The tick due at *due_ns*, with those that it stands for; and the time of the next one."""
        missed = 0 if self._missed == "all" else (now.earliest_ns - due_ns) // self._every_ns
        due_ns += missed * self._every_ns
        since_ns = now.earliest_ns if missed and self._missed == "delay" else due_ns
        self._due_ns, self._has_ticked = since_ns + self._every_ns, True
        return Tick(due_ns, now, missed)


def _moment(utc: TimeInterval | int | datetime.datetime) -> int:
    """*utc* in nanoseconds since 1970."""
    ns = latest_ns_of(utc)
    if ns > LATEST_NS:
        raise ValueError(f"no reading is past {ns} ns: they end in 2262, with 2**63 - 1")
    return ns


async def _sleep(waiting: Waiting, seen: Snapshot, ns: int) -> None:
    """Sleep until earliest_ns has moved on by *ns*, until a commit, or for a second."""
    await waiting.wait(seen, min(waiting.sleep_s(seen, ns), _LONGEST_SLEEP_S))
