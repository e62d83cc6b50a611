"""What happened between two snapshots of a segment.

Events are derived from differences, so a disruption, a restore or a replacement is never missed however long one
did not look: a marker that moved twice is one ``Disrupted``. A status or a notice that came and went is.
"""

from dataclasses import dataclass
from typing import final

from vmclock_async.abi import ClockStatus, Flags, LeapIndicator
from vmclock_async.models import Snapshot

__all__ = (
    "Disrupted",
    "Event",
    "LeapAnnounced",
    "MaintenanceAnnounced",
    "Restored",
    "SegmentReplaced",
    "StatusChanged",
    "events_between",
)


@final
@dataclass(frozen=True, slots=True)
class Disrupted:
    """The counter was disrupted: a migration, a restore, a suspend. Times from before mean nothing now."""

    marker_before: int
    marker_after: int
    snapshot: Snapshot


@final
@dataclass(frozen=True, slots=True)
class Restored:
    """The machine was restored from a snapshot: others may have been restored from the same one."""

    generation_before: int
    generation_after: int
    snapshot: Snapshot


@final
@dataclass(frozen=True, slots=True)
class StatusChanged:
    """clock_status changed."""

    before: ClockStatus | int
    after: ClockStatus | int
    snapshot: Snapshot


@final
@dataclass(frozen=True, slots=True)
class MaintenanceAnnounced:
    """A disruption is planned: within about an hour if `imminent`, else within about a day."""

    imminent: bool
    snapshot: Snapshot


@final
@dataclass(frozen=True, slots=True)
class LeapAnnounced:
    """The leap indicator changed to other than NONE."""

    indicator: LeapIndicator | int
    snapshot: Snapshot


@final
@dataclass(frozen=True, slots=True)
class SegmentReplaced:
    """The path leads to another file than before."""

    snapshot: Snapshot


Event = Disrupted | Restored | StatusChanged | MaintenanceAnnounced | LeapAnnounced | SegmentReplaced


def events_between(before: Snapshot, after: Snapshot) -> tuple[Event, ...]:
    """What happened from *before* to *after*, the gravest first."""
    events: list[Event] = []
    old, new = before.body, after.body
    if before.inode != after.inode:
        events.append(SegmentReplaced(after))
    if old.disruption_marker != new.disruption_marker:
        events.append(Disrupted(old.disruption_marker, new.disruption_marker, after))
    if (
        old.vm_generation_counter is not None
        and new.vm_generation_counter is not None
        and old.vm_generation_counter != new.vm_generation_counter
    ):
        events.append(Restored(old.vm_generation_counter, new.vm_generation_counter, after))
    if old.clock_status != new.clock_status:
        events.append(StatusChanged(old.clock_status, new.clock_status, after))
    raised = new.flags & ~old.flags
    if raised & (Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT):
        events.append(MaintenanceAnnounced(bool(raised & Flags.DISRUPTION_IMMINENT), after))
    if old.leap_indicator != new.leap_indicator != LeapIndicator.NONE:
        events.append(LeapAnnounced(new.leap_indicator, after))
    return tuple(events)
