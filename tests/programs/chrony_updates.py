"""Print the first updates of a chrony source."""

import sys

import anyio
import anyio.abc

from vmclock_async import BodyUpdate
from vmclock_async.testing import Heard
from vmclock_chrony import ChronySettings, ChronySource


class Emit(Heard):
    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        super().__init__()
        self.tasks = tasks
        self.left = int(sys.argv[2])

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        print(update.model_dump_json(exclude_unset=True), flush=True)
        self.left -= 1
        if not self.left:
            self.tasks.cancel_scope.cancel()
        await anyio.lowlevel.checkpoint()


async def main() -> None:
    async with anyio.create_task_group() as tasks:
        settings = ChronySettings.model_validate({"address": sys.argv[1], "poll_interval": float(sys.argv[3])})
        await ChronySource(settings).run(Emit(tasks))


anyio.run(main)
