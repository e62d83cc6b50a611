"""Recordings of the tests' own: written, read, and read up to an error."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from vmclock_async import RecordingError, VMClockBody
from vmclock_async.recording import Record, RecordingHeader, RecordingReader, RecordingWriter

HEADER = RecordingHeader(
    format="vmclock-recording",
    version=1,
    counter_id=1,
    time_type=0,
    segment_size=112,
    created=datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC),
)


def some_records(number: int) -> list[Record]:
    """Records that differ in every field that a recording counts."""
    return [
        Record(
            t_ns=index * 10**9,
            counter=2**64 - 1 - index,
            seq_count=2 * index + 2,
            body=VMClockBody(disruption_marker=index, clock_status=2, time_sec=1_700_000_000 + index),
        )
        for index in range(number)
    ]


def write(path: Path, records: list[Record], header: RecordingHeader = HEADER) -> Path:
    """A recording of *records* at *path*."""
    with RecordingWriter(path, header) as writer:
        for record in records:
            writer.write(record)
    return path


def read(path: Path) -> list[Record]:
    """All records at *path*, a few at a time."""
    found: list[Record] = []
    with RecordingReader(path) as reader:
        while records := reader.read(3):
            found += records
    return found


def read_until_error(path: Path) -> tuple[list[Record], RecordingError]:
    """The records at *path* that come before its bad line, and the error about that."""
    found: list[Record] = []
    with RecordingReader(path) as reader:
        try:
            while records := reader.read(3):
                found += records
        except RecordingError as exc:
            return found, exc
    pytest.fail(f"no error; read {len(found)} records")
