"""Publishers that run for as long as a test needs them, and what they leave at their path."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from kit.sources import Script, Scripted
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    Flags,
    Publisher,
    SegmentReader,
    SegmentWriter,
    Snapshot,
    VMClockBody,
)
from vmclock_async.sources import Source
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID

MEASURED = (
    *sorted(BodyUpdate.MEASURED_FIELDS - {"counter_period_esterror_rate_frac_sec", "time_esterror_nanosec"}),
)


def time_fields() -> dict[str, int]:
    """Those of an honest time as it is now."""
    body = make_body()
    header = {"counter_id": COUNTER_ID, "time_type": 0, "clock_status": ClockStatus.SYNCHRONIZED}
    return header | {name: getattr(body, name) for name in MEASURED}


def a_page(fields: dict[str, int]) -> BodyUpdate:
    """A device's page that tells the time of *fields*."""
    values = {name: value for name, value in fields.items() if name not in ("counter_id", "time_type")}
    flags = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
    body = VMClockBody.model_validate(values | {"disruption_marker": 7, "flags": flags})
    return BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=0)


async def publish(
    path: Path, sources: dict[str, Source], meanwhile: Callable[[Publisher], Awaitable[None]]
) -> None:
    """Run a publisher for as long as *meanwhile* takes, ten seconds at most."""
    publisher = Publisher(path, sources)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            await meanwhile(publisher)
            tasks.cancel_scope.cancel()


async def published(path: Path, sources: dict[str, Script]) -> Snapshot:
    """What is there when the scripts of all *sources* are over."""
    with anyio.fail_after(30):
        await Publisher(path, {name: Scripted(script) for name, script in sources.items()}).run()
    with SegmentReader(path) as reader:
        return reader.snapshot()


async def until(path: Path, status: ClockStatus) -> VMClockBody:
    """The first body with *status* that a reader sees; there is a segment already."""
    with SegmentReader(path) as reader:
        snapshot = reader.snapshot()
        while snapshot.body.clock_status != status:
            snapshot = await reader.wait_changed(snapshot)
        return snapshot.body


def assert_at_rest(path: Path) -> None:
    """A whole body, an even seq_count, and no lock: neither held nor lying about."""
    with SegmentReader(path) as reader:
        assert reader.snapshot().seq_count % 2 == 0
    assert not Path(f"{path}.lock").exists()
    with SegmentWriter(path) as writer:
        assert not writer.interrupted
