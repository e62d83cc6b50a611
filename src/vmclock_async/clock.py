"""The clock: bounded time from a segment, and waiting for it.

``Clock`` is one class over a feed (``_reading.feed``): the segment with its fence, or a played one. The core reads a
plain page by itself. Every other case goes through ``_now_slowly``, ``_at_slowly`` or ``_at_monotonic_slowly`` to
``Readings``, which asks the feed and says why there is no interval. ``Waiting`` waits for readings.
"""

import datetime
import operator
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Final, Self
from uuid import UUID

import anyio
import anyio.lowlevel
import anyio.to_thread

from vmclock_async import _core
from vmclock_async._paths import absolute, default_path
from vmclock_async._reading.background import beside
from vmclock_async._reading.feed import Feed
from vmclock_async._reading.readings import Readings, age_ns, require_limit
from vmclock_async._reading.segment_feed import Fence, PathLike, SegmentFeed
from vmclock_async._reading.waiting import Waiting
from vmclock_async._segment.belonging import OfThisProcess
from vmclock_async.abi import ClockStatus
from vmclock_async.errors import SegmentError
from vmclock_async.events import EventStream, open_events
from vmclock_async.incarnation import Incarnation, OnRestore
from vmclock_async.intervals import TimeInterval, latest_ns_of
from vmclock_async.lease import Lease, open_lease
from vmclock_async.models import Snapshot, VMClockBody
from vmclock_async.reckoning import LATEST_NS, UNITS_PER_SECOND, units
from vmclock_async.segment import SegmentReaderStatistics

__all__ = ("Clock", "open_clock")

_COUNTS_OF_OTHER_UNITS: Final = range(10**9, 10**17)
"""Seconds, milliseconds and microseconds since 1970, for every date from September 2001 on.

As nanoseconds these numbers lie before March 1973, and nobody waits for that."""


class Clock(_core.Clock, OfThisProcess):
    """Bounded time from the segment at `path`; a context manager. In async code: ``open_clock``.

    ``now()`` is a reading: the ``TimeInterval`` of UTC that contains true time. It never waits for more than a
    millisecond, and costs less than a checkpoint. Its errors are:

    * ``ClockNotSynchronizedError``: clock_status is neither SYNCHRONIZED nor FREERUNNING.
    * ``ClockUnboundedError``: a bound is missing; the time is neither UTC nor TAI with its offset; or the error is
      more than *max_error_ns*, if that is given.
    * ``ClockStaleError``: the reference is older than *max_age*.
    * ``ClockDisruptedError``: the fence does not hold; the counter is behind the reference; the segment belongs to an
      earlier boot.
    * ``CounterNotSupportedError``: the segment's counter is not this machine's; or the kernel does not trust this
      machine's counter, and no device gives the time in terms of it.
    * ``SegmentError``: the segment cannot be read; ``SegmentUnstableError``: not within a millisecond.
    * ``ValueError``: *max_error_ns* is not from 0 to 2**64 - 1.

    When a leap second is announced, a reading that reaches it is a second wider: it holds both values UTC may have.

    Args:
        path: path of the segment, a captured page or the device. None: where the publisher puts it
            (``$VMCLOCK_ASYNC_SEGMENT``, ``/run/vmclock-async/shm0``, the user's runtime directory,
            ``/dev/shm/vmclock-async-UID/shm0``).
        max_age: longest time, in seconds, by which a reference is carried forward.
        fence: the device whose marker must agree with the segment's: a path; "auto": ``/dev/vmclock0`` if this
            process may read it and it is a VMClock page (otherwise the log says why it is passed over); None: no fence.
            A fence in a file that is replaced is followed. Once the file is deleted, there is no reading until another
            is there. A device stays the fence even if its path is gone, as where /dev was a bind mount.
        max_drift_ppm: parts per million that the counter may be off its period, if the page does not say.
        trust_writable: whether to read a segment, or a fence in a file, that users other than its owner and root may
            write. They can make it show any time, and kill its readers. The owner may be any user: the caller that
            names the path chooses whom to trust, and ``vmclock-async show`` says who owns it.

    Raises:
        SegmentNotInitializedError, SegmentMalformedError, SegmentVersionNotSupportedError, SegmentError: as for
            ``SegmentReader``; for the device too, if *fence* is its path. SegmentError also if others may write
            either of them and *trust_writable* is false.
        CounterNotSupportedError: this thread may not read the counter (``prctl(PR_SET_TSC)``).
        ValueError: *max_age* or *max_drift_ppm* is out of range.
    """

    _instead = "send its path, and open a clock of it there"

    def __init__(
        self,
        path: PathLike | None = None,
        *,
        max_age: float = 1000.0,
        fence: Fence = "auto",
        max_drift_ppm: float | None = None,
        trust_writable: bool = False,
    ) -> None:
        _core.checked_counter()  # first: where reading the counter is forbidden, most reads of a time raise SIGSEGV
        feed = SegmentFeed(default_path() if path is None else path, fence=fence, trust_writable=trust_writable)
        try:
            self._read_from(feed, max_age=max_age, max_drift_ppm=max_drift_ppm)
        except BaseException:
            feed.close()
            raise

    def _read_from(self, feed: Feed, *, max_age: float, max_drift_ppm: float | None = None) -> None:
        """Begin to read *feed*."""
        self._feed = feed
        self._readings = Readings(feed, max_age=max_age, max_drift_ppm=max_drift_ppm)
        self._waiting = Waiting(self._readings)
        self._incarnation = Incarnation()
        age_s, age_frac_sec = divmod(units(max_age), UNITS_PER_SECOND)
        self._limit(int(feed.counter_id), age_s, age_frac_sec, self._readings.drift_ppb)
        with suppress(SegmentError):
            self._readings.sample()  # notes the marker, so that stamps from now on are good

    def __repr__(self) -> str:
        """Path and fence of the clock, without a look at the page."""
        fenced = ", fenced" if self._feed.fenced else ""
        return f"<{type(self).__name__} of {self._feed.path}{fenced}>"

    @property
    def path(self) -> str:
        """The path of the segment."""
        return self._feed.path

    @property
    def max_age(self) -> float:
        """Longest time, in seconds, by which a reference is carried forward."""
        return self._readings.max_age

    @property
    def fenced(self) -> bool:
        """Whether a disruption that the device reports ends readings at once, whatever the publisher does."""
        return self._feed.fenced

    @property
    def age_ns(self) -> int:
        """The age of the page's reference time, in nanoseconds, rounded down; negative if that time lies ahead.

        Raises:
            SegmentError: as for ``now``.
        """
        return age_ns(*self._readings.sample())

    @property
    def status(self) -> ClockStatus | int:
        """The page's clock_status.

        Raises:
            SegmentError: as for ``now``.
        """
        return self.snapshot().body.clock_status

    @property
    def incarnation(self) -> UUID:
        """The identity of this process: a new one for each process, and after every restore of the machine.

        Two machines restored from one snapshot have different ones. In the callbacks of ``on_restore`` it is already
        the new one. See ``incarnation``.

        Raises:
            ClockDisruptedError: the machine was restored, and the callbacks of ``on_restore`` have not finished; or
                the device reports a disruption that the segment does not show yet.
            SegmentError: as for ``now``.
        """
        return self._incarnation.now(self._readings)

    @property
    def restores_are_seen(self) -> bool:
        """Whether restores of the machine from a snapshot are seen: by a device, or by a source that reports each.

        If not, a clone keeps its ``incarnation``, and ``on_restore`` is not called; the log says so once.

        Raises:
            SegmentError: as for ``now``.
        """
        return self._readings.sees_restores(self.snapshot())

    def counter_ticks(self) -> int:
        """This machine's raw counter at this moment: a stamp for ``at``, in order with other loads.

        Raises:
            CounterNotSupportedError: this thread may not read the counter.
        """
        return self._feed.counter_ticks()

    def snapshot(self) -> Snapshot:
        """The page as it is now, whether it gives a time or not.

        Raises:
            SegmentError: as for ``now``.
        """
        return self._readings.sample()[0]

    def statistics(self) -> SegmentReaderStatistics:
        """How tasks have waited for this clock so far."""
        return self._feed.statistics()

    def close(self) -> None:
        """Unmap the segment and the device; waiting tasks get a ``SegmentError``.

        Raises:
            RuntimeError: tasks are waiting in the event loop of another thread. Nothing was closed.
        """
        self._feed.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def wait_past(self, moment: TimeInterval | int | datetime.datetime) -> TimeInterval:
        """Wait until true time is certain to be past *moment* (commit-wait); return the first reading that is.

        Args:
            moment: an interval, which is past once its ``latest_ns`` is; UTC in nanoseconds since 1970, less than
                2**63; or an aware datetime.

        Raises:
            TypeError: *moment* is none of these.
            ValueError: *moment* is 2**63 ns or more, in 2262, past which there is no reading; or it is a number from
                10**9 to 10**17, before March 1973: such a number is in seconds, milliseconds or microseconds.
            ClockDisruptedError: the disruption marker moved meanwhile, so *moment* may mean nothing now.
            ClockError, SegmentError: as ``now``.
        """
        ns = latest_ns_of(moment)
        if ns > LATEST_NS:
            raise ValueError(f"no reading is past {ns} ns: they end in 2262, with 2**63 - 1")
        if ns in _COUNTS_OF_OTHER_UNITS and not isinstance(moment, TimeInterval | datetime.datetime):
            raise ValueError(
                f"wait_past() takes nanoseconds since 1970, as time.time_ns() gives them, and {ns} would be before "
                "March 1973: it is in another unit; multiply seconds by 10**9, or give an aware datetime"
            )
        return await self._waiting.wait_past(ns)

    async def wait_status(self, *statuses: ClockStatus | str) -> Snapshot:
        """Wait until clock_status is one of *statuses*; return the snapshot that shows it.

        While the segment is missing, starts over, or was left half written by a writer that died, this waits on.

        Args:
            statuses: members of ``ClockStatus``, their names, or the ABI's numbers.

        Raises:
            SegmentError: what is there is no segment, or the clock is closed.
            TypeError: there is no status to wait for, or one is neither a number nor a name.
            ValueError: no status has such a name.
        """
        if not statuses:
            raise TypeError("wait_status() needs a status to wait for")
        return await self._waiting.wait_status(frozenset(map(_status, statuses)))

    async def wait_bounded(self, max_error_ns: int | None = None) -> TimeInterval:
        """Wait until there is a bounded time (within *max_error_ns* of the middle, if given); return that reading.

        While the segment is missing, starts over, or was left half written by a writer that died, this waits on. After
        five seconds the log ("vmclock_async.clock", a warning, once a call) says why there is no bound yet.

        Raises:
            CounterNotSupportedError: the kernel does not trust this machine's counter, so waiting does not help.
            SegmentError: what is there is no segment, or the clock is closed.
            TypeError: *max_error_ns* is no integer.
            ValueError: *max_error_ns* is not from 0 to 2**64 - 1.
        """
        require_limit(max_error_ns)
        return await self._waiting.wait_bounded(max_error_ns)

    def events(self, *, since: VMClockBody | None = None) -> AbstractAsyncContextManager[EventStream]:
        """What happens to the segment from now on: ``async with clock.events() as events: async for event in events``.

        No disruption, restore or replacement is lost, however late the next event is asked for. A stream serves one
        task; a clock may have many streams. ``Unbounded`` and ``Bounded`` say when ``now()`` begins to refuse, and when
        it gives a time again, with or without a commit. The other events come from the segment: while the publisher is
        stopped, only the device shows what happened, and they come once it has been committed.

        Args:
            since: a body with the marker and the generation that a program has handled, which it kept across a
                restart. If the page has others now, a ``Disrupted`` and a ``Restored`` come first.
        """
        return open_events(self._waiting, since)

    def lease(self, duration_s: float) -> AbstractAsyncContextManager[Lease]:
        """A time-limited right to act; see ``Lease``. Raises ``LeaseLostError`` if it ended before the block did.

        Args:
            duration_s: seconds, more than 0 and at most ``max_age``.
        """
        return open_lease(self._waiting, duration_s)

    @asynccontextmanager
    async def on_restore(self, *callbacks: OnRestore | Iterable[OnRestore]) -> AsyncIterator[Self]:
        """Await *callbacks* after each restore of the machine from a snapshot, for the length of the block.

        They are awaited one after the other, before ``incarnation`` shows a new value; the callbacks themselves see the
        new one. An exception in one ends the block, unless the machine was restored again meanwhile: then all are
        awaited again. Restores count from the moment before the block begins.

        Args:
            callbacks: async functions of a snapshot (methods, ``partial`` and objects with an async ``__call__`` too),
                or lists of them.

        Raises:
            TypeError: one of *callbacks* is no async function; the message names it.
            RuntimeError: a block of this clock has callbacks already.
            SegmentError: as for ``now``.
        """
        awaited = Incarnation.callbacks_in(callbacks)
        if self._incarnation.on_restore:
            raise RuntimeError("this clock has its on_restore callbacks already; give all of them at once")
        async with AsyncExitStack() as stack:
            if awaited:
                snapshot, _ = await self._waiting.sample_patiently()
                generation = await self._waiting.patiently(partial(self._readings.generation, snapshot, 0))
                self._incarnation.of(snapshot, generation)
                self._incarnation.on_restore = awaited
                stack.callback(setattr, self._incarnation, "on_restore", ())
                await stack.enter_async_context(beside(partial(self._incarnation.keep, self._waiting, snapshot)))
            yield self

    def _now_slowly(self, max_error_ns: int | None) -> TimeInterval:
        """``now()`` where the core does not know the answer, or there is no interval for some reason."""
        require_limit(max_error_ns)
        snapshot, counter = self._readings.sample()
        interval = self._readings.interval(snapshot, counter, max_error_ns)
        self._attach_to(snapshot)
        return interval

    def _at_slowly(self, counter_ticks: int, max_error_ns: int | None) -> TimeInterval:
        """``at()`` in the same cases, and for a stamp of an earlier month."""
        interval, snapshot = self._readings.at(counter_ticks, max_error_ns)
        self._attach_to(snapshot)
        return interval

    def _at_monotonic_slowly(self, ns: int, max_error_ns: int | None) -> TimeInterval:
        """``at_monotonic()`` in the same cases."""
        interval, snapshot = self._readings.at_monotonic(ns, max_error_ns)
        self._attach_to(snapshot)
        return interval

    def _attach_to(self, snapshot: Snapshot) -> None:
        """Let the core read the page by itself for a second, as long as its marker is that of *snapshot*."""
        attachment = self._feed.attachment(snapshot)
        if attachment is not None:
            since = self._readings.note_marker(snapshot)
            self._attach(
                attachment.page,
                attachment.fence,
                attachment.identity,
                since.marker,
                since.counter,
                since.monotonic_ns,
                attachment.until,
            )


def _status(status: ClockStatus | str) -> int:
    if not isinstance(status, str):
        return operator.index(status)
    try:
        return ClockStatus[status.upper()]
    except KeyError:
        names = ", ".join(ClockStatus.__members__)
        raise ValueError(f"no clock_status is called {status!r}; take one of {names}") from None


@asynccontextmanager
async def open_clock(
    path: PathLike | None = None,
    *,
    max_age: float = 1000.0,
    fence: Fence = "auto",
    max_drift_ppm: float | None = None,
    trust_writable: bool = False,
    on_restore: OnRestore | Iterable[OnRestore] = (),
    wait: bool = False,
) -> AsyncIterator[Clock]:
    """A ``Clock`` for the length of the block, opened without blocking the loop.

    Args:
        path: see ``Clock``.
        max_age: see ``Clock``.
        fence: see ``Clock``.
        max_drift_ppm: see ``Clock``.
        trust_writable: see ``Clock``.
        on_restore: one callback of ``Clock.on_restore``, or several in a list.
        wait: whether to wait for a segment that is not there, or in which nothing is committed yet. Without a path it
            may come at any of the places where readers look. It waits neither for a missing *fence* nor for a time:
            once the block begins, ``Clock.wait_bounded`` and ``Clock.wait_status`` do that. Cancelling leaves nothing
            open; to put a limit around the wait, use ``anyio.fail_after``.

    Raises:
        SegmentError, CounterNotSupportedError, ValueError: as for ``Clock``. With *wait*, SegmentNotInitializedError
            only if the *fence* is missing.
        TypeError: one of *on_restore* is no async function; the message names it.
    """
    callbacks = Incarnation.callbacks_in([on_restore])
    place = None if path is None else absolute(path)  # now, because the working directory may change during a wait
    opened = partial(
        Clock, place, max_age=max_age, fence=fence, max_drift_ppm=max_drift_ppm, trust_writable=trust_writable
    )
    opening: Awaitable[Clock]
    if wait:
        from vmclock_async._reading.arrival import until_there  # here, because the command now does without it

        opening = until_there(place, partial(anyio.to_thread.run_sync, opened), fence=fence)
    else:
        opening = anyio.to_thread.run_sync(opened)
    with await opening as clock:
        async with clock.on_restore(*callbacks):
            yield clock
