"""Fork inside a block of on_restore; then the machine is restored, and parent and child ask who they are.

Arguments: none; the segment is in a directory of this program's own. Prints what the child found, and then what the
parent found.
"""

import os
import signal
import tempfile
import warnings

import anyio

from vmclock_async import ClockDisruptedError, Snapshot, open_clock
from vmclock_async.testing import PlayedSegment

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from 3.12 on


async def main(segment: PlayedSegment) -> None:
    called: list[int] = []
    done = anyio.Event()

    async def note(_: Snapshot) -> None:
        called.append(os.getpid())
        done.set()

    restored_read, restored_write = os.pipe()
    ready_read, ready_write = os.pipe()
    async with open_clock(segment.path, fence=segment.device, on_restore=note) as clock:
        first = clock.incarnation
        if not (child := os.fork()):
            signal.alarm(10)
            mine = clock.incarnation
            os.write(ready_write, b".")
            os.read(restored_read, 1)
            # The child has no event loop that could await the callback, so it must not wait for that.
            after = clock.incarnation
            print(len({first, mine, after}), len(called), flush=True)
            os._exit(0)
        await anyio.to_thread.run_sync(os.read, ready_read, 1)
        segment.restore()
        os.write(restored_write, b".")
        await done.wait()
        while True:
            try:
                second = clock.incarnation
                break
            except ClockDisruptedError:
                await anyio.lowlevel.checkpoint()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # noqa: ASYNC222
        print(len({first, second}), called == [os.getpid()])


with tempfile.TemporaryDirectory() as directory, PlayedSegment(directory) as segment:
    anyio.run(main, segment)
