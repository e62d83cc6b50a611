"""Publish a device, and the kernel's time beside it where asked to, until a clock has a bound."""

import sys

import anyio

from vmclock_async import Publisher, Source, open_clock
from vmclock_device import DeviceSettings, DeviceSource
from vmclock_kernel import KernelSettings, KernelSource


async def main(*args: str) -> None:
    segment, device, *others = args
    sources: dict[str, Source] = {"device": DeviceSource(DeviceSettings.model_validate({"path": device}))}
    if others:
        sources["kernel"] = KernelSource(KernelSettings())
    publisher = Publisher(segment, sources)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        with anyio.fail_after(20):
            while publisher.statistics().commits == 0 or any(
                source.updates == 0 for source in publisher.statistics().sources.values()
            ):
                await anyio.sleep(0.01)
            async with open_clock(segment, fence=device) as clock:
                await clock.wait_bounded()
        print("told")
        tasks.cancel_scope.cancel()


anyio.run(main, *sys.argv[1:])
