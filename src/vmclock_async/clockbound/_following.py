"""Keeping ClockBound's segments by a clock: a bound is written again whenever it may have changed.

That is at each commit of the clock's segment, when the device's marker moves, when CLOCK_REALTIME is set, and otherwise
after an interval, because the bound grows by the greatest slew that there may be. ``_widening`` has the arithmetic.

A step of CLOCK_REALTIME is noticed at once, but "at once" takes a fraction of a millisecond, or longer where the
processor is busy. What a client reads before the commit that follows does not contain the step.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Final, NamedTuple, final

import anyio
import anyio.lowlevel
import anyio.to_thread

from vmclock_async._paths import absolute
from vmclock_async._reading.background import beside
from vmclock_async._reading.readings import age_ns
from vmclock_async._reading.segment_feed import SegmentFeed
from vmclock_async.abi import ClockStatus
from vmclock_async.clock import Clock
from vmclock_async.clockbound._layout import ErrorBound, ErrorBoundStatus, Layout
from vmclock_async.clockbound._steps import Steps
from vmclock_async.clockbound._widening import (
    Instant,
    bound_ns,
    leap_ns,
    max_drift_ppb,
    void_after_ns,
)
from vmclock_async.clockbound._writing import UNKNOWN_BOUND, ErrorBoundWriter
from vmclock_async.errors import (
    ClockError,
    SegmentError,
    SegmentNotInitializedError,
    SegmentUnstableError,
)
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import announced_leap_ns, maxerror_rate
from vmclock_async.timebase import LARGEST_CORRECTION_PPB

__all__ = ("SOURCE", "ErrorBoundFollower", "Followed", "SystemClocks")

SOURCE: Final = "clockbound"
"""Name of the source that reads ClockBound's segments."""
_MONOTONIC_COARSE: Final = 6
"""CLOCK_MONOTONIC_COARSE of ``include/uapi/linux/time.h``, which the module time has no name for."""
_TRIES: Final = 3
_SHORTEST_S: Final = 0.005
"""Least time between two commits of bounds, so that the generation does not come round within a client's use of one."""
_POLL_WHILE_MISSING_S: Final = 0.05
_LAYOUTS: Final = (Layout.V2,)
_STATUSES: Final = {
    ClockStatus.SYNCHRONIZED: ErrorBoundStatus.SYNCHRONIZED,
    ClockStatus.FREERUNNING: ErrorBoundStatus.FREERUNNING,
}


class SystemClocks:
    """The system's clocks; a test may play others by overriding methods."""

    lag_ns: int = int(time.clock_getres(_MONOTONIC_COARSE) * 10**9) + 1
    """Longest time between two ticks of CLOCK_MONOTONIC_COARSE."""

    def realtime_ns(self) -> int:
        """CLOCK_REALTIME."""
        return time.clock_gettime_ns(time.CLOCK_REALTIME)

    def coarse_ns(self) -> int:
        """CLOCK_MONOTONIC_COARSE."""
        return time.clock_gettime_ns(_MONOTONIC_COARSE)


class Followed(NamedTuple):
    """What was written for ClockBound's clients."""

    bound: ErrorBound
    reason: str | None
    """Why nothing is bounded, and the remedy; None if something is."""


class _Look(NamedTuple):
    followed: Followed
    snapshot: Snapshot
    fence: int | None
    """The fence's marker, from before the look."""


@final
class ErrorBoundFollower:
    """Keeps ClockBound's segments in *directory* by *clock*, so that ClockBound's own clients read its time.

    Args:
        clock: a clock of a segment or of the device. Where it has a fence, or reads the device, the device's marker is
            written too, and clients compare it with their own look at the device, which they must be able to read.
        directory: where the segments are or will be; ClockBound's clients read ``/var/run/clockbound``.
        layouts: layouts to write, each in its file.
        max_slew_ppm: greatest rate, in parts per million, by which daemons of this machine slew CLOCK_REALTIME, 0 to
            400,000; an oscillator's 500 ppm are added. None: a tenth and 500 ppm, which no known daemon exceeds; the
            bound then grows by a ninth of the time since the last update.
        interval: longest time, in seconds, between two updates, 0.005 to 1.
        on_change: called with what was written, when its status changes.
        clocks: the system's clocks.

    Raises:
        SegmentError: *clock* is played, so its time is not this machine's; or *directory* cannot be a path.
        ValueError: *max_slew_ppm* or *interval* is out of range.
    """

    def __init__(
        self,
        clock: Clock,
        directory: str | os.PathLike[str],
        *,
        layouts: Iterable[Layout] = _LAYOUTS,
        max_slew_ppm: int | None = None,
        interval: float = 0.1,
        on_change: Callable[[Followed], object] = lambda followed: None,
        clocks: SystemClocks | None = None,
    ) -> None:
        if max_slew_ppm is not None and not 0 <= max_slew_ppm <= 400_000:
            raise ValueError(f"max_slew_ppm must be from 0 to 400,000, not {max_slew_ppm}")
        if not _SHORTEST_S <= interval <= 1:
            raise ValueError(f"interval must be from {_SHORTEST_S} s to 1 s, not {interval}")
        if not isinstance(clock._feed, SegmentFeed):
            raise SegmentError(clock.path, "it is played, and its time is not this machine's; take a real clock")
        self.directory: Final = absolute(directory)
        self._clock: Final = clock
        self._feed: Final = clock._feed
        self._waiting: Final = clock._waiting
        self._layouts: Final = tuple(layouts)
        self._slew_ppb: Final = LARGEST_CORRECTION_PPB if max_slew_ppm is None else max_slew_ppm * 1000
        self._interval: Final = interval
        self._on_change: Final = on_change
        self._clocks: Final = clocks or SystemClocks()
        self._writers: list[ErrorBoundWriter] = []
        self._status: ErrorBoundStatus | None = None
        """The status last reported."""

    async def run(self) -> None:
        """Follow, until cancelled. At the end, however it comes, clients read UNKNOWN.

        While the clock's segment is missing, starts over, or was left half written, this waits on.

        Raises:
            SegmentInUseError: another program writes ClockBound's segment.
            SegmentError: its file cannot be written; what is at the clock's path is no segment; or the segment's time
                comes from ClockBound's.
        """
        self._require_no_circle()
        with ExitStack() as stack:
            steps = stack.enter_context(Steps())
            await anyio.to_thread.run_sync(self._open, stack)
            async with beside(partial(self._rewrite_after, steps)):
                await self._follow()

    def _open(self, stack: ExitStack) -> None:
        for layout in self._layouts:
            writer = ErrorBoundWriter(f"{self.directory}/{layout.file_name}", layout=layout)
            stack.callback(self._leave, writer)
            self._writers.append(writer)

    def _leave(self, writer: ErrorBoundWriter) -> None:
        """Take back what *writer* has said, and close it: nobody keeps the promise from now on."""
        self._writers.remove(writer)
        self._status = None
        writer.withdraw()
        writer.close()

    async def _follow(self) -> None:
        while True:
            try:
                look = await self._waiting.patiently(self._update)
            except (SegmentNotInitializedError, SegmentUnstableError) as exc:
                self._write(Followed(UNKNOWN_BOUND, exc.reason))
                await anyio.sleep(_POLL_WHILE_MISSING_S)
                continue
            except SegmentError:
                await anyio.lowlevel.checkpoint_if_cancelled()  # the clock may be closed in the same turn
                raise
            await self._wait(look)

    async def _wait(self, look: _Look) -> None:
        """Return once what was written after *look* may be wrong, or might be better."""
        began = anyio.current_time()
        body, left = look.snapshot.body, self._interval
        seen: Snapshot | None = look.snapshot
        while seen is not None and left > 0:
            seen = await self._feed.wait(seen, left, fence_seen=look.fence)
            if seen is None or seen.opened != look.snapshot.opened:
                return
            if (seen.body.disruption_marker, seen.body.clock_status) != (
                body.disruption_marker,
                body.clock_status,
            ):
                return
            left = began + _SHORTEST_S - anyio.current_time()

    async def _rewrite_after(self, steps: Steps) -> None:
        while True:
            await steps.wait()
            try:
                self._update()
            except (SegmentNotInitializedError, SegmentUnstableError) as exc:
                self._write(Followed(UNKNOWN_BOUND, exc.reason))

    def _update(self) -> _Look:
        look = self._look()
        self._write(look.followed)
        return look

    def _write(self, followed: Followed) -> None:
        for writer in self._writers:
            writer.write(followed.bound)
        if followed.bound.status != self._status:
            self._status = followed.bound.status
            self._on_change(followed)

    def _look(self) -> _Look:
        """What to write now. It does not wait.

        Raises:
            SegmentError: there is no snapshot, or its time comes from ClockBound's segment.
        """
        fence = device = self._feed.fence_marker()
        as_of_ns, ticks, before_ns = (
            self._clocks.coarse_ns(),
            self._feed.counter_ticks(),
            self._clocks.realtime_ns(),
        )
        snapshot, counter = self._waiting.readings.sample(0)
        self._require_no_circle()
        if fence is None and self._feed.fenced:
            device = snapshot.body.disruption_marker  # the clock reads the device itself
        marked = replace(UNKNOWN_BOUND, disruption_marker=device or 0, detects_disruptions=device is not None)
        try:
            self._feed.require_in_place()
        except SegmentError as exc:  # nobody would report a disruption there
            return _Look(Followed(marked, exc.reason), snapshot, fence)
        try:
            interval = self._waiting.readings.interval(snapshot, counter, None, limit_s=0)
            instant = Instant(as_of_ns, before_ns, interval, self._clocks.realtime_ns())
            instant, ticks, counter = self._tightest(instant, ticks, snapshot, counter)
        except ClockError as exc:
            return _Look(Followed(marked, exc.reason), snapshot, fence)
        return _Look(self._followed(marked, instant, ticks, snapshot, counter), snapshot, fence)

    def _tightest(self, slow: Instant, ticks: int, snapshot: Snapshot, counter: int) -> tuple[Instant, int, int]:
        """The tightest of a few instants of *snapshot*, the counter before it, and a later counter.

        *slow* is the one that there is already. The core gives the others in a tenth of its time.
        """
        found = [(slow, ticks)]
        with suppress(SegmentError):
            for _ in range(_TRIES):
                as_of_ns, ticks = self._clocks.coarse_ns(), self._feed.counter_ticks()
                before_ns = self._clocks.realtime_ns()
                interval = self._clock.now()
                found.append((Instant(as_of_ns, before_ns, interval, self._clocks.realtime_ns()), ticks))
            after, counter_after = self._waiting.readings.sample(0)
            if after == snapshot:
                instant, ticks = min(found, key=lambda each: each[0].window_ns)
                return instant, ticks, counter_after
        return *found[0], counter

    def _followed(
        self, marked: ErrorBound, instant: Instant, ticks: int, snapshot: Snapshot, counter: int
    ) -> Followed:
        body = snapshot.body
        counter_off = Fraction(maxerror_rate(body, self._waiting.readings.drift_ppb), body.counter_period_frac_sec)
        drift_ppb = max_drift_ppb(self._slew_ppb, counter_off)
        if drift_ppb is None:
            parts = float(counter_off) * 10**6
            return Followed(
                marked,
                f"the segment says that the counter's rate may be off by {parts:.6g} ppm, for which ClockBound's "
                "segment has no room; wait for a better measurement",
            )
        off_ns = bound_ns(instant, drift_ppb, self._clocks.lag_ns)
        off_ns += leap_ns(instant.interval, announced_leap_ns(snapshot))
        if off_ns >= UNKNOWN_BOUND.bound_ns:
            return Followed(marked, "CLOCK_REALTIME is more than 31 years off; set it")
        left_ns = int(self._clock.max_age * 10**9) - age_ns(snapshot, counter) - 1
        tick_s = Fraction(body.counter_period_frac_sec, 2 ** (64 + body.counter_period_shift))
        return Followed(
            replace(
                marked,
                as_of_ns=instant.as_of_ns,
                void_after_ns=void_after_ns(instant.as_of_ns, left_ns),
                bound_ns=off_ns,
                max_drift_ppb=drift_ppb,
                status=_STATUSES[ClockStatus(instant.interval.status)],
                counter_ticks=ticks,
                tick_s=float(tick_s),
                tick_error_s=float(tick_s * counter_off),
            ),
            None,
        )

    def _require_no_circle(self) -> None:
        source = self._feed.time_source()
        if source is not None and source.name == SOURCE:
            raise SegmentError(
                self._clock.path,
                f"its time comes from the source {SOURCE}, so that ClockBound's segment would be made from itself; "
                "publish another source of time, or do not follow it",
            )
