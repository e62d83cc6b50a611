"""``demo``: publish a shipped recording, and watch it. It needs no clock source."""

import os
import tempfile
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import anyio
import typer

from vmclock_async._cli.output import complain, run_async
from vmclock_async._cli.watch import follow
from vmclock_async.publisher import Publisher
from vmclock_async.sources import build_source

__all__ = ("demo",)


def demo(
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON a change.")] = False,
) -> None:
    """Publish a shipped recording for about 15 seconds, and watch it: a migration, then a restore.

    vmclock-async demo --json
    """
    shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        as_file(files(__package__) / "demo.jsonl") as recording,
        tempfile.TemporaryDirectory(prefix="vmclock-async-", dir=shared_memory) as directory,
    ):
        complain(f"replaying a recorded machine into {directory}/shm0; it is migrated once, and restored once")
        segment = Path(directory) / "shm0"
        run_async(partial(_run, segment, recording, as_json=as_json))
    complain("done; publish a recording of your own with: vmclock-async publish replay --set replay.path=FILE")


async def _run(segment: Path, recording: Path, *, as_json: bool) -> None:
    source = build_source("replay", {"path": recording, "mode": "live"})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(follow, segment, as_json=as_json, fence=None))
        await Publisher(segment, {"replay": source}).run()
        tasks.cancel_scope.cancel()
