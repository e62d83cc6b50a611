"""A feed in memory and in virtual time: the base of a played page and of a recording."""

from abc import ABC, abstractmethod
from typing import Final

import anyio.lowlevel

from vmclock_async._reading.feed import Attachment, Witness
from vmclock_async._reading.virtual_time import VirtualTime
from vmclock_async.errors import SegmentError, SegmentUnstableError
from vmclock_async.models import Snapshot
from vmclock_async.segment import SegmentReaderStatistics

__all__ = ("VirtualFeed",)

_LONGEST_WAIT_NS: Final = 60 * 10**9


class VirtualFeed(ABC):
    """Pages that follow each other in virtual time. The core reads none of them by itself.

    A derived class gives the present page, the counter, and the time until the next page.
    """

    def __init__(self, path: str, time: VirtualTime) -> None:
        self.path: Final = path
        self.time: Final = time
        self._closed = False

    @abstractmethod
    def page_now(self) -> tuple[Snapshot, bool]:
        """The page at this moment, and whether it is whole (no commit is in progress)."""

    @abstractmethod
    def counter_ticks(self) -> int:
        """The raw counter at this moment."""

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC at this moment: virtual time."""
        return self.time.elapsed_ns

    def page_after(self, seen: Snapshot) -> Snapshot | None:
        """The page after *seen*, if it has come."""
        snapshot, is_whole = self.page_now()
        return snapshot if is_whole and snapshot != seen else None

    def ns_to_next_page(self) -> int:
        """Nanoseconds until the next page comes by itself."""
        return _LONGEST_WAIT_NS

    def stamps(self) -> tuple[int, int]:
        return self.counter_ticks(), self.monotonic_ns()

    def pair_monotonic(self) -> tuple[int, int, int]:
        return self.counter_ticks(), self.monotonic_ns(), 0

    def sample(self, limit_s: float) -> tuple[Snapshot, int]:
        self.require_in_place()
        snapshot, is_whole = self.page_now()
        if not is_whole:
            number = snapshot.seq_count | 1
            reason = f"seq_count stays odd at {number}: its writer died in mid-update; start it again"
            raise SegmentUnstableError(self.path, reason, number)
        return snapshot, self.counter_ticks()

    def counter_within(self, snapshot: Snapshot) -> int | None:
        try:
            present, counter = self.sample(0)
        except SegmentError:
            return None
        return counter if present == snapshot else None

    def fence_marker(self) -> int | None:
        return None

    def fence_generation(self, limit_s: float) -> int | None:
        return None

    def unfit_because(self, snapshot: Snapshot, limit_s: float) -> str | None:
        return None

    def require_this_boot(self) -> None:
        """Do nothing: a play has only one boot."""
        return

    def require_in_place(self) -> None:
        if self._closed:
            raise SegmentError(self.path, "the clock is closed")

    def require_fence_in_place(self) -> None:
        """Do nothing: a played device is not removed."""
        return

    def attachment(self, snapshot: Snapshot) -> Attachment | None:
        return None

    def witness(self) -> Witness | None:
        return None

    async def next(self, seen: Snapshot) -> Snapshot:
        while (snapshot := await self.wait(seen, _LONGEST_WAIT_NS / 10**9)) is None:
            continue
        return snapshot

    async def wait(self, seen: Snapshot, timeout: float, *, fence_seen: int | None = None) -> Snapshot | None:
        end_ns = self.time.elapsed_ns + round(timeout * 10**9)
        await anyio.lowlevel.checkpoint()
        while True:
            if self._closed:
                await anyio.lowlevel.checkpoint_if_cancelled()  # who cancels a task and then closes its clock
            self.require_in_place()
            if (snapshot := self.page_after(seen)) is not None:
                return snapshot
            left_ns = end_ns - self.time.elapsed_ns
            if left_ns <= 0 or (fence_seen is not None and fence_seen != self.fence_marker()):
                return None
            await self.time.sleep(min(left_ns, self.ns_to_next_page()))

    def statistics(self) -> SegmentReaderStatistics:
        return SegmentReaderStatistics(waits=self.time.waits, reopened=0, watching=True, polling_because=None)

    def close(self) -> None:
        self._closed = True
        self.time.wake()
