"""Publish the kernel's time as nobody."""

import sys

import anyio
import anyio.to_thread

from nobody import become_nobody
from vmclock_async._cli import main
from vmclock_async.sources import Probes, build_source


async def in_thread() -> None:
    await anyio.to_thread.run_sync(int)


main(["publish", "no-such-source"])  # imports what the command needs
anyio.run(in_thread)
source = build_source("kernel", {})
assert isinstance(source, Probes)
source.probe()
become_nobody()
sys.exit(main(["publish", "kernel", "--segment", *sys.argv[1:]]))
