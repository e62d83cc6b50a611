"""The real feed: a segment, the device that fences it, and this machine's counter."""

import errno
import logging
import math
import os
import time
from typing import Final, Literal, final

import anyio

from vmclock_async import _core
from vmclock_async._reading.feed import Attachment, Witness
from vmclock_async._segment.account import Account, recorded_account
from vmclock_async._segment.reader import TIMER_S
from vmclock_async._segment.time_source import TimeSource, recorded_time_source
from vmclock_async._timebase.continuity import RecentClocksource, counter_distrusted_because
from vmclock_async.errors import ClockDisruptedError, SegmentError, SegmentNotInitializedError, VMClockError
from vmclock_async.models import Snapshot
from vmclock_async.segment import SegmentReader, SegmentReaderStatistics
from vmclock_async.timebase import COUNTER_ID, pair

__all__ = ("Fence", "PathLike", "SegmentFeed")

DEVICE: Final = "/dev/vmclock0"
_NOT_FOR_US: Final = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM)
"""Errors of a device that is missing, has no driver, or may not be read by this user."""
_FENCE_POLL_S: Final = 0.05
"""Poll interval for the fence's marker, because no commit wakes a task when it moves."""

_log: Final = logging.getLogger("vmclock_async.clock")

PathLike = str | os.PathLike[str]
Fence = Literal["auto"] | PathLike | None


@final
class SegmentFeed:
    """The segment at *path* with its *fence*, read in terms of this machine's counter.

    Arguments and errors are those of ``Clock``.
    """

    counter_id = COUNTER_ID

    def __init__(self, path: PathLike, *, fence: Fence, trust_writable: bool) -> None:
        self._clocksource: Final = RecentClocksource()
        self._reader: Final = SegmentReader(path, trust_writable=trust_writable)
        self._page_of_this_boot: _core.Page | None = None
        self._closed = False
        try:
            self._fence: Final = _open_fence(fence, self._reader, trust_writable)
        except BaseException:
            self._reader.close()
            raise

    @property
    def path(self) -> str:
        return self._reader.path

    @property
    def fenced(self) -> bool:
        return self._fence is not None or self._reader.is_device

    def counter_ticks(self) -> int:
        return _core.counter()

    def stamps(self) -> tuple[int, int]:
        return _core.counter(), time.monotonic_ns()

    def pair_monotonic(self) -> tuple[int, int, int]:
        paired = pair(time.CLOCK_MONOTONIC)
        # A tick takes less than a nanosecond, or the window is a few longer ticks: a microsecond is ample.
        return paired.counter_ticks, paired.clock_ns, paired.window_ticks + 1000

    def sample(self, limit_s: float) -> tuple[Snapshot, int]:
        self._require_open()
        self._reader._reopen_if_replaced()
        if self._fence is not None:
            self._fence._reopen_if_replaced()
        return self._reader._sample_within(limit_s)

    def counter_within(self, snapshot: Snapshot) -> int | None:
        try:
            sample = self._reader._attempt_with_counter()
        except VMClockError:
            return None
        return sample[1] if sample is not None and sample[0] == snapshot else None

    def fence_marker(self) -> int | None:
        self._require_open()
        return None if self._fence is None else self._fence.disruption_marker

    def fence_generation(self, limit_s: float) -> int | None:
        self._require_open()
        if self._fence is None:
            return None
        return self._fence._sample_within(limit_s)[0].body.vm_generation_counter

    def unfit_because(self, snapshot: Snapshot, limit_s: float) -> str | None:
        # Asked again and again: early in a boot the clocksource may be only the first, and later the kernel may lose
        # its trust in the counter.
        distrusted = counter_distrusted_because(self._clocksource) and counter_distrusted_because()
        return None if distrusted is None or self._is_vouched_for(snapshot, limit_s) else distrusted

    def _is_vouched_for(self, snapshot: Snapshot, limit_s: float) -> bool:
        """Whether a device gives the time in terms of this counter: its hypervisor knows more than this guest."""
        device = snapshot if self._reader.is_device else None
        if self._fence is not None:
            device, _ = self._fence._sample_within(limit_s)
        return device is not None and device.counter_id == COUNTER_ID and device.body.counter_period_frac_sec > 0

    def require_this_boot(self) -> None:
        page = self._reader._page
        if page is self._page_of_this_boot:
            return
        if self._reader.is_device or self._reader.of_this_boot:
            if page is self._reader._page:  # otherwise another thread has moved to another page meanwhile
                self._page_of_this_boot = page
        else:
            raise ClockDisruptedError(
                f"{self.path} was written before this machine booted, or its clock was set since; wait for a new "
                "commit: is its publisher running?"
            )

    def time_source(self) -> TimeSource | None:
        """Where the time comes from; None if nothing says so."""
        if self._reader.is_device:
            return TimeSource("the device", rests_on_system_clock=False)
        return recorded_time_source(self._reader._page.fileno())

    def account(self) -> Account | None:
        """The publisher's account of a bound; None if it keeps none. It may be of another body."""
        return None if self._reader.is_device else recorded_account(self._reader._page.fileno())

    def require_in_place(self) -> None:
        if self._reader.is_replaced():
            raise SegmentError(self.path, "the segment was replaced by another, or removed")

    def require_fence_in_place(self) -> None:
        # The page of a device is the hypervisor's memory, and says what it has to say whatever happens to the path.
        if self._fence is not None and self._fence.is_deleted():
            raise ClockDisruptedError(
                f"the fence, {self._fence.path}, was deleted, so nothing shows a disruption at once any more; put it "
                "back, or open the clock with another fence, or with None"
            )

    def attachment(self, snapshot: Snapshot) -> Attachment | None:
        """The mapped page, for a second.

        Then the clock asks here again whether the path still leads to this page: a publisher may have begun another.
        """
        page = self._reader._page
        body = snapshot.body
        if page is not self._page_of_this_boot or not body.counter_period_frac_sec:
            return None
        second = (2 ** (64 + body.counter_period_shift)) // body.counter_period_frac_sec
        until = (_core.counter() + min(second, 2**62)) % 2**64
        fence = None if self._fence is None else self._fence._page
        return Attachment(page, fence, snapshot.size << 32 | snapshot.magic, until)

    def witness(self) -> Witness | None:
        page, fence = self._reader._page, None if self._fence is None else self._fence._page
        try:
            device = (0, 0) if fence is None else (fence.control_word, fence.disruption_marker)
            return Witness(page, page.control_word, fence, *device)
        except ValueError:  # another thread has closed it meanwhile
            return None

    async def next(self, seen: Snapshot) -> Snapshot:
        while (snapshot := await self.wait(seen, math.inf)) is None:
            continue
        return snapshot

    async def wait(self, seen: Snapshot, timeout: float, *, fence_seen: int | None = None) -> Snapshot | None:
        now = anyio.current_time()
        end = now + timeout
        try:
            while True:
                until = end if fence_seen is None else min(end, now + _FENCE_POLL_S)
                if (snapshot := await self._reader._wait_changed_until(until, seen)) is not None:
                    return snapshot
                if fence_seen is not None and self.fence_marker() != fence_seen:
                    return None
                if (now := anyio.current_time()) > end - TIMER_S:
                    return None
        except SegmentError:
            self._require_open()  # without this the message would say that the reader is closed
            raise

    def statistics(self) -> SegmentReaderStatistics:
        return self._reader.statistics()

    def close(self) -> None:
        self._reader.close()
        self._closed = True
        if self._fence is not None:
            self._fence.close()

    def _require_open(self) -> None:
        if self._closed:
            raise SegmentError(self.path, "the clock is closed")


def _open_fence(fence: Fence, reader: SegmentReader, trust_writable: bool) -> SegmentReader | None:
    if fence is None or reader.is_device:
        return None
    if fence != "auto":
        try:
            return SegmentReader(fence, trust_writable=trust_writable)
        except SegmentNotInitializedError as exc:
            reason = "nothing is there that could be the fence; check its path, or leave it out"
            raise SegmentNotInitializedError(exc.path, reason) from exc
    try:
        return SegmentReader(DEVICE)
    except SegmentError as exc:
        if not (isinstance(exc.__cause__, OSError) and exc.__cause__.errno in _NOT_FOR_US):
            _log.warning("%s; passed over: the clock of %s has no fence", exc, reader.path)
        return None
