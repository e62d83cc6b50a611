"""Publish the kernel's time on a machine where no chronyd runs."""

import logging
import sys
from pathlib import Path

import anyio

from vmclock_async import Publisher
from vmclock_kernel import KernelSettings, KernelSource
from vmclock_kernel.machine import Machine


class WithoutChronyd(Machine):
    def chronyd_runs(self, proc: Path = Path("/proc")) -> bool:
        return False


logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s", level=logging.WARNING)
source = KernelSource(KernelSettings(poll_interval=0.02), machine=WithoutChronyd())
anyio.run(Publisher(sys.argv[1], {"kernel": source}).run)
