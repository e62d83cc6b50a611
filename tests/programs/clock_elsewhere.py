"""Replace a segment by one with the same inode number, and print what a lease and events say."""

import os

import anyio

from vmclock_async import LeaseLostError, SegmentWriter, open_clock
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID


async def main() -> None:
    inodes = set()
    for marker in (1, 2):
        with SegmentWriter(f"/mnt/{marker}/shm0", size=112) as writer:
            writer.write(make_body(disruption_marker=marker), counter_id=COUNTER_ID)
        inodes.add(os.stat(f"/mnt/{marker}/shm0").st_ino)
    assert len(inodes) == 1, "the file systems give out other numbers"
    os.symlink("/mnt/1", "/mnt/now")
    async with open_clock("/mnt/now/shm0", fence=None) as clock, clock.events() as events:
        try:
            async with clock.lease(60) as lease:
                os.symlink("/mnt/2", "/mnt/next")
                os.rename("/mnt/next", "/mnt/now")
                _ = clock.status  # looks, and goes over to it
                lease.check()
        except LeaseLostError as exc:
            print(str(exc).split("; ")[0])
        with anyio.fail_after(5):
            print(type(await events.receive()).__name__)
            print(type(await events.receive()).__name__)


anyio.run(main)
