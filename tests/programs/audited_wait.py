"""Wait for a commit in vain, and fail if that starts a program or makes a temporary file."""

import sys

import anyio

from vmclock_async import SegmentReader


def audit(event: str, args: object) -> None:
    assert event not in ("subprocess.Popen", "os.exec", "os.posix_spawn", "tempfile.mkstemp"), event


async def main(path: str) -> None:
    with SegmentReader(path) as reader:
        sys.addaudithook(audit)
        with anyio.move_on_after(0.01):
            await reader.wait_changed(reader.seq_count)
        print(reader.statistics().watching)


anyio.run(main, sys.argv[1])
