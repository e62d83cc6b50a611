"""Run a kernel source across a leap second, and print what its updates said."""

import json
import sys

import anyio
import anyio.lowlevel

from vmclock_async import BodyUpdate, CounterId, LeapIndicator, TimeType, VMClockBody
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.testing import Heard
from vmclock_async.timebase import COUNTER_ID, Timex, adjtimex, counter_ticks
from vmclock_kernel import KernelSettings, KernelSource


class Segment(Heard):
    contents: Contents | None = None

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        before = self.contents or Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC)
        self.contents = before.updated(update)


def realtime_ns(timex: Timex) -> int:
    assert timex.realtime_ns is not None
    return timex.realtime_ns


async def main(until_ns: int) -> None:
    segment, looks, past = Segment(), 0, 0
    told: list[str] = []
    outside: list[object] = []
    back: list[object] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(KernelSource(KernelSettings(poll_interval=0.15, assumed_error=0)).run, segment)
        while realtime_ns(adjtimex()) < until_ns:
            await anyio.sleep(0.002)
            if segment.contents is None:
                continue
            before, counter, after = adjtimex(), counter_ticks(), adjtimex()
            if before.state != after.state:
                continue
            found = bounds_at(segment.contents, counter, counter_id=COUNTER_ID)
            looks += 1
            name = LeapIndicator(segment.contents.body.leap_indicator).name
            if name not in told:
                told.append(name)
            if not (found.earliest_ns <= realtime_ns(after) and realtime_ns(before) <= found.latest_ns):
                outside.append([name, found.earliest_ns, before.realtime_ns, found.latest_ns])
            if found.latest_ns < past:
                back.append([name, found.latest_ns, past])
            past = max(past, found.earliest_ns)
        tasks.cancel_scope.cancel()
    assert segment.contents is not None
    print(
        json.dumps(
            {
                "time_type": TimeType(segment.contents.time_type).name,
                "told": told,
                "looks": looks,
                "outside": outside[:3],
                "back": back[:3],
                "tai_offset_sec": segment.contents.body.tai_offset_sec,
            }
        )
    )


print("ready", flush=True)
sys.stdin.readline()
anyio.run(main, int(sys.argv[1]))
