"""What a clock reads from: a segment and its fence, a page that a test plays, or a recording.

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
    """What the core may read by itself, without asking here, for a second at most."""

    page: _core.Page
    fence: _core.Page | None
    identity: int
    """The page's first eight bytes as a number: magic and size."""
    until: int
    """The counter value from which on the core asks again."""


class Witness(NamedTuple):
    """The pages as they were before a look: the first arguments of ``_core.unchanged``."""

    page: _core.Page
    control_word: int
    fence: _core.Page | None
    fence_control_word: int
    """0 without a fence."""
    fence_marker: int
    """The same."""


class Feed(Protocol):
    """What a clock is read from."""

    @property
    def path(self) -> str:
        """The path of the segment, for messages."""

    @property
    def fenced(self) -> bool:
        """Whether a disruption that the device reports ends readings at once, whatever the publisher does."""

    @property
    def counter_id(self) -> CounterId:
        """The counter of ``counter_ticks``."""

    def counter_ticks(self) -> int:
        """The raw counter at this moment."""

    def stamps(self) -> tuple[int, int]:
        """The counter, and CLOCK_MONOTONIC in nanoseconds, at this moment or a little later."""

    def pair_monotonic(self) -> tuple[int, int, int]:
        """The counter, CLOCK_MONOTONIC in nanoseconds, and the width of the window between them in nanoseconds."""

    def sample(self, limit_s: float) -> tuple[Snapshot, int]:
        """A snapshot and the counter read within it; it waits *limit_s* seconds at most, and with 0 not at all.

        Raises:
            SegmentError: there is none.
        """

    def fence_marker(self) -> int | None:
        """The disruption marker of the device at this moment; None without a fence.

        Raises:
            SegmentError: the clock is closed.
        """

    def fence_generation(self) -> int | None:
        """The generation counter of the device at this moment; None where there is none.

        Raises:
            SegmentUnstableError: the device's page is being written, and that does not end.
        """

    def unfit_because(self, snapshot: Snapshot) -> str | None:
        """Why the counter cannot be relied on, though *snapshot* is in its terms; None where nothing says so."""

    def require_this_boot(self) -> None:
        """Raise ``ClockDisruptedError`` where the page was written before this machine booted."""

    def require_in_place(self) -> None:
        """Raise ``SegmentError`` where the path leads to another segment than the one that is read."""

    def attachment(self, snapshot: Snapshot) -> Attachment | None:
        """What the core may read by itself while the page has the marker of *snapshot*; None: nothing."""

    def witness(self) -> Witness | None:
        """The pages as they are at this moment; None where the core cannot tell whether they change."""

    async def next(self, seen: Snapshot) -> Snapshot:
        """The next page after *seen*.

        Raises:
            SegmentError: what is there is no segment, or the clock is closed.
        """

    async def wait(self, seen: Snapshot, timeout: float, *, fence_seen: int | None = None) -> Snapshot | None:
        """The next page after *seen*; None after *timeout* seconds without one.

        Where *fence_seen* is given, None also once the device's marker is another.

        Raises:
            SegmentError: what is there is no segment, or the clock is closed.
        """

    def statistics(self) -> SegmentReaderStatistics:
        """How tasks have been waiting so far."""

    def close(self) -> None:
        """Read nothing any more; tasks that wait get a ``SegmentError``."""
