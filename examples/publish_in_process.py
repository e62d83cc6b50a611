"""Publish a segment from inside a program, next to everything else that it does, with a source of its own.

python examples/publish_in_process.py [SEGMENT] [--seconds 3]
"""

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import ClassVar

import anyio
from pydantic import BaseModel

from vmclock_async import BodyUpdate, ClockStatus, Emit, Flags, Publisher


class MovesSettings(BaseModel):
    """Options of the source below, which has none."""


class Moves:
    """A source for a machine that is moved again and again: it announces each move, then reports it."""

    settings_type: ClassVar[type[BaseModel]] = MovesSettings

    def __init__(self, settings: MovesSettings) -> None:
        self.settings = settings

    async def run(self, emit: Emit) -> None:
        """Emit updates. Each sets the fields that it names, and leaves the others as they are."""
        for marker in range(1, 2**64):
            await emit(BodyUpdate(disruption_marker=marker, clock_status=ClockStatus.UNKNOWN, flags=Flags(0)))
            await anyio.sleep(0.3)
            await emit(BodyUpdate(clock_status=ClockStatus.INITIALIZING))
            await anyio.sleep(0.3)
            await emit(BodyUpdate(flags=Flags.DISRUPTION_IMMINENT))
            await anyio.sleep(0.3)


async def main(path: Path, seconds: float) -> None:
    """Publish to *path* for *seconds*."""
    publisher = Publisher(path, {"moves": Moves(MovesSettings())})
    print(f"publishing to {path} for {seconds:g} s")
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        for _ in range(round(seconds / 0.5)):  # the rest of the program
            await anyio.sleep(0.5)
            print(f"{publisher.statistics().commits} commits so far")
        tasks.cancel_scope.cancel()  # leaves a whole body for readers, and no lock
    print("stopped")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Publish a segment for a few seconds.")
    parser.add_argument("segment", nargs="?", type=Path, help="default: one in a temporary directory")
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        anyio.run(partial(main, arguments.segment or Path(directory) / "shm0", arguments.seconds))
