"""Run a device source whose page this user may not read."""

import sys

import anyio

from nobody import become_nobody
from vmclock_async import SourceUnavailableError
from vmclock_async.testing import Heard
from vmclock_device import DeviceSettings, DeviceSource


async def main() -> None:
    become_nobody()
    try:
        await DeviceSource(DeviceSettings.model_validate({"path": sys.argv[1]})).run(Heard())
    except SourceUnavailableError as exc:
        print(exc)


anyio.run(main)
