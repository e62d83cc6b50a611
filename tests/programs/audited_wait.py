"""Wait for a commit in vain, and fail if that starts a program or makes a temporary file."""

import sys

import anyio

from vmclock_async import SegmentReader


def audit(event: str, args: object) -> None:
    assert event not in ("subprocess.Popen", "os.exec", "os.posix_spawn", "tempfile.mkstemp"), event


async def main(path: str) -> None:
    with SegmentReader(path) as reader:
        sys.addaudithook(audit)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader.wait_changed, reader.seq_count)
            while not reader.statistics().waits:
                await anyio.sleep(0.001)
            print(reader.statistics().watching)
            tasks.cancel_scope.cancel()


anyio.run(main, sys.argv[1])
