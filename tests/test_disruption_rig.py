"""``device`` beside ``chrony``, with a real chronyd and a page that changes: what readers see of a migration."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest

from kit.chronyd import Chronyd, free_port, needs_chronyd
from kit.forks import Started
from vmclock_async import ClockStatus, CounterId, Flags, Publisher, SegmentReader, SegmentWriter, VMClockBody
from vmclock_async.reckoning import bounds_at
from vmclock_async.sources import Source
from vmclock_async.timebase import COUNTER_ID, counter_unfit_because, pair
from vmclock_chrony import ChronySettings, ChronySource
from vmclock_device import DeviceSettings, DeviceSource

pytestmark = [
    needs_chronyd,
    pytest.mark.skipif(counter_unfit_because() is not None, reason=str(counter_unfit_because())),
]

BOUNDS = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID


async def wait_for(reader: SegmentReader, marker: int, status: ClockStatus) -> None:
    """Wait for a commit of *marker* and *status*."""
    while True:
        body = reader.snapshot().body
        if (body.disruption_marker, body.clock_status) == (marker, status):
            return
        await reader.wait_changed(reader.seq_count)


def test_new_marker_comes_with_the_void_and_time_returns(
    tmp_path: Path, segment_path: Path, start_script: Callable[..., Started]
) -> None:
    """The commit with the new marker voids the time; the next time rests on what chronyd measured after."""
    page = tmp_path / "page"
    readers: list[Started] = []
    port = free_port()

    async def migrate(writer: SegmentWriter, client: Chronyd) -> int:
        sources: dict[str, Source] = {
            "device": DeviceSource(DeviceSettings(path=page, poll_interval=0.01)),
            "chrony": ChronySource(ChronySettings(address=str(client.socket), poll_interval=0.2)),
        }
        publisher = Publisher(segment_path, sources)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            while publisher.statistics().commits == 0:
                await anyio.sleep(0.01)
            with SegmentReader(segment_path) as reader:
                await wait_for(reader, 1, ClockStatus.SYNCHRONIZED)
                readers.append(start_script("disruptions_seen", segment_path))
                assert readers[0].stdout is not None
                await anyio.to_thread.run_sync(readers[0].stdout.readline)
                moved_at = pair(time.CLOCK_REALTIME).counter_ticks
                writer.write(VMClockBody(disruption_marker=2))
                await wait_for(reader, 2, ClockStatus.SYNCHRONIZED)
                now = pair(time.CLOCK_REALTIME)
                found = bounds_at(reader.snapshot(), now.counter_ticks, counter_id=COUNTER_ID)
                assert found.earliest_ns <= now.clock_ns <= found.latest_ns
                assert publisher.statistics().groups == {
                    "disruption": "device",
                    "time": "chrony",
                    "calendar": "chrony",
                }
            tasks.cancel_scope.cancel()
        return moved_at

    with SegmentWriter(page) as writer, Chronyd.server(port), Chronyd.client(port) as client:
        writer.write(VMClockBody(disruption_marker=1), counter_id=CounterId.INVALID)

        async def in_time() -> int:
            with anyio.fail_after(40):
                return await migrate(writer, client)

        moved_at = anyio.run(in_time)
    output, _ = readers[0].communicate("\n", timeout=10)
    seen = json.loads(output)
    markers = [marker for marker, *_ in seen]
    assert set(markers) == {1, 2}
    assert markers == sorted(markers)
    after = [(status, flags, counter) for marker, status, flags, counter in seen if marker == 2]
    status, flags, _ = after[0]
    assert (status, flags & BOUNDS) == (ClockStatus.UNKNOWN, 0), "the new marker came with an old time"
    bounded = [counter for _, flags, counter in after if flags & BOUNDS]
    assert bounded
    assert all(counter > moved_at for counter in bounded), "a time from before the new marker"
