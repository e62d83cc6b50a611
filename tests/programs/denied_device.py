"""Run a device source whose page this user may not read."""

import sys

import anyio

from nobody import become_nobody
from vmclock_async import BodyUpdate, SourceUnavailableError
from vmclock_device import DeviceSettings, DeviceSource


class Nobody:
    epoch = 0

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None: ...


async def main() -> None:
    become_nobody()
    try:
        await DeviceSource(DeviceSettings.model_validate({"path": sys.argv[1]})).run(Nobody())
    except SourceUnavailableError as exc:
        print(exc)


anyio.run(main)
