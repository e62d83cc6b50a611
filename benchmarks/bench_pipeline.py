"""What an update costs from a source's ``emit`` to the committed page: validation, stream, merge, commit, wake-up.

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

from vmclock_async import BodyUpdate, Emit, Publisher

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
        """Emit that many updates; the validation of each is part of what is timed."""
        for number in range(self._updates):
            await emit(
                BodyUpdate(
                    clock_status=2,
                    counter_value=number,
                    counter_period_frac_sec=2**63,
                    counter_period_shift=31,
                    counter_period_maxerror_rate_frac_sec=2**40,
                    time_sec=number,
                    time_frac_sec=number,
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
        assert publisher.statistics().commits == updates
    return elapsed


def main() -> None:
    """Run the benchmarks that pyperf's options choose."""
    runner = pyperf.Runner(processes=5, min_time=0.5)
    for backend in BACKENDS:
        runner.bench_time_func(f"pipeline on {backend}", publish, backend)


if __name__ == "__main__":
    main()
