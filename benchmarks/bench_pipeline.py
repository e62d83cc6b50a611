"""The cost of a measurement on its way to the page: validation, stream, merging, nesting, commit, wake-up.

    python benchmarks/bench_pipeline.py [--fast]

Divide 1 s by the mean for updates a second on one core.
"""

import os
import tempfile
import time
from typing import Any, ClassVar

import anyio
import pyperf
from pydantic import BaseModel

from vmclock_async import BodyUpdate, ClockStatus, Emit, Publisher, TimeType
from vmclock_async.timebase import COUNTER_ID, Calibration, Period, counter_ticks

START_S = 1_790_000_000


def measured_period() -> Period:
    """The counter's period, with which the publisher compares it."""
    calibration = Calibration()
    time.sleep(0.05)
    return calibration.rate().period()


PERIOD = measured_period()

BACKENDS: dict[str, dict[str, Any]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}


class Metronome:
    """A source that emits time groups as fast as they are taken."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, updates: int) -> None:
        self._updates = updates

    async def run(self, emit: Emit) -> None:
        """Emit *updates* updates; the validation of each is part of the measured time."""
        period = PERIOD
        start = counter_ticks()
        for _ in range(self._updates):
            counter = counter_ticks()
            elapsed = (counter - start) * period.frac_sec >> period.shift
            await emit(
                BodyUpdate(
                    counter_id=COUNTER_ID,
                    time_type=TimeType.UTC,
                    clock_status=ClockStatus.SYNCHRONIZED,
                    counter_value=counter,
                    counter_period_frac_sec=period.frac_sec,
                    counter_period_shift=period.shift,
                    counter_period_maxerror_rate_frac_sec=period.frac_sec // 20_000,
                    time_sec=START_S + (elapsed >> 64),
                    time_frac_sec=elapsed & 2**64 - 1,
                    time_maxerror_nanosec=100,
                )
            )


def publish(updates: int, backend: str) -> float:
    """Seconds that *updates* updates take on *backend*."""
    directory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=directory) as folder:
        publisher = Publisher(f"{folder}/shm0", {"metronome": Metronome(updates)})
        start = time.perf_counter()
        anyio.run(publisher.run, **BACKENDS[backend])
        elapsed = time.perf_counter() - start
        assert publisher.statistics().commits == updates + 1  # the last commit leaves the time running free
    return elapsed


def main() -> None:
    """Run the benchmarks that pyperf's options choose."""
    runner = pyperf.Runner(processes=5, min_time=0.5)
    for backend in BACKENDS:
        runner.bench_time_func(f"pipeline on {backend}", publish, backend)


if __name__ == "__main__":
    main()
