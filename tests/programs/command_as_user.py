"""Run the command line as the user whose number is the first argument, with what it needs imported before."""

import concurrent.futures.thread  # noqa: F401  while it may be read, as all that is imported here
import encodings.idna  # noqa: F401
import importlib
import sys

import anyio
import anyio.to_thread
import pychrony  # noqa: F401

from nobody import become_nobody
from vmclock_async._cli import main
from vmclock_async._cli.commands import COMMANDS
from vmclock_async._cli.configuration import effective, schema, settings  # noqa: F401
from vmclock_async.metrics import PublisherCollector  # noqa: F401
from vmclock_async.sources import installed_sources


async def in_thread() -> None:
    await anyio.to_thread.run_sync(int)


for name in COMMANDS:
    importlib.import_module(f"vmclock_async._cli.{name.replace('-', '_')}")
for source in installed_sources().values():
    source.load()
anyio.run(in_thread)
become_nobody(int(sys.argv[1]))
sys.exit(main(sys.argv[2:]))
