"""Probe a kernel source and run it, and print the errors."""

import anyio

from vmclock_async import BodyUpdate, SourceError
from vmclock_async.testing import Heard
from vmclock_kernel import KernelSettings, KernelSource


class Unused(Heard):
    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        raise AssertionError(update)


source = KernelSource(KernelSettings())
for use in (source.probe, lambda: anyio.run(source.run, Unused())):
    try:
        use()
    except SourceError as error:
        print(type(error).__name__, error)
