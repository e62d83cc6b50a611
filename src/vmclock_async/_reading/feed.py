"""The interface through which a clock reads: a segment and its fence, a page that a test plays, or a recording.

A ``Clock`` is one class. Where its pages, its counter and its time come from is a ``Feed``; ``SegmentFeed`` is the
real one. A feed answers questions about this moment and waits for the next page; it computes no interval.
"""

from typing import NamedTuple, Protocol

from vmclock_async import _core
from vmclock_async.abi import CounterId
from vmclock_async.models import Snapshot
from vmclock_async.segment import SegmentReaderStatistics

__all__ = ("Attachment", "Feed", "Witness")


class Attachment(NamedTuple):
    """What the core may read by itself, for at most a second, without asking the feed."""

    page: _core.Page
    fence: _core.Page | None
    identity: int
    """The page's first eight bytes as a number: magic and size."""
    until: int
    """The counter value from which the core asks again."""


class Witness(NamedTuple):
    """The pages as they were before a read: the first arguments of ``_core.unchanged``."""

    page: _core.Page
    control_word: int
    fence: _core.Page | None
    fence_control_word: int
    """The fence's control word; 0 without a fence."""
    fence_marker: int
    """The fence's marker; 0 without a fence."""


class Feed(Protocol):
    """The source of a clock's pages, counter and time."""

    @property
    def path(self) -> str:
        """The path of the segment, for messages."""

    @property
    def fenced(self) -> bool:
        """Whether a disruption that the device reports ends readings at once, whatever the publisher does."""

    @property
    def counter_id(self) -> CounterId:
        """The counter that ``counter_ticks`` reads."""

    def counter_ticks(self) -> int:
        """The raw counter at this moment."""

    def stamps(self) -> tuple[int, int]:
        """The counter, and CLOCK_MONOTONIC in nanoseconds, at this moment or a little later."""

    def pair_monotonic(self) -> tuple[int, int, int]:
        """The counter, CLOCK_MONOTONIC in nanoseconds, and the width of the window between them in nanoseconds."""

    def sample(self, limit_s: float) -> tuple[Snapshot, int]:
        """A snapshot and the counter read within it. Waits at most *limit_s* seconds; with 0 it does not wait.

        Raises:
            SegmentError: there is no snapshot.
        """

    def counter_within(self, snapshot: Snapshot) -> int | None:
        """The counter at this moment, if *snapshot* is still the page; None if not, or if neither can be read."""

    def fence_marker(self) -> int | None:
        """The disruption marker of the device at this moment; None without a fence.

        Raises:
            SegmentError: the clock is closed.
        """

    def fence_generation(self, limit_s: float) -> int | None:
        """The generation counter of the device at this moment; None if there is none. Waits as ``sample`` does.

        Raises:
            SegmentUnstableError: the device's page is being written, and the update does not end.
        """

    def unfit_because(self, snapshot: Snapshot, limit_s: float) -> str | None:
        """Why the counter is unreliable although *snapshot* is in its terms; None if nothing is known against it.

        It may read the device, and waits as ``sample`` does.

        Raises:
            SegmentUnstableError: the device's page is being written, and the update does not end.
        """

    def require_this_boot(self) -> None:
        """Raise ``ClockDisruptedError`` if the page was written before this machine booted."""

    def require_in_place(self) -> None:
        """Raise ``SegmentError`` if the path leads to another segment than the one that is read."""

    def require_fence_in_place(self) -> None:
        """Raise ``ClockDisruptedError`` if the fence is a file that was deleted: it shows no disruption any more."""

    def attachment(self, snapshot: Snapshot) -> Attachment | None:
        """What the core may read by itself while the page has the marker of *snapshot*; None: nothing."""

    def witness(self) -> Witness | None:
        """The pages as they are at this moment; None if the core cannot see whether they change."""

    async def next(self, seen: Snapshot) -> Snapshot:
        """The next page after *seen*.

        Raises:
            SegmentError: what is there is no segment, or the clock is closed.
        """

    async def wait(self, seen: Snapshot, timeout: float, *, fence_seen: int | None = None) -> Snapshot | None:
        """The next page after *seen*; None after *timeout* seconds without one.

        Returns None also once the device's marker differs from *fence_seen*, if that is given.

        Raises:
            SegmentError: what is there is no segment, or the clock is closed.
        """

    def statistics(self) -> SegmentReaderStatistics:
        """How tasks have waited so far."""

    def close(self) -> None:
        """Stop reading; waiting tasks get a ``SegmentError``."""
