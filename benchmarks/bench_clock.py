"""The cost of a reading of the clock, beside ``time.time_ns()`` and readings in Python; and of importing.

    python benchmarks/bench_clock.py [--fast]

``sample() + bounds_at()`` is a reader with a compiled seqlock and arithmetic in Python. ``struct + Fraction`` is a
reader with nothing compiled except the counter: it can order neither loads nor stores, so it is a yardstick and no
alternative.
"""

import asyncio
import math
import mmap
import os
import struct
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import pyperf

from vmclock_async import Clock, Flags, Lease, SegmentReader, SegmentWriter, VMClockBody, _core
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import COUNTER_ID, Calibration, counter_ticks, fixed_point_period

_PAGE = struct.Struct("<IIHBBIQQ2xBBhBB8Q")
IMPORTS = {
    "python -c pass": "pass",
    "import anyio, pydantic": "import anyio, pydantic",
    # The part of pydantic's import that waits until somebody has a model.
    "import anyio, pydantic, and a model": "import anyio, pydantic; pydantic.create_model('Model', field=(int, ...))",
    "import vmclock_async": "import vmclock_async",
    "import vmclock_async, and use of Clock": "from vmclock_async import Clock, TimeInterval, open_clock",
}


def body_now() -> VMClockBody:
    """A synchronized body of this machine's counter, as good as a short calibration makes it."""
    calibration = Calibration()
    while True:
        rate = calibration.rate()
        if rate.error < rate.ns_per_tick / 10_000:
            break
    period = fixed_point_period(rate.ns_per_tick.numerator, rate.ns_per_tick.denominator)
    return VMClockBody(
        flags=Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID,
        clock_status=2,
        counter_value=counter_ticks(),
        counter_period_shift=period.shift,
        counter_period_frac_sec=period.frac_sec,
        counter_period_maxerror_rate_frac_sec=period.frac_sec // 2000,
        time_sec=1_767_225_600,
        time_maxerror_nanosec=1000,
        disruption_marker=1,
    )


class PlainReader:
    """A reader of the page in plain Python."""

    def __init__(self, path: str) -> None:
        with open(path, "rb") as file:
            self._page = mmap.mmap(file.fileno(), 104, prot=mmap.PROT_READ)

    def now(self) -> tuple[int, int]:
        """The interval."""
        while True:
            fields = _PAGE.unpack_from(self._page)
            counter = counter_ticks()
            if not fields[5] & 1 and self._page[8:16] == struct.pack("<HBBI", *fields[2:6]):
                break
        shift, counter_value, period, _, rate, sec, frac, _, maxerror = fields[12:]
        d = (counter - counter_value + 2**63) % 2**64 - 2**63
        utc_ns = (sec + Fraction(frac, 2**64) + d * Fraction(period, 2 ** (64 + shift))) * 10**9
        error_ns = maxerror + math.ceil(abs(d) * Fraction(rate, 2 ** (64 + shift)) * 10**9)
        return math.floor(utc_ns) - error_ns, math.ceil(utc_ns) + error_ns


@contextmanager
def clocks() -> Iterator[tuple[Clock, Clock]]:
    """Two clocks on a segment in memory that tells the time: without a fence, and with one."""
    directory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(dir=directory) as folder,
        SegmentWriter(f"{folder}/shm0") as writer,
        SegmentWriter(f"{folder}/vmclock0") as device,
    ):
        device.write(VMClockBody(disruption_marker=1))
        writer.write(body_now(), counter_id=COUNTER_ID)
        with (
            # No reading of a long run may take the slow way because of its reference's age.
            Clock(writer.path, fence=None, max_age=10**6) as unfenced,
            Clock(writer.path, fence=device.path, max_age=10**6) as fenced,
        ):
            yield unfenced, fenced


def main() -> None:
    """Run the benchmarks that pyperf's options choose."""
    runner = pyperf.Runner()
    for name, program in IMPORTS.items():
        runner.bench_command(name, [sys.executable, "-c", program])
    command = Path(sys.executable).with_name("vmclock-async")
    with clocks() as (unfenced, fenced), SegmentReader(unfenced.path) as reader:
        runner.bench_command("vmclock-async now", [str(command), "now", unfenced.path])
        names = {
            "unfenced": unfenced,
            "fenced": fenced,
            "sample": reader.sample,
            "plain": PlainReader(unfenced.path),
            "bounds_at": bounds_at,
            "counter_id": COUNTER_ID,
            "counter": _core.counter,
        }
        runner.timeit("time.time_ns()", "time.time_ns()", globals={"time": time})
        runner.timeit("time_ns(), from time", "time_ns()", setup="from time import time_ns")
        runner.timeit("the counter alone", "counter()", globals=names)
        runner.timeit("clock.now(), unfenced", "unfenced.now()", globals=names)
        runner.timeit("clock.now(), fenced", "fenced.now()", globals=names)
        runner.timeit("clock.now(max_error_ns=..), fenced", "fenced.now(max_error_ns=10**9)", globals=names)
        runner.timeit("clock.now().earliest_ns, fenced", "fenced.now().earliest_ns", globals=names)
        slowly = "bounds_at(*sample(), counter_id=counter_id, max_age_s=10**6)"
        runner.timeit("sample() + bounds_at()", slowly, globals=names)
        runner.timeit("struct + Fraction", "plain.now()", globals=names)
        runner.timeit("clock.at(stamp), fenced", "fenced.at(counter())", globals=names)
        with LeaseHeld(fenced) as lease:
            runner.timeit("lease.check(), fenced", "lease.check()", globals={"lease": lease})


class LeaseHeld:
    """Holds a lease in a loop that does not run meanwhile, because the measured call is synchronous."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.new_event_loop()
        self._held: asyncio.Future[Lease] = self._loop.create_future()
        self._end = asyncio.Event()

    async def _hold(self) -> None:
        async with self._clock.lease(10**5) as lease:
            self._held.set_result(lease)
            await self._end.wait()

    def __enter__(self) -> Lease:
        self._task = self._loop.create_task(self._hold())
        return self._loop.run_until_complete(self._held)

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._loop.run_until_complete(self._task)
        self._loop.close()


if __name__ == "__main__":
    main()
