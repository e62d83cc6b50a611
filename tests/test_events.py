"""The stream of events: where it begins."""

import anyio
import pytest

from vmclock_async import Flags, open_clock
from vmclock_async.events import MaintenanceAnnounced
from vmclock_async.testing import PlayedSegment


@pytest.mark.anyio
async def test_stream_shows_what_it_begins_from(segment: PlayedSegment) -> None:
    """What was announced before is no event, but is in the snapshot; what comes later is an event."""
    segment.announce_maintenance()
    with anyio.fail_after(5):
        async with open_clock(segment.path, fence=segment.device) as clock, clock.events() as events:
            assert Flags.DISRUPTION_SOON in events.snapshot.body.flags
            segment.announce_maintenance(imminent=True)
            event = await events.receive()
            assert isinstance(event, MaintenanceAnnounced)
            assert event.imminent
            assert event.snapshot == events.snapshot
