"""The recording format: what is written is read again, and what cannot be read says where and why.

Every good record before a bad line is delivered first; then the line is named.
"""

import gzip
import json
import logging
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kit.programs import path_of
from kit.recordings import HEADER, read, read_until_error, some_records, write
from vmclock_async import RecordingError, VMClockBody
from vmclock_async.abi import BODY_FIELDS
from vmclock_async.recording import Record, RecordingReader, RecordingWriter

U64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 2**53 + 1, 2**63, 2**64 - 1])
U8 = st.integers(0, 255)
BODIES = st.fixed_dictionaries(
    dict.fromkeys(BODY_FIELDS, U64)
    | dict.fromkeys(("clock_status", "leap_second_smearing_hint", "leap_indicator", "counter_period_shift"), U8)
    | {"tai_offset_sec": st.integers(-(2**15), 2**15 - 1), "vm_generation_counter": st.none() | U64}
).map(VMClockBody.model_validate)
RECORD = st.builds(Record, t_ns=U64, counter=st.none() | U64, seq_count=st.integers(0, 2**32 - 1), body=BODIES)
RECORDS = st.lists(RECORD, max_size=8).map(lambda records: sorted(records, key=lambda record: record.t_ns))
Edit = Callable[[dict[str, Any]], object]


def edited(line: bytes, edit: Edit) -> bytes:
    """The JSON object in *line* after *edit*."""
    values = json.loads(line)
    edit(values)
    return json.dumps(values).encode() + b"\n"


@pytest.fixture
def lines(tmp_path: Path) -> list[bytes]:
    """The lines of a recording of six records, header first."""
    return write(tmp_path / "original.jsonl", some_records(6)).read_bytes().splitlines(keepends=True)


@pytest.mark.long
@pytest.mark.parametrize("name", ["plain.jsonl", "compressed.jsonl.gz"])
@given(records=RECORDS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(tmp_path: Path, name: str, records: list[Record]) -> None:
    """Header and records come back exactly, all of their 64 bits, unknown enum values and flags included."""
    path = write(tmp_path / name, records)
    assert read(path) == records
    with RecordingReader(path) as reader:
        assert reader.header == HEADER
        assert reader.count(2**30) == len(records)
        assert reader.count(10) is None


def test_same_records_make_the_same_file(tmp_path: Path) -> None:
    """Neither the time nor the file's name is in a recording, compressed or not."""
    for suffix in (".jsonl", ".jsonl.gz"):
        first, second = (write(tmp_path / (name + suffix), some_records(3)) for name in ("one", "two"))
        assert first.read_bytes() == second.read_bytes()


def test_u64_values_are_json_integers(lines: list[bytes]) -> None:
    """A counter of 2**64 - 1 is written as an integer, not as a float or a string; so is each enum and flag."""
    record = json.loads(lines[1])
    assert record["counter"] == 2**64 - 1
    assert {type(value) for name, value in record["body"].items() if name != "vm_generation_counter"} == {int}


def test_limit_and_end(tmp_path: Path) -> None:
    """read() gives as many records as it was asked for while there are any, then none, again and again."""
    records = some_records(5)
    with RecordingReader(write(tmp_path / "r.jsonl", records)) as reader:
        assert [reader.read(2), reader.read(2), reader.read(2)] == [records[:2], records[2:4], records[4:]]
        assert reader.read(2) == reader.read(2) == []


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
def test_rewind(tmp_path: Path, name: str) -> None:
    """After rewind() the first record comes next, from the middle, from the end, and after an error."""
    records = some_records(5)
    path = write(tmp_path / name, records)
    with RecordingReader(path) as reader:
        for limit in (2, 512, 512):
            assert reader.read(limit) == records[:limit]
            reader.rewind()
    opened = gzip.open if name.endswith(".gz") else open
    with opened(path, "ab") as file:
        file.write(b"{}\n")
    with RecordingReader(path) as reader:
        for _ in range(2):
            assert reader.read() == records
            with pytest.raises(RecordingError, match="line 7"):
                reader.read()
            reader.rewind()


def test_no_file(tmp_path: Path) -> None:
    """A path where nothing is: the error says so, as of the file itself (line 0)."""
    with pytest.raises(RecordingError, match="No such file or directory") as caught:
        RecordingReader(tmp_path / "absent.jsonl")
    assert caught.value.line == 0


def test_special_files(tmp_path: Path) -> None:
    """A directory and a FIFO, which nobody writes, are refused at once."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo):
        with pytest.raises(RecordingError, match="not a regular file"):
            RecordingReader(path)


def test_unreadable_file(segment_path: Path) -> None:
    """A file that may not be read: the error gives the system's reason."""
    path = write(segment_path.with_name("secret.jsonl"), some_records(1))
    path.chmod(stat.S_IWUSR)
    done = subprocess.run(
        [sys.executable, path_of("denied_recording"), str(path)],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == f"RecordingError {path}: cannot be read (Permission denied); check the path\n"


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"", 0, "is empty"),
        (gzip.compress(b"", mtime=0), 0, "is empty"),
        (b"\n", 1, "not JSON"),
        (b"VCLK\0\0\0\0", 1, "not JSON"),
        (b"\xff\xfe\n", 1, "not JSON"),
        (b"[]\n", 1, "a recording begins with"),
        (b"{}\n", 1, "format: is missing"),
        (b"x" * 20_000, 1, "more than 16384 bytes"),
        (b"x" * 200_000 + b"\n", 1, "more than 16384 bytes"),
    ],
)
def test_not_a_recording(tmp_path: Path, content: bytes, line: int, reason: str) -> None:
    """A file of another kind is refused when it is opened, however long its first line is."""
    path = tmp_path / "other"
    path.write_bytes(content)
    with pytest.raises(RecordingError, match=reason) as caught:
        RecordingReader(path)
    assert (caught.value.path, caught.value.line) == (str(path), line)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda header: header.update(format="pcap"), "format: .*vmclock-recording"),
        (lambda header: header.update(version=2), "version: .*1.*not 2"),
        (lambda header: header.update(counter_id=256), "counter_id: .*255.*not 256"),
        (lambda header: header.update(segment_size=96), "segment_size: .*104.*not 96"),
        (lambda header: header.update(created="2026-03-14T15:09:26"), "created: .*timezone"),
        (lambda header: header.update(host="a"), "host: no such field"),
        (lambda header: header.pop("time_type"), "time_type: is missing"),
    ],
)
def test_bad_header(tmp_path: Path, lines: list[bytes], edit: Edit, reason: str) -> None:
    """A header that is not one of version 1 is refused when the file is opened; the field is named."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(edited(lines[0], edit) + b"".join(lines[1:]))
    with pytest.raises(RecordingError, match=f"line 1: {reason}"):
        RecordingReader(path)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda record: record.update(note="x"), "note: no such field"),
        (lambda record: record["body"].update(notes=1), "body.notes: no such field"),
        (lambda record: record["body"].update(clock_status=256), "body.clock_status: .* from 0 to 255, not 256"),
        (
            lambda record: record["body"].update(tai_offset_sec=-32769),
            "body.tai_offset_sec: .* from -32768 to 32767, not -32769",
        ),
        (
            lambda record: record["body"].update(counter_value=2**64),
            f"body.counter_value: .* from 0 to {2**64 - 1}, not {2**64}",
        ),
        (lambda record: record["body"].update(time_sec=1.5), "body.time_sec: .*not 1.5"),
        (lambda record: record["body"].update(time_sec="1"), "body.time_sec: .*not '1'"),
        (lambda record: record.update(counter=-1), "counter: .*not -1"),
        (lambda record: record.update(seq_count=2**32), f"seq_count: .*not {2**32}"),
        (lambda record: record.update(body=None), "body: "),
        (lambda record: record.pop("t_ns"), "t_ns: is missing"),
        (lambda record: record.update(t_ns=10**9 - 1), "t_ns goes back from 1000000000 to 999999999"),
    ],
)
@pytest.mark.parametrize("name", ["bad.jsonl", "bad.jsonl.gz"])
def test_bad_record(tmp_path: Path, lines: list[bytes], name: str, edit: Edit, reason: str) -> None:
    """All records before a bad one are delivered; then an error names its line, the field and what is allowed."""
    path = tmp_path / name
    content = b"".join([*lines[:3], edited(lines[3], edit), *lines[4:]])
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found, error = read_until_error(path)
    assert found == some_records(2)
    assert error.line == 4
    with pytest.raises(RecordingError, match=f"line 4: {reason}"):
        raise error


@pytest.mark.parametrize(
    "line",
    [b"\n", b"  \n", b"null\n", b'{"t_ns": 0,\n', b"\0" * 700 + b"\n", b"[" * 10_000 + b"\n", b'{"a": "\xff"}\n'],
)
def test_line_that_is_no_record(tmp_path: Path, lines: list[bytes], line: bytes) -> None:
    """Only the last line may be cut short: anywhere else a blank or broken line is an error that names it."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"".join([*lines[:5], line, *lines[5:]]))
    found, error = read_until_error(path)
    assert (found, error.line) == (some_records(4), 6)


@pytest.mark.parametrize("length", [16_385, 65_537, 500_000])
@pytest.mark.parametrize("end", [b"\n", b""])
def test_overlong_line(tmp_path: Path, lines: list[bytes], length: int, end: bytes) -> None:
    """A line of more than 16384 bytes is refused wherever it lies, even if the rest of it would be good JSON."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"".join([*lines[:3], lines[3].rstrip().ljust(length), end, *(lines[4:] if end else [])]))
    found, error = read_until_error(path)
    assert (found, error.line) == (some_records(2), 4)
    assert "more than 16384 bytes" in error.reason


def test_last_line_cut_short(tmp_path: Path, lines: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    """A last line that was cut anywhere costs itself alone, and a warning names it."""
    path = tmp_path / "cut.jsonl"
    whole = b"".join(lines[:-1])
    for length in range(len(lines[-1]) - 1):
        path.write_bytes(whole + lines[-1][:length])
        caplog.clear()
        assert read(path) == some_records(5)
        expected = [(logging.WARNING, f"{path}, line 7: cut short, and left out")] if length else []
        assert [(record.levelno, record.getMessage()) for record in caplog.records] == expected


@pytest.mark.parametrize("tail", [b"\0" * 3, b"[" * 10_000, b'{"t_ns": "\xe2\x82'])
def test_last_line_of_another_kind(
    tmp_path: Path, lines: list[bytes], tail: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What a crash may leave at the end, zeros or half a character, is left out like any line cut short."""
    path = tmp_path / "cut.jsonl"
    path.write_bytes(b"".join(lines) + tail)
    assert read(path) == some_records(6)
    assert "line 8: cut short" in caplog.text


def test_last_line_without_newline(tmp_path: Path, lines: list[bytes], caplog: pytest.LogCaptureFixture) -> None:
    """A last line that is whole but for its newline is kept, without a warning; whole and bad, it is an error."""
    path = tmp_path / "r.jsonl"
    path.write_bytes(b"".join(lines)[:-1])
    assert read(path) == some_records(6)
    assert not caplog.records
    path.write_bytes(b"".join(lines) + b"{}")
    assert read_until_error(path)[1].line == 8


def test_error_stays(tmp_path: Path, lines: list[bytes]) -> None:
    """Reading on after an error raises it again; nothing after the bad line is delivered."""
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b"".join([*lines[:2], b"{}\n", *lines[2:]]))
    with RecordingReader(path) as reader:
        assert reader.read() == some_records(1)
        for _ in range(2):
            with pytest.raises(RecordingError, match="line 3"):
                reader.read()


@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
def test_unwritable(tmp_path: Path, name: str) -> None:
    """A recording that cannot be created, or whose disk is full, is an error that gives the system's reason."""
    with pytest.raises(RecordingError, match="No such file or directory"):
        RecordingWriter(tmp_path / "absent" / name, HEADER)
    full = tmp_path / name
    full.symlink_to("/dev/full")
    with pytest.raises(RecordingError, match="No space left on device"):
        write(full, some_records(100))
