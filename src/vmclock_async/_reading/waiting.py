"""Waiting for a time, a status, a bound, or the next page."""

import logging
import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Final, NamedTuple, TypeVar, final

import anyio
import anyio.lowlevel

from vmclock_async._reading.readings import Readings
from vmclock_async._segment.reader import UNSTABLE_S
from vmclock_async._segment.remedies import unstable_error
from vmclock_async.errors import (
    ClockDisruptedError,
    ClockError,
    SegmentNotInitializedError,
    SegmentUnstableError,
    VMClockError,
)
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import maxerror_rate

__all__ = ("POLL_WHILE_BOUNDED_S", "POLL_WHILE_UNBOUNDED_S", "Look", "Waiting")

_Read = TypeVar("_Read")

_log: Final = logging.getLogger("vmclock_async.clock")

_LONGEST_POLL_S: Final = 60.0
"""Poll interval of wait_past() and wait_status() when no commit wakes them."""
POLL_WHILE_UNBOUNDED_S: Final = 0.25
"""Poll interval of wait_bounded() and of events, because a bound may come without a commit."""
POLL_WHILE_BOUNDED_S: Final = 1.0
"""Poll interval of events, because the kernel may lose its trust in the counter; ``now`` asks as often."""
_AFTER_THE_BOUND_S: Final = 1e-6
"""Time by which a task wakes after a reference has become too old, because timers are rounded."""
_POLL_WHILE_MISSING_S: Final = 0.05
"""Poll interval while a segment starts over, or was left half written."""
_UNBOUNDED_EXPLAINED_AFTER_S: Final = 5.0
"""Time after which wait_bounded() logs, once, why there is no bound yet."""
_POLL_WHILE_COMMITTING_S: Final = 0.001
"""Pause between tries to read a page that is being written."""


@final
class _WhyNot:
    """Logs, once, why a wait for a bound of the segment at *path* goes on; it begins now."""

    def __init__(self, path: str) -> None:
        self._path: Final = path
        self._explained_at = anyio.current_time() + _UNBOUNDED_EXPLAINED_AFTER_S

    def note(self, reason: str) -> None:
        """Note the *reason* of this moment; the log has the first one after the time is over."""
        if anyio.current_time() >= self._explained_at:
            self._explained_at = math.inf
            _log.warning(
                "%s: no bounded time for %g s, and the wait for it goes on: %s",
                self._path,
                _UNBOUNDED_EXPLAINED_AFTER_S,
                reason,
            )


class Look(NamedTuple):
    """What one look at the present page found."""

    reading: TimeInterval | VMClockError | None
    """The time, or why there is none; None: another page has come."""
    again_s: float
    """Time, in seconds, after which the reading may be of another kind, though nothing was committed."""
    fence: int | None
    """The device's marker, from before the look."""


@final
class Waiting:
    """Waits for the readings of one feed."""

    def __init__(self, readings: Readings) -> None:
        self.readings: Final = readings
        self.feed: Final = readings.feed

    async def wait_past(self, ns: int) -> TimeInterval:
        """See ``Clock.wait_past``; *ns* is at most LATEST_NS."""
        await anyio.lowlevel.checkpoint()
        marker: int | None = None
        while True:
            fence = self.feed.fence_marker()
            snapshot, interval = await self.patiently(partial(self._bounded_since, marker))
            marker = snapshot.body.disruption_marker
            if interval.earliest_ns > ns:
                return interval
            sleep_s = self.sleep_s(snapshot, ns + 1 - interval.earliest_ns)
            await self.wait(snapshot, sleep_s, fence_seen=fence)

    async def wait_status(self, wanted: frozenset[int]) -> Snapshot:
        """See ``Clock.wait_status``."""
        await anyio.lowlevel.checkpoint()
        while True:
            snapshot = await self.snapshot_once_there()
            if snapshot.body.clock_status in wanted:
                return snapshot
            await self.wait(snapshot, _LONGEST_POLL_S)

    async def wait_bounded(self, max_error_ns: int | None) -> TimeInterval:
        """See ``Clock.wait_bounded``."""
        await anyio.lowlevel.checkpoint()
        return (await self.sample_bounded(max_error_ns))[1]

    async def sample_bounded(self, max_error_ns: int | None) -> tuple[Snapshot, TimeInterval]:
        """A snapshot and its interval, once there is one within *max_error_ns*; see ``Clock.wait_bounded``."""
        why_not = _WhyNot(self.feed.path)
        while True:
            fence = self.feed.fence_marker()
            snapshot, found = await self._once_there(partial(self.bounded_or_why_not, max_error_ns), why_not.note)
            if isinstance(found, TimeInterval):
                return snapshot, found
            why_not.note(str(found))
            # A reference or a time of writing that lies ahead comes without a commit.
            await self.wait(snapshot, POLL_WHILE_UNBOUNDED_S, fence_seen=fence)

    async def look(self, seen: Snapshot, *, patient: bool) -> Look:
        """The reading of *seen* at this moment; if *patient*, a commit in progress has 0.1 s to end."""
        give_up = anyio.current_time() + (UNSTABLE_S if patient else 0)
        while True:
            fence = self.feed.fence_marker()
            try:
                snapshot, counter = self.readings.sample(0)
                if snapshot != seen:
                    return Look(None, POLL_WHILE_UNBOUNDED_S, fence)
                interval = self.readings.interval(snapshot, counter, None, limit_s=0)
            except SegmentUnstableError as exc:
                if anyio.current_time() >= give_up:
                    return Look(exc, POLL_WHILE_UNBOUNDED_S, fence)
            except (ClockError, SegmentNotInitializedError) as exc:
                return Look(exc, POLL_WHILE_UNBOUNDED_S, fence)
            else:
                ages_in_s = self.readings.ages_in_s(snapshot, counter) + _AFTER_THE_BOUND_S
                return Look(interval, min(ages_in_s, POLL_WHILE_BOUNDED_S), fence)
            await anyio.sleep(_POLL_WHILE_COMMITTING_S)

    async def wait(self, seen: Snapshot, timeout: float, *, fence_seen: int | None = None) -> Snapshot | None:
        """The next page after *seen* within *timeout* seconds, see ``Feed.wait``; its marker is noted."""
        snapshot = await self.feed.wait(seen, timeout, fence_seen=fence_seen)
        if snapshot is not None:
            self.readings.note_marker(snapshot)
        return snapshot

    async def patiently(self, read: Callable[[], _Read], limit_s: float = math.inf) -> _Read:
        """The result of *read*, which must not wait itself.

        While the segment or the device is being written, the loop goes on, for 0.1 s, or *limit_s* seconds if that is
        less.
        """
        wait_s = max(0.0, min(limit_s, UNSTABLE_S))
        give_up = anyio.current_time() + wait_s
        first: SegmentUnstableError | None = None
        while True:
            try:
                return read()
            except SegmentUnstableError as exc:
                first = exc if first is None or first.path != exc.path else first
                if anyio.current_time() > give_up:
                    raise unstable_error(exc.path, first.seq_count, exc.seq_count, wait_s) from exc
            await anyio.sleep(_POLL_WHILE_COMMITTING_S)

    def bounded_or_why_not(self, max_error_ns: int | None) -> tuple[Snapshot, TimeInterval | ClockError]:
        """A snapshot with its reading, or with the reason why there is none yet. It does not wait.

        Raises:
            SegmentError: there is no snapshot.
            CounterNotSupportedError: the kernel does not trust this machine's counter, so waiting does not help.
        """
        snapshot, counter = self.readings.sample(0)
        try:
            return snapshot, self.readings.interval(snapshot, counter, max_error_ns, limit_s=0)
        except ClockError as exc:
            if self.feed.unfit_because(snapshot, 0) is not None:
                raise  # waiting does not help
            return snapshot, exc

    async def sample_patiently(self, limit_s: float = math.inf) -> tuple[Snapshot, int]:
        """A sample, see ``patiently``."""
        return await self.patiently(self._sample, limit_s)

    async def snapshot_once_there(self) -> Snapshot:
        """A snapshot, once there is one: this waits while a segment starts over, or was left half written."""
        snapshot, _ = await self._once_there(self._sample)
        return snapshot

    async def _once_there(self, read: Callable[[], _Read], note: Callable[[str], None] | None = None) -> _Read:
        """The result of *read*, once there is a page to read; *note* is called with each reason why there is none."""
        while True:
            try:
                return await self.patiently(read)
            except (SegmentNotInitializedError, SegmentUnstableError) as exc:
                if note is not None:
                    note(exc.reason)
                await anyio.sleep(_POLL_WHILE_MISSING_S)

    def _sample(self) -> tuple[Snapshot, int]:
        return self.readings.sample(0)

    def _bounded_since(self, marker: int | None) -> tuple[Snapshot, TimeInterval]:
        """A snapshot with its reading; its marker must be *marker*, unless that is None."""
        snapshot, counter = self.readings.sample(0)
        now = snapshot.body.disruption_marker
        if marker is not None and marker != now:
            raise ClockDisruptedError(f"the disruption marker moved from {marker} to {now} meanwhile")
        return snapshot, self.readings.interval(snapshot, counter, None, limit_s=0)

    def sleep_s(self, snapshot: Snapshot, ns: int) -> float:
        """Time, in seconds, until earliest_ns has moved on by *ns*: it moves by less than a second a second."""
        body = snapshot.body
        slower = Fraction(maxerror_rate(body, self.readings.drift_ppb), body.counter_period_frac_sec)
        if slower >= 1:
            return _LONGEST_POLL_S
        return min(float(Fraction(ns, 10**9) / (1 - slower)), _LONGEST_POLL_S)
