"""Readiness: a bounded time within some limits, and for a while without a break.

A look is what ``now`` does: it decides the default path, and asks a clock of the segment there. Commits, the fence and
the end of the wanted while wake the next look; a look at least every second sees what comes without a commit.

The while is over, and begins again, at a look that finds no such time, and at a page that was replaced by another after
a disruption, in another file, or after its bound had grown past the limit. What comes and goes between two looks
without such a trace is not seen.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple, final

import anyio

from vmclock_async._cli.paths import reader_path
from vmclock_async._cli.reading import reading_facts, require_limits
from vmclock_async._notation import duration_text
from vmclock_async._paths import absolute
from vmclock_async._reading.arrival import until_there
from vmclock_async._reading.readings import age_ns
from vmclock_async._reading.waiting import POLL_WHILE_BOUNDED_S, POLL_WHILE_UNBOUNDED_S
from vmclock_async.abi import ClockStatus, name_of
from vmclock_async.clock import Clock, open_clock
from vmclock_async.errors import (
    ClockDisruptedError,
    ClockError,
    ClockNotSynchronizedError,
    SegmentError,
    SegmentNotInitializedError,
    SegmentUnstableError,
    VMClockError,
)
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot

__all__ = ("Demand", "Found", "Readiness")

_POLL_WHILE_MISSING_S: Final = 0.05


class Demand(NamedTuple):
    """What is asked of the time."""

    statuses: frozenset[ClockStatus] = frozenset()
    """The statuses that it may have; empty: any."""
    max_error_ns: int | None = None
    stable_ns: int = 0
    """How long all of this must hold without a break."""


class Found(NamedTuple):
    """What a look found."""

    lack: VMClockError | None
    """What is missing; None: nothing."""
    facts: Mapping[str, object] = MappingProxyType({})
    """What else is known, for JSON."""
    interval: TimeInterval | None = None
    age_ns: int = 0
    """The age of the reference of *interval*."""


@final
class Readiness:
    """The wait for the time that *demand* asks for, of the segment at *path* or where readers look.

    Args:
        path: path of the segment; None: the default paths, decided at each look.
        demand: what is asked of the time.
        say: gets the first thing that is missing.
    """

    def __init__(self, path: Path | None, demand: Demand, say: Callable[[VMClockError], None]) -> None:
        self._path: Final = None if path is None else Path(absolute(path))
        self._demand: Final = demand
        self._say: Callable[[VMClockError], None] | None = say
        self._since: float | None = None
        """When the present while began; None: the last look found something missing."""
        self._before: VMClockError | None = None
        """What was missing before it."""
        self._found: Found | None = None
        self._scope: anyio.CancelScope | None = None
        self._end = math.inf

    async def wait(self, timeout_s: float = math.inf) -> Found:
        """What was found: all that is asked, or what is missing after *timeout_s*, though after one look at least.

        Raises:
            SegmentError: what is there is no segment.
            CounterNotSupportedError: the kernel does not trust this machine's counter, so waiting does not help.
        """
        self._end = anyio.current_time() + timeout_s
        with anyio.CancelScope() as self._scope:
            while True:
                async with AsyncExitStack() as stack:
                    try:
                        clock = await until_there(self._path, partial(self._open, stack))
                        if (found := await self._watch(clock)) is not None:
                            return found
                    except (SegmentNotInitializedError, SegmentUnstableError) as exc:
                        self._note(Found(exc))
                await anyio.sleep(_POLL_WHILE_MISSING_S)
        assert self._found is not None
        return self._found if self._since is None else self._too_short(self._found, anyio.current_time())

    async def _open(self, stack: AsyncExitStack) -> Clock:
        try:
            return await stack.enter_async_context(open_clock(self._path))
        except SegmentNotInitializedError as exc:
            self._note(Found(exc))
            raise

    async def _watch(self, clock: Clock) -> Found | None:
        """What *clock* has once it is all that is asked; None once another segment is the one to look at.

        Raises:
            SegmentNotInitializedError, SegmentUnstableError: there is no page to look at.
        """
        waiting = clock._waiting
        seen: Snapshot | None = None
        while True:
            now = anyio.current_time()
            fence = waiting.feed.fence_marker()
            snapshot, reading = await waiting.patiently(partial(waiting.bounded_or_why_not, None))
            if self._is_elsewhere(clock):
                return None
            if self._since is not None and seen is not None and seen is not snapshot:
                self._note_end_of(seen, snapshot, clock)
            found = self._judge(clock, snapshot, reading)
            self._note(found)
            again_s = POLL_WHILE_UNBOUNDED_S
            if self._since is not None:
                left_s = self._since + self._demand.stable_ns / 10**9 - now
                if left_s <= 0 or not self._demand.stable_ns:
                    return found
                again_s = min(left_s, POLL_WHILE_BOUNDED_S)
            await waiting.wait(snapshot, again_s, fence_seen=fence)
            seen = snapshot

    def _is_elsewhere(self, clock: Clock) -> bool:
        """Whether a reader that begins now would not open the file that *clock* reads."""
        try:
            clock._feed.require_in_place()
            return absolute(reader_path(self._path)) != clock.path
        except SegmentError:
            return True

    def _note_end_of(self, seen: Snapshot, snapshot: Snapshot, clock: Clock) -> None:
        """End the present while if *snapshot* came after a disruption, or after the bound of *seen* was lost."""
        before, after = seen.body.disruption_marker, snapshot.body.disruption_marker
        if seen.opened != snapshot.opened:
            self._break(SegmentError(clock.path, "the segment was replaced by another"))
        elif before != after:
            self._break(ClockDisruptedError(f"the disruption marker moved from {before} to {after}"))
        else:
            readings, limit_ns = clock._waiting.readings, self._demand.max_error_ns
            try:
                readings.interval(seen, clock.counter_ticks(), limit_ns, limit_s=0)
            except ClockError as exc:
                self._break(exc)

    def _judge(self, clock: Clock, snapshot: Snapshot, reading: TimeInterval | ClockError) -> Found:
        """What *reading*, of *snapshot*, has of all that is asked of a moment."""
        status, statuses = snapshot.body.clock_status, self._demand.statuses
        where: dict[str, object] = {"path": clock.path}
        if statuses and status not in statuses:
            wanted = " or ".join(each.name for each in sorted(statuses))
            return Found(
                ClockNotSynchronizedError(
                    f"clock_status is {name_of(status)}, and --status asks for {wanted}; does a daemon synchronize the "
                    "clock? The publisher's log says what its sources lack"
                ),
                where,
            )
        if isinstance(reading, ClockError):
            return Found(reading, where)
        age = age_ns(snapshot, clock.counter_ticks())
        facts = reading_facts(clock, reading, age)
        try:
            require_limits(reading, age, max_error_ns=self._demand.max_error_ns)
        except ClockError as exc:
            return Found(exc, facts)
        return Found(None, facts, reading, age)

    def _note(self, found: Found) -> None:
        """Note the result of a look. From the first one on, the end of the wait may come."""
        self._found = found
        if found.lack is not None:
            self._break(found.lack)
            if self._say is not None:
                self._say(found.lack)
            self._say = None
        elif self._since is None:
            self._since = anyio.current_time()
        if self._scope is not None:
            self._scope.deadline = self._end

    def _break(self, lack: VMClockError) -> None:
        self._since, self._before = None, lack

    def _too_short(self, found: Found, now: float) -> Found:
        """The failure of a while that has not been long enough *now*."""
        assert self._since is not None
        held_s = math.floor((now - self._since) * 10) / 10
        before = "" if self._before is None else f" (before that: {self._before.seen})"
        lack = ClockError(
            f"the time was as asked for {held_s:g} s, and --stable asks for {duration_text(self._demand.stable_ns)}"
            f"{before}; wait longer, or ask for less"
        )
        return Found(lack, {"path": found.facts["path"]})
