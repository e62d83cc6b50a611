"""Publishes this machine's time to the path given, five times a second, and says where its metrics are."""

import sys

import anyio

from kit.publishing import time_fields
from kit.sources import Scripted
from vmclock_async import BodyUpdate, Emit, Publisher
from vmclock_async.metrics import PublisherCollector, serve_metrics


async def tell_for_ever(emit: Emit) -> None:
    """Measure and emit."""
    while True:
        epoch = emit.epoch
        await emit(BodyUpdate.model_validate(time_fields()), epoch=epoch)
        await anyio.sleep(0.2)


async def main() -> None:
    """Publish until the process is killed."""
    publisher = Publisher(sys.argv[1], {"told": Scripted(tell_for_ever)})
    async with serve_metrics(PublisherCollector(publisher, fence=None), ":0") as address:
        print(address, flush=True)
        await publisher.run()


anyio.run(main)
