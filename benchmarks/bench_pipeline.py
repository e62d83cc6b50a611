"""What an update costs on its way to the page, beside the bare minimum of the same run.

    python benchmarks/bench_pipeline.py [--fast]

For each event loop: a measurement validated and sent over a stream without a buffer, and nothing else; the same
merged, nested and committed; a whole body validated and sent; the same relayed. On asyncio and uvloop also a recording,
plain and compressed, replayed as fast as it can be. Divide 1 s by a mean for updates a second on one core.
"""

import gzip
import os
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Final

import anyio
import pyperf
from pydantic import BaseModel

from vmclock_async import BodyUpdate, ClockStatus, Emit, Publisher, Source, TimeType, VMClockBody
from vmclock_async.recording import Record, RecordingHeader
from vmclock_async.timebase import COUNTER_ID, Calibration, Period, counter_ticks
from vmclock_replay.source import ReplaySettings, ReplaySource

START_S: Final = 1_790_000_000
RECORDS: Final = 20_000
BACKENDS: Final[dict[str, dict[str, Any]]] = {
    "asyncio": {"backend": "asyncio"},
    "uvloop": {"backend": "asyncio", "backend_options": {"use_uvloop": True}},
    "trio": {"backend": "trio"},
}
ON_TMPFS: Final = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

Make = Callable[[int], BodyUpdate]


def measured_period() -> Period:
    """The counter's, which the publisher holds it against."""
    calibration = Calibration()
    time.sleep(0.05)
    return calibration.rate().period()


PERIOD: Final = measured_period()
START: Final = counter_ticks()


def measurement(_number: int) -> BodyUpdate:
    """The time group as it is now."""
    counter = counter_ticks()
    elapsed = (counter - START) * PERIOD.frac_sec >> PERIOD.shift
    return BodyUpdate(
        counter_id=COUNTER_ID,
        time_type=TimeType.UTC,
        clock_status=ClockStatus.SYNCHRONIZED,
        counter_value=counter,
        counter_period_frac_sec=PERIOD.frac_sec,
        counter_period_shift=PERIOD.shift,
        counter_period_maxerror_rate_frac_sec=PERIOD.frac_sec // 20_000,
        time_sec=START_S + (elapsed >> 64),
        time_frac_sec=elapsed & 2**64 - 1,
        time_maxerror_nanosec=100,
    )


def body(number: int) -> VMClockBody:
    """A whole body."""
    return VMClockBody(
        disruption_marker=1, counter_value=number, clock_status=ClockStatus.SYNCHRONIZED, time_sec=number
    )


def whole_body(number: int) -> BodyUpdate:
    """A whole body, as a device's source sends it."""
    return BodyUpdate.from_body(body(number))


class Metronome:
    """A source that emits *updates* updates, each made by *make*, as fast as they are taken."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, updates: int, make: Make) -> None:
        self._updates = updates
        self._make = make

    async def run(self, emit: Emit) -> None:
        """Emit that many updates; the validation of each is part of what is timed."""
        for number in range(self._updates):
            await emit(self._make(number))


def publish(source: Source, updates: int, backend: str) -> float:
    """Seconds that *source* takes to have *updates* updates published on *backend*."""
    with tempfile.TemporaryDirectory(dir=ON_TMPFS) as folder:
        publisher = Publisher(f"{folder}/shm0", {"metronome": source})
        start = time.perf_counter()
        anyio.run(publisher.run, **BACKENDS[backend])
        elapsed = time.perf_counter() - start
        assert publisher.statistics().commits >= updates
    return elapsed


def published(updates: int, backend: str, make: Make) -> float:
    """Seconds that *updates* updates take on *backend*, through a publisher."""
    return publish(Metronome(updates, make), updates, backend)


def sent(updates: int, backend: str, make: Make) -> float:
    """Seconds that *updates* updates take on *backend* to be made and sent to another task."""

    async def run() -> None:
        send, receive = anyio.create_memory_object_stream[BodyUpdate](0)

        async def feed() -> None:
            async with send:
                for number in range(updates):
                    await send.send(make(number))

        async with anyio.create_task_group() as tasks, receive:
            tasks.start_soon(feed)
            async for _ in receive:
                pass

    start = time.perf_counter()
    anyio.run(run, **BACKENDS[backend])
    return time.perf_counter() - start


def record(path: Path) -> None:
    """Write a recording to *path*, compressed where that ends in .gz."""
    header = RecordingHeader(
        format="vmclock-recording",
        version=1,
        counter_id=COUNTER_ID,
        time_type=TimeType.UTC,
        segment_size=112,
        created=datetime.now(UTC),
    )
    records = (Record(t_ns=n, counter=n, seq_count=2 * n, body=body(n)) for n in range(RECORDS))
    text = b"".join(line.model_dump_json().encode() + b"\n" for line in (header, *records))
    path.write_bytes(gzip.compress(text, 1) if path.suffix == ".gz" else text)


def replayed(loops: int, backend: str, path: Path) -> float:
    """Seconds that *loops* replays of the recording at *path* take on *backend*."""
    source = ReplaySource(ReplaySettings.model_validate({"path": path, "speed": 0}))
    return sum(publish(source, RECORDS, backend) for _ in range(loops))


def main() -> None:
    """Run the benchmarks that pyperf's options choose."""
    runner = pyperf.Runner(processes=5, min_time=0.5)
    for backend in BACKENDS:
        for name, make in {"measurement": measurement, "whole body": whole_body}.items():
            way = "merged" if make is measurement else "relayed"
            runner.bench_time_func(f"{name} validated and sent, {backend}", sent, backend, make)
            runner.bench_time_func(f"{name} {way}, {backend}", published, backend, make)
    folder = Path(tempfile.gettempdir())
    for name in ("recording.jsonl", "recording.jsonl.gz"):
        path = folder / f"vmclock-async-bench-{os.getuid()}-{name}"
        if not path.exists():
            record(path)  # once: pyperf runs this program in many processes
        for backend in ("asyncio", "uvloop"):
            runner.bench_time_func(f"{name} replayed, {backend}", replayed, backend, path, inner_loops=RECORDS)


if __name__ == "__main__":
    main()
