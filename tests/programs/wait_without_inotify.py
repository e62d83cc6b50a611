"""Wait for commits where the kernel gives no inotify instance."""

import json
import logging
import sys

import anyio

from vmclock_async import SegmentReader, SegmentWriter, VMClockBody

logged: list[list[str]] = []


class Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logged.append([record.levelname, record.getMessage()])


logging.getLogger("vmclock_async").addHandler(Handler())


async def main(path: str) -> None:
    with SegmentWriter(path) as writer, SegmentReader(path) as reader, anyio.fail_after(10):
        seen: list[int] = []

        async def follow() -> None:
            seen.append((await reader.wait_changed(2, poll_interval=0.01)).seq_count)

        async with anyio.create_task_group() as tasks:
            for _ in range(2):
                tasks.start_soon(follow)
            while reader.statistics().waits < 4:
                await anyio.sleep(0.001)
            assert seen == []
            writer.write(VMClockBody(disruption_marker=1))
        statistics = reader.statistics()
        print(json.dumps([seen, statistics.watching, statistics.polling_because, logged]))


backend, options = json.loads(sys.argv[2])
anyio.run(main, sys.argv[1], backend=backend, backend_options=options)
