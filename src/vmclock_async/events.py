"""What happened between two snapshots of a segment.

Events are derived from differences, so a disruption, a restore or a replacement is never missed, however long nobody
looked: a marker that moved twice is one ``Disrupted``. A status or notice that appears and disappears between two
looks is missed.
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Self, final

import anyio
import anyio.lowlevel

from vmclock_async._belonging import OfThisProcess
from vmclock_async._reading.waiting import Waiting
from vmclock_async.abi import ClockStatus, Flags, LeapIndicator, shows_restore
from vmclock_async.models import Snapshot

__all__ = (
    "Disrupted",
    "Event",
    "EventStream",
    "LeapAnnounced",
    "MaintenanceAnnounced",
    "Restored",
    "SegmentReplaced",
    "StatusChanged",
    "events_between",
    "open_events",
)


@final
@dataclass(frozen=True, slots=True)
class Disrupted:
    """The counter was disrupted by a migration, a restore or a suspend. Earlier times mean nothing now."""

    marker_before: int
    marker_after: int
    snapshot: Snapshot = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class Restored:
    """The machine was restored from a snapshot: other machines may have been restored from the same one."""

    generation_before: int | None
    """None: the page had no generation counter before this restore."""
    generation_after: int
    snapshot: Snapshot = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class StatusChanged:
    """clock_status changed."""

    before: ClockStatus | int
    after: ClockStatus | int
    snapshot: Snapshot = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class MaintenanceAnnounced:
    """A disruption is planned: within about an hour if `imminent`, else within about a day."""

    imminent: bool
    snapshot: Snapshot = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class LeapAnnounced:
    """The leap indicator changed to a value other than NONE."""

    indicator: LeapIndicator | int
    snapshot: Snapshot = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class SegmentReplaced:
    """The path leads to another file than before."""

    snapshot: Snapshot = field(repr=False)


Event = Disrupted | Restored | StatusChanged | MaintenanceAnnounced | LeapAnnounced | SegmentReplaced


_IMMINENT: Final = int(Flags.DISRUPTION_IMMINENT)
_ANNOUNCED: Final = int(Flags.DISRUPTION_SOON) | _IMMINENT


def events_between(before: Snapshot, after: Snapshot) -> tuple[Event, ...]:
    """What happened from *before* to *after*, the gravest first.

    Both must come from one clock or reader: ``Snapshot.opened``, which each counts for itself, shows a replacement.
    """
    return _events_between(before, after, before.body.vm_generation_counter)


def _events_between(before: Snapshot, after: Snapshot, generation_before: int | None) -> tuple[Event, ...]:
    events: list[Event] = []
    old, new = before.body, after.body
    if before.opened != after.opened:
        events.append(SegmentReplaced(after))
    if old.disruption_marker != new.disruption_marker:
        events.append(Disrupted(old.disruption_marker, new.disruption_marker, after))
    generation = new.vm_generation_counter
    if generation is not None and shows_restore(
        generation_before, old.disruption_marker, generation, new.disruption_marker
    ):
        events.append(Restored(generation_before, generation, after))
    if old.clock_status != new.clock_status:
        events.append(StatusChanged(old.clock_status, new.clock_status, after))
    raised = int(new.flags) & ~int(old.flags)  # an IntFlag's own operators cost microseconds
    if raised & _ANNOUNCED:
        events.append(MaintenanceAnnounced(bool(raised & _IMMINENT), after))
    if old.leap_indicator != new.leap_indicator != LeapIndicator.NONE:
        events.append(LeapAnnounced(new.leap_indicator, after))
    return tuple(events)


@final
class EventStream(OfThisProcess):
    """The events of one clock's segment, for one task: ``async for event in events``; see ``Clock.events``."""

    _instead = "open a clock there, and take its events()"

    def __init__(self, waiting: Waiting, seen: Snapshot) -> None:
        self._waiting: Final = waiting
        self._seen = seen
        self._generation = seen.body.vm_generation_counter
        """The last generation that the page had."""
        self._pending: Final[deque[Event]] = deque()

    @property
    def snapshot(self) -> Snapshot:
        """The page as last seen; at first the one from which events begin, which may announce maintenance already."""
        return self._seen

    async def receive(self) -> Event:
        """Wait for the next event and return it. Cancelling loses none.

        While the segment is missing, starts over, or was left half written by a writer that died, this waits on.

        Raises:
            SegmentError: what is there now is no segment, or the clock is closed.
        """
        await anyio.lowlevel.checkpoint()
        while not self._pending:
            snapshot = await self._waiting.next(self._seen)
            # A page may lack its generation for a while, and no two snapshots show a restore in that time.
            self._pending.extend(_events_between(self._seen, snapshot, self._generation))
            if snapshot.body.vm_generation_counter is not None:
                self._generation = snapshot.body.vm_generation_counter
            self._seen = snapshot
        return self._pending.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The same as ``receive``; there is no last event."""
        return await self.receive()


@asynccontextmanager
async def open_events(waiting: Waiting) -> AsyncIterator[EventStream]:
    """The events from now on."""
    snapshot, _ = await waiting.sample_patiently()
    yield EventStream(waiting, snapshot)
