"""Compressed recordings: told by content, cut short, damaged, or without an end."""

import contextlib
import gzip
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.programs import path_of
from kit.recordings import HEADER, read, read_until_error, some_records, write
from vmclock_async import RecordingError
from vmclock_async.recording import Record, RecordingReader, RecordingWriter


@pytest.fixture
def lines(tmp_path: Path) -> list[bytes]:
    """The lines of a recording of six records, header first."""
    return write(tmp_path / "original.jsonl", some_records(6)).read_bytes().splitlines(keepends=True)


def grown(path: Path, records: list[Record]) -> list[int]:
    """Write *records* to *path*; its size after the header, and after each record, while the writer is open."""
    with RecordingWriter(path, HEADER) as writer:
        sizes = [path.stat().st_size]
        for record in records:
            writer.write(record)
            sizes.append(path.stat().st_size)
    return sizes


NAMED_HEADER = b"\x1f\x8b\x08\x08" + bytes(6)
"""Of a member with a name, which goes on up to a zero."""
EMPTY = gzip.compress(b"")


def test_compression_is_told_by_content(tmp_path: Path) -> None:
    """A compressed recording is read under any name, and a plain one under a name that ends in .gz."""
    records = some_records(4)
    assert read(write(tmp_path / "a.jsonl.gz", records).rename(tmp_path / "a.jsonl")) == records
    assert read(write(tmp_path / "b.jsonl", records).rename(tmp_path / "b.jsonl.gz")) == records


@pytest.mark.parametrize("name", ["killed.jsonl", "killed.jsonl.gz"])
def test_what_was_written_outlives_the_writer(tmp_path: Path, name: str) -> None:
    """Each record is in the file when write() returns: a process that is killed then loses none."""
    path, records = tmp_path / name, some_records(50)
    given = "".join(f"{model.model_dump_json()}\n" for model in (HEADER, *records))
    killed = subprocess.run(
        [sys.executable, path_of("record_and_die"), str(path)], input=given, text=True, timeout=30, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert read(path) == records


def test_gzip_cut_short(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A compressed recording cut at any byte gives every record written before it, and a warning; no quiet loss."""
    records = some_records(12)
    whole = tmp_path / "whole.jsonl.gz"
    sizes = grown(whole, records)
    content = whole.read_bytes()
    path = tmp_path / "cut.jsonl.gz"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        caplog.clear()
        if length < sizes[0]:
            with contextlib.suppress(RecordingError):  # the header may be whole a few bytes before its block is
                assert read(path) == []
            continue
        found = read(path)
        assert found == records[: len(found)]
        assert len(found) >= sum(size <= length for size in sizes[1:])
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        assert str(path) in caplog.text


def test_gzip_cut_short_is_unpacked_by_others(tmp_path: Path) -> None:
    """gzip's own program gets the same lines out of a recording that was cut."""
    records = some_records(5)
    whole = tmp_path / "whole.jsonl.gz"
    sizes = grown(whole, records)
    for size, number in zip(sizes[1:], range(1, 6), strict=True):
        unpacked = subprocess.run(
            ["gzip", "-dc"], input=whole.read_bytes()[:size], capture_output=True, timeout=30, check=False
        )
        assert b"unexpected end of file" in unpacked.stderr
        lines = unpacked.stdout.splitlines()[1:]
        assert [Record.model_validate_json(line) for line in lines] == records[:number]


def test_compression_is_worth_it(tmp_path: Path) -> None:
    """That each record ends a block costs less than what one gzip member a record would cost by far."""
    records = some_records(200)
    text = write(tmp_path / "a.jsonl", records).read_bytes()
    size = write(tmp_path / "a.jsonl.gz", records).stat().st_size
    assert 3 * size < sum(len(gzip.compress(line)) for line in text.splitlines(keepends=True))


@pytest.mark.long
@pytest.mark.parametrize(
    "make",
    [
        lambda: EMPTY * 2_000_000,
        lambda: NAMED_HEADER + b"n" * 300_000_000 + b"\0" + EMPTY[10:],
        lambda: b"\x1f\x8b\x08\x10" + bytes(6) + b"n" * 30_000_000,
        lambda: EMPTY[:10] + b"\0\0\0\xff\xff" * 2_000_000 + EMPTY[10:],
    ],
    ids=["members", "name", "comment", "blocks"],
)
def test_gzip_without_text_is_given_up(segment_path: Path, lines: list[bytes], make: Callable[[], bytes]) -> None:
    """A compressed file that has nothing to say for long is refused, after a small part of it has been read."""
    path = segment_path.with_name("silent.jsonl.gz")
    silent = make()
    for before, line in ((b"", 0), (gzip.compress(b"".join(lines[:3])), 3)):
        path.write_bytes(before + silent)
        if before:
            found, error = read_until_error(path)
            assert found == some_records(2)
        else:
            with pytest.raises(RecordingError) as caught:
                RecordingReader(path)
            error = caught.value
        assert (error.line, "131072 bytes without a byte of text" in error.reason) == (line, True)
        if before:
            with RecordingReader(path) as reader, pytest.raises(RecordingError):
                reader.count(2**30)


def test_damaged_gzip(tmp_path: Path) -> None:
    """Damage to the compressed data is an error that names the last good line, after the records before it."""
    records = some_records(400)
    whole = write(tmp_path / "whole.jsonl.gz", records).read_bytes()
    path = tmp_path / "damaged.jsonl.gz"
    checksum = bytearray(whole)
    checksum[-8] ^= 1
    path.write_bytes(checksum)
    found, error = read_until_error(path)
    assert found == records
    assert (error.line, "damaged" in error.reason) == (401, True)
    middle = len(whole) * 3 // 4
    path.write_bytes(whole[:middle] + b"\xff" * 64 + whole[middle + 64 :])
    found, error = read_until_error(path)
    assert found[:10] == records[:10]
    assert error.line >= len(found)
