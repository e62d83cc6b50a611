"""Recordings of another machine, and sources that replay them."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vmclock_async import ClockStatus, Flags, TimeType, VMClockBody
from vmclock_async.recording import Record, RecordingHeader, RecordingReader, RecordingWriter
from vmclock_async.timebase import fixed_point_period
from vmclock_replay import ReplaySettings, ReplaySource

ROOT = Path(__file__).parents[2]
SHIPPED = [
    *(ROOT / "examples/recordings" / name for name in ("live-migration.jsonl", "snapshot-restore.jsonl.gz")),
    *(ROOT / "examples/recordings" / name for name in ("leap-second.jsonl", "time-source-lost.jsonl")),
    ROOT / "src/vmclock_async/_cli/demo.jsonl",
]
NS = 10**9
BOUNDED = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
PERIOD_2_GHZ = fixed_point_period(NS, 2 * NS)


def header(*, counter_id: int = 1, time_type: int = TimeType.UTC) -> RecordingHeader:
    """The header of a recording made on some other machine."""
    return RecordingHeader(
        format="vmclock-recording",
        version=1,
        counter_id=counter_id,
        time_type=time_type,
        segment_size=112,
        created=datetime(2020, 1, 1, tzinfo=UTC),
    )


def timed(t_ns: int, **changes: int) -> Record:
    """A record of a 2 GHz machine in 2020, measured and seen at *t_ns*, bounded to 2 ms and 50 ppm."""
    measured = {
        "flags": BOUNDED,
        "clock_status": ClockStatus.SYNCHRONIZED,
        "counter_value": 10**15 + 2 * t_ns,
        "counter_period_shift": PERIOD_2_GHZ.shift,
        "counter_period_frac_sec": PERIOD_2_GHZ.frac_sec,
        "counter_period_maxerror_rate_frac_sec": PERIOD_2_GHZ.frac_sec // 20_000,
        "time_sec": 1_577_836_800 + t_ns // NS,
        "time_frac_sec": (t_ns % NS << 64) // NS,
        "time_maxerror_nanosec": 2_000_000,
    }
    body = VMClockBody.model_validate({**measured, **changes})
    return Record(t_ns=t_ns, counter=10**15 + 2 * t_ns, seq_count=2, body=body)


def write(path: Path, records: list[Record], head: RecordingHeader | None = None) -> Path:
    """A recording of *records* at *path*."""
    with RecordingWriter(path, head or header()) as writer:
        for record in records:
            writer.write(record)
    return path


def read(path: Path) -> tuple[RecordingHeader, list[Record]]:
    """The recording at *path*."""
    with RecordingReader(path) as reader:
        return reader.header, reader.read(10_000)


def replay(path: Path, **options: Any) -> ReplaySource:
    """A replay source for *path*."""
    return ReplaySource(ReplaySettings(path=path, **options))
