"""Processors that stay awake while a latency is measured, as cyclictest(8) and tuned's latency profiles have it.

At 100 commits a second a processor is idle most of the time. The cost of the first microseconds after that depends on
the idle state, and in a virtual machine on what the host has done with the processor meanwhile. That cost is real, but
none of it is the program's.
"""

import argparse
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

_PM_QOS = "/dev/cpu_dma_latency"
"""The request lasts while this file is open: microseconds, s32 (Linux, Documentation/power/pm_qos_interface.rst)."""


def add_argument(parser: argparse.ArgumentParser) -> None:
    """Add the option that ``kept`` takes."""
    parser.add_argument("--let-idle", action="store_true", help="let processors go idle between commits")


@contextmanager
def kept(*, let_idle: bool) -> Iterator[None]:
    """Keep all processors from idle states for the length of the block, and print their state."""
    with ExitStack() as held:
        if let_idle:
            print("processors go idle between commits")
        else:
            try:
                held.enter_context(open(_PM_QOS, "wb", buffering=0)).write(struct.pack("=i", 0))
                print(f"processors stay awake ({_PM_QOS} is held at 0)")
            except OSError as exc:
                print(
                    f"processors go idle between commits: {_PM_QOS} cannot be written ({exc.strerror}); root may"
                )
        yield
