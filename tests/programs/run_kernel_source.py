"""Run a kernel source, and print the error that ends it."""

import anyio

from vmclock_async import BodyUpdate, SourceError
from vmclock_async.testing import Heard
from vmclock_kernel import KernelSettings, KernelSource


class Unused(Heard):
    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        raise AssertionError(update)


try:
    anyio.run(KernelSource(KernelSettings()).run, Unused())
except SourceError as error:
    print(type(error).__name__, error)
