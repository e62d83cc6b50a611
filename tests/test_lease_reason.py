"""What a lease that is lost says."""

import anyio
import pytest

from vmclock_async import LeaseLostError, open_clock
from vmclock_async.testing import PlayedSegment


@pytest.mark.anyio
async def test_lease_names_the_migration(segment: PlayedSegment) -> None:
    """A lease lost to a migration says so, though the time is void too, which has other causes and remedies."""

    async def hold() -> None:
        async with open_clock(segment.path, fence=segment.device) as clock, clock.lease(100) as lease:
            segment.migrate()
            segment.lose_sync(void=True)
            lease.check()

    with anyio.fail_after(5), pytest.raises(LeaseLostError, match="marker was 1, and is 2"):
        await hold()
