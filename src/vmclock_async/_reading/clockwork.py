"""Waiting for what a clock reads: a time, a status, a bound, events and leases. Of ``Clock`` and ``ManualClock``."""

import math
import operator
from abc import abstractmethod
from contextlib import AbstractAsyncContextManager
from fractions import Fraction
from typing import Final
from uuid import UUID

import anyio
import anyio.lowlevel

from vmclock_async._reading.readings import Readings, require_limit
from vmclock_async._segment.reader import UNSTABLE_S, unstable_error
from vmclock_async.abi import ClockStatus, CounterId
from vmclock_async.errors import ClockDisruptedError, ClockError, SegmentNotInitializedError, SegmentUnstableError
from vmclock_async.events import EventStream, open_events
from vmclock_async.incarnation import Incarnation
from vmclock_async.intervals import TimeInterval
from vmclock_async.lease import Lease, open_lease
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import LATEST_NS, maxerror_rate

__all__ = ("Clockwork",)

_LONGEST_SLEEP_S: Final = 60.0
"""Between looks of who waits for a time or a status, though nothing wakes."""
_AHEAD_S: Final = 0.25
"""Between looks of who waits for a bound, which may come without a commit."""
_AGAIN_S: Final = 0.05
"""Between looks at a segment that is begun afresh, or was left half written."""


class Clockwork(Readings):
    """What ``Clock`` and ``testing.ManualClock`` have in common: annotate with it what takes either."""

    __module__ = "vmclock_async.clock"

    def __init__(self, *, counter_id: CounterId, max_age: float, max_drift_ppm: float | None) -> None:
        super().__init__(counter_id=counter_id, max_age=max_age, max_drift_ppm=max_drift_ppm)
        self._incarnation: Final = Incarnation()

    @abstractmethod
    def _require_in_place(self) -> None:
        """Raise SegmentError if the path leads to another segment than the one that is read."""

    @abstractmethod
    async def _next(self, seen: Snapshot) -> Snapshot:
        """The next page after *seen*.

        Raises:
            SegmentError: what is there is no segment.
        """

    @abstractmethod
    async def _wait(self, seen: Snapshot, timeout: float, *, fence_seen: int | None = None) -> Snapshot | None:
        """The next page after *seen*; None after *timeout* seconds without.

        Where *fence_seen* is given, None also once the device's marker is another.

        Raises:
            SegmentError: what is there is no segment.
        """

    async def wait_past(self, ns: int) -> TimeInterval:
        """Wait until true time is certain to be past *ns* (commit-wait); the first reading that is.

        Args:
            ns: UTC, nanoseconds since 1970, less than 2**63. To wait out an interval: its ``latest_ns``.

        Raises:
            TypeError: *ns* is no integer.
            ValueError: *ns* is 2**63 or more, in 2262, past which there is no reading.
            ClockDisruptedError: the disruption marker moved meanwhile: what is waited for may mean nothing now.
            ClockError, SegmentError: as ``now``.
        """
        ns = operator.index(ns)
        if ns > LATEST_NS:
            raise ValueError(f"no reading is past {ns} ns: they end in 2262, with 2**63 - 1")
        await anyio.lowlevel.checkpoint()
        marker: int | None = None
        while True:
            fence = self._fence_marker()
            snapshot, counter = await self._look_patiently()
            marker = self._require_marker(marker, snapshot)
            interval = self._interval(snapshot, counter, None)
            if interval.earliest_ns > ns:
                return interval
            sleep_s = self._sleep_s(snapshot, ns + 1 - interval.earliest_ns)
            await self._wait(snapshot, sleep_s, fence_seen=fence)

    async def wait_status(self, *statuses: ClockStatus) -> Snapshot:
        """Wait until clock_status is one of *statuses*; the snapshot that shows it.

        While the segment is missing, begun afresh or left half written by a writer that died, this waits on.

        Raises:
            SegmentError: what is there is no segment, or the clock is closed.
            TypeError: there is no status to wait for, or one is no integer.
        """
        wanted = {operator.index(status) for status in statuses}
        if not wanted:
            raise TypeError("wait_status() needs a status to wait for")
        await anyio.lowlevel.checkpoint()
        while True:
            snapshot, _ = await self._look_until_there()
            if snapshot.body.clock_status in wanted:
                return snapshot
            await self._wait(snapshot, _LONGEST_SLEEP_S)

    async def wait_bounded(self, max_error_ns: int | None = None) -> TimeInterval:
        """Wait until there is a bounded time (within *max_error_ns* of the middle, if given); that reading.

        While the segment is missing, begun afresh or left half written by a writer that died, this waits on.

        Raises:
            CounterNotSupportedError: the kernel does not trust this machine's counter: waiting is of no use.
            SegmentError: what is there is no segment, or the clock is closed.
            ValueError: *max_error_ns* is not from 0 to 2**64 - 1.
        """
        require_limit(max_error_ns)
        await anyio.lowlevel.checkpoint()
        while True:
            fence = self._fence_marker()
            snapshot, counter = await self._look_until_there()
            try:
                return self._interval(snapshot, counter, max_error_ns)
            except ClockError:
                if self._unfit_because(snapshot) is not None:
                    raise  # no waiting mends that
                # What lies ahead, a reference or a time of writing, comes without a commit.
                await self._wait(snapshot, _AHEAD_S, fence_seen=fence)

    def events(self) -> AbstractAsyncContextManager[EventStream]:
        """What happens to the segment from now on: ``async with clock.events() as events: await events.receive()``.

        No disruption, restore or replacement is lost, however late one comes to ``receive()``. A stream is for one
        task; a clock may have many. Events tell of the segment: of what only the device tells yet, while the publisher
        is stopped, ``now()`` and leases know at once, and events once it has been committed.
        """
        return open_events(self)

    def lease(self, duration_s: float) -> AbstractAsyncContextManager[Lease]:
        """A time-limited right to act: see ``Lease``. Raises ``LeaseLostError`` where it ended before the block.

        Args:
            duration_s: seconds, more than 0, ``max_age`` at most.
        """
        return open_lease(self, duration_s)

    @property
    def incarnation(self) -> UUID:
        """Who this process is: fresh for each process, and after every restore of the machine from a snapshot.

        Of two machines restored from one snapshot, each has another. In the callbacks of ``on_restore`` it is the new
        one already. See ``incarnation``.

        Raises:
            ClockDisruptedError: the machine was restored, and the callbacks of ``on_restore`` have not finished; or
                the device says that it was disrupted, and the segment does not yet.
            SegmentError: as ``now``.
        """
        snapshot, _ = self._look()
        self._require_fence(snapshot)
        self._require_generation(snapshot)
        return self._incarnation.of(snapshot, self._generation(snapshot))

    async def _look_patiently(self, limit_s: float = math.inf) -> tuple[Snapshot, int]:
        """A sample; the loop goes on while a commit is in progress, for 0.1 s, or *limit_s* seconds if that is less."""
        wait_s = max(0.0, min(limit_s, UNSTABLE_S))
        give_up = anyio.current_time() + wait_s
        first: int | None = None
        while True:
            try:
                return self._look(0)
            except SegmentUnstableError as exc:
                first = exc.seq_count if first is None else first
                if anyio.current_time() > give_up:
                    raise unstable_error(exc.path, first, exc.seq_count, wait_s) from exc
            await anyio.sleep(0.001)

    async def _look_until_there(self) -> tuple[Snapshot, int]:
        """A sample, once there is one: also of a segment that is begun afresh, or was left half written."""
        while True:
            try:
                return await self._look_patiently()
            except (SegmentNotInitializedError, SegmentUnstableError):
                await anyio.sleep(_AGAIN_S)

    def _require_marker(self, marker: int | None, snapshot: Snapshot) -> int:
        """The marker of *snapshot*, which must be *marker* if that is known."""
        now = snapshot.body.disruption_marker
        if marker is not None and marker != now:
            raise ClockDisruptedError(f"the disruption marker moved from {marker} to {now} meanwhile")
        return now

    def _sleep_s(self, snapshot: Snapshot, ns: int) -> float:
        """How long until earliest_ns has moved on by *ns*: it does so by less than a second a second."""
        body = snapshot.body
        slower = Fraction(maxerror_rate(body, self._drift_ppb), body.counter_period_frac_sec)
        if slower >= 1:
            return _LONGEST_SLEEP_S
        return min(float(Fraction(ns, 10**9) / (1 - slower)), _LONGEST_SLEEP_S)
