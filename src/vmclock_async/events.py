"""What happened to a segment.

Most events are derived from the difference of two snapshots, so a disruption, a restore or a replacement is never
missed, however long nobody looked: a marker that moved twice is one ``Disrupted``. A status or notice that appears and
disappears between two looks is missed.

``Unbounded`` and ``Bounded`` say when ``Clock.now`` begins to refuse, and when it gives a time again. They need no
commit: a publisher may have died, or the device may have reported a disruption. A bound that is lost and back between
two looks is missed, too.

Each event has the snapshot that showed it, a `name` ("restored", "unbounded"), and ``as_dict()``: one flat object for
JSON, with that name as "event".
"""

from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Self, final

import anyio
import anyio.lowlevel

from vmclock_async._reading.waiting import Look, Waiting
from vmclock_async._segment.belonging import OfThisProcess
from vmclock_async.abi import TELLS_TIME, ClockStatus, CounterId, Flags, LeapIndicator, name_of, shows_restore
from vmclock_async.errors import ClockError, SegmentUnstableError, VMClockError
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot, VMClockBody
from vmclock_async.reckoning import find_bounds

__all__ = (
    "Bounded",
    "Disrupted",
    "Event",
    "EventStream",
    "LeapAnnounced",
    "MaintenanceAnnounced",
    "Restored",
    "SegmentReplaced",
    "StatusChanged",
    "Unbounded",
    "bound_event",
    "events_between",
    "open_events",
)


class _Happening:
    """The part that all events share."""

    __slots__ = ()
    name: ClassVar[str]
    """The kind of event, as the command line and JSON have it."""

    def as_dict(self) -> dict[str, Any]:
        """The event as one flat object for JSON: its name as "event", then what it carries, without the snapshot."""
        return {"event": self.name, **self._fields()}

    def _fields(self) -> dict[str, Any]:
        return {}


@final
@dataclass(frozen=True, slots=True)
class Disrupted(_Happening):
    """The counter was disrupted by a migration, a restore or a suspend. Earlier times mean nothing now."""

    name: ClassVar[str] = "disrupted"
    marker_before: int
    marker_after: int
    jump_ns: int | None = field(default=None, kw_only=True, compare=False)
    """By how much the published time jumped, in nanoseconds (negative: back): the middle of the new interval minus that
    of the old one, at the new reference's counter value. None if one of the two snapshots gives no interval there."""
    snapshot: Snapshot = field(repr=False)

    def _fields(self) -> dict[str, Any]:
        return {"before": self.marker_before, "after": self.marker_after, "jump_ns": self.jump_ns}


@final
@dataclass(frozen=True, slots=True)
class Restored(_Happening):
    """The machine was restored from a snapshot: other machines may have been restored from the same one."""

    name: ClassVar[str] = "restored"
    generation_before: int | None
    """None: the page had no generation counter before this restore."""
    generation_after: int
    snapshot: Snapshot = field(repr=False)

    def _fields(self) -> dict[str, Any]:
        return {"before": self.generation_before, "after": self.generation_after}


@final
@dataclass(frozen=True, slots=True)
class StatusChanged(_Happening):
    """clock_status changed."""

    name: ClassVar[str] = "status"
    before: ClockStatus | int
    after: ClockStatus | int
    snapshot: Snapshot = field(repr=False)

    def _fields(self) -> dict[str, Any]:
        return {"before": name_of(self.before), "after": name_of(self.after)}


@final
@dataclass(frozen=True, slots=True)
class MaintenanceAnnounced(_Happening):
    """A disruption is planned: within about an hour if `imminent`, else within about a day."""

    name: ClassVar[str] = "maintenance"
    imminent: bool
    snapshot: Snapshot = field(repr=False)

    def _fields(self) -> dict[str, Any]:
        return {"imminent": self.imminent}


@final
@dataclass(frozen=True, slots=True)
class LeapAnnounced(_Happening):
    """The leap indicator changed to a value other than NONE."""

    name: ClassVar[str] = "leap"
    indicator: LeapIndicator | int
    snapshot: Snapshot = field(repr=False)

    def _fields(self) -> dict[str, Any]:
        return {"indicator": name_of(self.indicator)}


@final
@dataclass(frozen=True, slots=True)
class SegmentReplaced(_Happening):
    """The path leads to another file than before."""

    name: ClassVar[str] = "replaced"
    snapshot: Snapshot = field(repr=False)


@final
@dataclass(frozen=True, slots=True)
class Unbounded(_Happening):
    """There is no bounded time any more, with or without a commit: ``Clock.now`` raises `error`."""

    name: ClassVar[str] = "unbounded"
    error: type[VMClockError]
    reason: str
    """What was seen, in words."""
    remedy: str = field(repr=False)
    snapshot: Snapshot = field(repr=False)

    def _fields(self) -> dict[str, Any]:
        return {"error": self.error.__name__, "reason": self.reason, "remedy": self.remedy}


@final
@dataclass(frozen=True, slots=True)
class Bounded(_Happening):
    """There is a bounded time again: `interval` is the first reading."""

    name: ClassVar[str] = "bounded"
    interval: TimeInterval
    snapshot: Snapshot = field(repr=False)

    def _fields(self) -> dict[str, Any]:
        return self.interval.as_dict()


Event = (
    Disrupted
    | Restored
    | StatusChanged
    | MaintenanceAnnounced
    | LeapAnnounced
    | SegmentReplaced
    | Unbounded
    | Bounded
)


_IMMINENT: Final = int(Flags.DISRUPTION_IMMINENT)
_ANNOUNCED: Final = int(Flags.DISRUPTION_SOON) | _IMMINENT
_TIME_BOUND: Final = int(Flags.TIME_MAXERROR_VALID)


def events_between(before: Snapshot, after: Snapshot) -> tuple[Event, ...]:
    """What happened from *before* to *after*, the gravest first; ``Unbounded`` and ``Bounded`` are not among it.

    Both must come from one clock or reader: ``Snapshot.opened``, which each counts for itself, shows a replacement.
    """
    return _events_between(before, after, before.body.vm_generation_counter)


def _events_between(before: Snapshot, after: Snapshot, generation_before: int | None) -> tuple[Event, ...]:
    events: list[Event] = []
    old, new = before.body, after.body
    if before.opened != after.opened:
        events.append(SegmentReplaced(after))
    if old.disruption_marker != new.disruption_marker:
        jump_ns = _jump_ns(before, after)
        events.append(Disrupted(old.disruption_marker, new.disruption_marker, after, jump_ns=jump_ns))
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


def _jump_ns(before: Snapshot, after: Snapshot) -> int | None:
    """By how much the time of *after* is later than that of *before*, at the reference of *after*."""
    counter, counter_id = after.body.counter_value, after.counter_id
    if not isinstance(counter_id, CounterId) or not after.body.counter_period_frac_sec:
        return None
    # Without the second by which an announced leap widens one side: it would move the middle.
    old, new = (find_bounds(each, counter, counter_id=counter_id, leap=False) for each in (before, after))
    return None if old is None or new is None else new.midpoint_ns - old.midpoint_ns


def bound_event(
    was_bounded: bool, reading: TimeInterval | VMClockError, snapshot: Snapshot
) -> Bounded | Unbounded | None:
    """The event if *reading* shows that the bound came or went; *snapshot* is the page."""
    if was_bounded == isinstance(reading, TimeInterval):
        return None
    if isinstance(reading, TimeInterval):
        return Bounded(reading, snapshot)
    return Unbounded(type(reading), reading.seen, reading.remedy, snapshot)


@final
class EventStream(OfThisProcess):
    """The events of one clock's segment, for one task: ``async for event in events``; see ``Clock.events``."""

    _instead = "open a clock there, and take its events()"

    def __init__(self, waiting: Waiting, seen: Snapshot, since: VMClockBody | None, *, bounded: bool) -> None:
        self._waiting: Final = waiting
        self._seen = seen
        self._bounded = bounded
        self._generation = seen.body.vm_generation_counter
        """The last generation that the page had."""
        self._pending: Final[deque[Event]] = deque()
        self._unjudged: int | None = None
        """A counter value read within the page last seen, if the reading there is still to be judged."""
        if since is not None:
            self._pending.extend(_missed(since, seen))
            if self._generation is None:
                self._generation = since.vm_generation_counter

    @property
    def snapshot(self) -> Snapshot:
        """The page as last seen; at first the one from which events begin, which may announce maintenance already."""
        return self._seen

    @property
    def bounded(self) -> bool:
        """Whether there was a bounded time when this stream last looked; at first: at the beginning of the stream."""
        self._judge_noted()
        return self._bounded

    async def receive(self) -> Event:
        """Wait for the next event and return it. Cancelling loses none.

        While the segment is missing, starts over, or was left half written by a writer that died, this waits on.
        ``Unbounded`` comes if there is no bounded time meanwhile.

        Raises:
            SegmentError: what is there now is no segment, or the clock is closed.
        """
        await anyio.lowlevel.checkpoint()
        self._judge_noted()
        while not self._pending:
            look = await self._judge()
            if self._pending:
                break
            snapshot = await self._waiting.wait(self._seen, look.again_s, fence_seen=look.fence)
            if snapshot is not None:
                self._note(snapshot)
                if self._pending and not self._put_off_judging():
                    await self._judge()
        return self._pending.popleft()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """The same as ``receive``; there is no last event."""
        return await self.receive()

    async def _judge(self) -> Look:
        """Look at the page, and add the event if the bound came or went."""
        look = await self._waiting.look(self._seen, patient=self._bounded)
        if look.reading is not None:
            self._note_reading(look.reading)
        return look

    def _judge_noted(self) -> None:
        """Add the event if the bound came or went with the page that was noted last."""
        counter, self._unjudged = self._unjudged, None
        if counter is None:
            return
        try:
            self._note_reading(self._waiting.readings.reckoned(self._seen, counter))
        except ClockError as exc:
            self._note_reading(exc)

    def _note_reading(self, reading: TimeInterval | VMClockError) -> None:
        event = bound_event(self._bounded, reading, self._seen)
        if event is not None:
            self._bounded = not self._bounded
            self._pending.append(event)

    def _note(self, snapshot: Snapshot) -> None:
        """Add what happened from the last snapshot to *snapshot*."""
        # A page may lack its generation for a while, and no two snapshots show a restore in that time.
        self._pending.extend(_events_between(self._seen, snapshot, self._generation))
        if snapshot.body.vm_generation_counter is not None:
            self._generation = snapshot.body.vm_generation_counter
        self._seen = snapshot

    def _put_off_judging(self) -> bool:
        """Note the counter within the page last seen, if that and the page alone decide whether there is a bound.

        Returns whether they do.

        Then it is judged after the events are out, because it takes as long as all the rest between a commit and
        its event. What else decides is asked now, so that a slow task misses no bound that is lost and back.
        """
        readings, body = self._waiting.readings, self._seen.body
        try:
            if body.clock_status not in TELLS_TIME or not int(body.flags) & _TIME_BOUND:
                self._unjudged = readings.feed.counter_ticks()  # no counter and no fence gives it a bound
                return True
            self._unjudged = readings.feed.counter_within(self._seen)
            readings.require_fit(self._seen, 0)
            readings.require_fence(self._seen)
        except VMClockError:
            self._unjudged = None
            return False
        return True


def _missed(since: VMClockBody, seen: Snapshot) -> list[Event]:
    """The disruption and the restore between *since* and *seen*."""
    events = events_between(seen.model_copy(update={"body": since}), seen)
    # A page may have marker 0 for a while, because its publisher has not heard from its device yet.
    kinds = Disrupted | Restored if seen.body.disruption_marker else Restored
    return [event for event in events if isinstance(event, kinds)]


@asynccontextmanager
async def open_events(waiting: Waiting, since: VMClockBody | None = None) -> AsyncIterator[EventStream]:
    """The events from now on; before them, the disruption and the restore that came after *since*."""
    snapshot, counter = await waiting.sample_patiently()
    try:
        waiting.readings.interval(snapshot, counter, None, limit_s=0)
    except (ClockError, SegmentUnstableError):
        yield EventStream(waiting, snapshot, since, bounded=False)
    else:
        yield EventStream(waiting, snapshot, since, bounded=True)
