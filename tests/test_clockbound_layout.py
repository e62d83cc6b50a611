"""ClockBound's layouts: what is read from the bytes of a twin of its writer, and from any others."""

import os
import socket
import struct
from collections.abc import Callable
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from kit.clockbound import FIELDS, MAGIC, NS, SIZES, UNKNOWN, fields, put, segment
from kit.forks import Started
from vmclock_async.clockbound import ErrorBound, ErrorBoundStatus, Layout, read_error_bound
from vmclock_async.clockbound._layout import pack, unpack
from vmclock_async.errors import (
    SegmentError,
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentUnstableError,
    SegmentVersionNotSupportedError,
)

LAYOUTS = pytest.mark.parametrize("layout", list(Layout))
EACH = {
    "as_of_s": 11,
    "as_of_ns": 22,
    "void_after_s": 33,
    "void_after_ns": 44,
    "bound": 55,
    "marker": 2**64 - 66,
    "drift": 777,
    "status": 3,
    "enabled": 1,
}
"""A value of its own for each field."""
BOUND = ErrorBound(
    as_of_ns=11 * NS + 22,
    void_after_ns=33 * NS + 44,
    bound_ns=55,
    max_drift_ppb=777,
    status=ErrorBoundStatus.DISRUPTED,
    disruption_marker=2**64 - 66,
    detects_disruptions=True,
)


@LAYOUTS
def test_each_field_is_read_from_its_place(tmp_path: Path, layout: Layout) -> None:
    """Bytes that the twin wrote give each value back under its name."""
    tick = {"as_of_tsc": 99, "period": 0.5, "period_err": 0.25} if layout is Layout.V3 else {}
    path = put(tmp_path / "shm", segment(layout, **EACH, **tick))
    read = read_error_bound(path, layout=layout)
    shared = [field.name for field in fields_of(ErrorBound)][:7]
    assert [getattr(read, name) for name in shared] == [getattr(BOUND, name) for name in shared]
    assert (read.counter_ticks, read.tick_s, read.tick_error_s) == ((99, 0.5, 0.25) if tick else (0, 0, 0))


@LAYOUTS
def test_each_field_is_written_to_its_place(layout: Layout) -> None:
    """The twin finds each value, the header, and zeros elsewhere."""
    page = pack(layout, BOUND, generation=8)
    assert len(page) == layout.size == SIZES[layout]
    found = fields(page, layout)
    assert {name: found[name] for name in EACH} == EACH
    assert found["size"] == layout.size
    assert found["generation"] == 8
    assert found.get("version", 2) == 2
    assert (found.get("min_version", 3), found.get("max_version", 3)) == (3, 3)
    written = {offset + at for offset, form in FIELDS[layout].values() for at in range(struct.calcsize(form))}
    assert {at for at in range(8, len(page)) if page[at]} <= written
    assert pack(layout, unpack("/x", layout, page), generation=8) == page


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "a drift of one": ({"drift": NS}, "max_drift_ppb is 1000000000"),
    "the largest drift": ({"drift": 2**32 - 1}, "max_drift_ppb"),
    "a negative bound": ({"bound": -1}, "bound is -1 ns"),
    "a status without a name": ({"status": 4}, "status is 4"),
    "a negative status": ({"status": -1}, "status is -1"),
    "a time before the boot": ({"as_of_s": -1}, "as_of is -1 s"),
    "too many nanoseconds": ({"as_of_ns": NS}, "as_of"),
    "negative nanoseconds": ({"void_after_ns": -1}, "void_after"),
    "the end of time": ({"void_after_s": 2**63 - 1}, "void_after"),
    "a bool of two": ({"enabled": 2}, "clock_disruption_support_enabled is 2"),
    "another size": ({"size": 104}, "its size is 104, not 80"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_segment_is_refused_by_name(tmp_path: Path, name: str) -> None:
    """The error says which field has which value, and what to do."""
    changes, words = MALFORMED[name]
    with pytest.raises(SegmentMalformedError, match=words) as caught:
        read_error_bound(put(tmp_path / "shm", segment(**changes)))
    assert caught.value.remedy


@LAYOUTS
def test_segment_of_another_version_is_refused(tmp_path: Path, layout: Layout) -> None:
    """By the version that was seen; a layout is never read as the other one."""
    other = Layout.V3 if layout is Layout.V2 else Layout.V2
    path = put(tmp_path / "shm", segment(other))
    with pytest.raises(SegmentVersionNotSupportedError, match=f"not {layout.value}"):
        read_error_bound(path, layout=layout)


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (b"", "empty"),
        (segment(generation=0), "generation is 0"),
        (segment(version=0), "version is 0"),
    ],
    ids=["empty", "generation", "version"],
)
def test_segment_that_has_nothing_yet(tmp_path: Path, page: bytes, words: str) -> None:
    """An empty file, generation 0 and version 0 are not initialized, which may change."""
    with pytest.raises(SegmentNotInitializedError, match=words):
        read_error_bound(put(tmp_path / "shm", page))
    with pytest.raises(SegmentNotInitializedError, match="nothing is there"):
        read_error_bound(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("page", "words"),
    [
        (segment()[:15], "15 bytes are too few"),
        (segment()[:79], "ends after 79 bytes"),
        (b"VCLK" + segment()[4:], "is no segment of ClockBound"),
        (bytes(80), "is no segment of ClockBound"),
    ],
    ids=["no header", "cut", "another magic", "zeros"],
)
def test_file_that_is_no_segment(tmp_path: Path, page: bytes, words: str) -> None:
    """It is malformed, whatever stands where the generation would be."""
    with pytest.raises(SegmentMalformedError, match=words):
        read_error_bound(put(tmp_path / "shm", page))


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    """A directory, a FIFO and a socket are refused without a wait."""
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, words in {
            tmp_path: "is a directory",
            tmp_path / "fifo": "a FIFO",
            tmp_path / "socket": "socket",
        }.items():
            with pytest.raises(SegmentMalformedError, match=words):
                read_error_bound(path)


@pytest.mark.parametrize("mode", [0o622, 0o664])
def test_segment_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    """Its bound may be anybody's; the error names the mode and chmod."""
    path = put(tmp_path / "shm", segment())
    path.chmod(mode)
    with pytest.raises(SegmentError, match=f"mode 0{mode:o}.*chmod go-w"):
        read_error_bound(path)


@given(page=st.binary(max_size=120) | st.binary(max_size=112).map(lambda rest: MAGIC + rest))
@example(page=segment() + b"more")
def test_any_bytes_give_a_bound_or_an_error_of_ours(page: bytes) -> None:
    """Nothing else is raised, and what is read can be written."""
    for layout in Layout:
        try:
            bound = unpack("/x", layout, page)
        except SegmentError:
            continue
        assert bound.bound_ns >= 0
        assert bound.max_drift_ppb < NS
        assert pack(layout, bound)


@given(
    changes=st.fixed_dictionaries(
        {},
        optional={
            "bound": st.integers(-(2**63), 2**63 - 1),
            "drift": st.integers(0, 2**32 - 1),
            "status": st.integers(-(2**31), 2**31 - 1),
            "as_of_s": st.integers(-(2**63), 2**63 - 1),
            "as_of_ns": st.integers(-(2**63), 2**63 - 1),
            "enabled": st.integers(0, 255),
            "generation": st.integers(0, 2**16 - 1),
        },
    )
)
def test_any_fields_give_a_bound_or_an_error_of_ours(changes: dict[str, int]) -> None:
    """A segment with a good header and any values behind it."""
    try:
        bound = unpack("/x", Layout.V2, segment(**changes))
    except SegmentError:
        return
    assert 0 <= bound.as_of_ns < 2**63
    assert bound.bound_ns == changes.get("bound", 10_000)


def test_segment_of_a_dead_writer_is_unstable(tmp_path: Path) -> None:
    """An odd generation that stays: the read ends, and says at which generation."""
    with pytest.raises(SegmentUnstableError, match="stays odd at 7") as caught:
        read_error_bound(put(tmp_path / "shm", segment(generation=7)))
    assert caught.value.seq_count == 7


def numbered(n: int) -> ErrorBound:
    """A bound whose fields are all *n*."""
    return ErrorBound(
        as_of_ns=n * NS + n,
        void_after_ns=n * NS + n,
        bound_ns=n,
        max_drift_ppb=n,
        status=ErrorBoundStatus.SYNCHRONIZED,
        disruption_marker=n,
    )


def test_no_copy_is_torn(tmp_path: Path, start_script: Callable[..., Started]) -> None:
    """Beside a writer that hardly rests each copy is whole: all of its fields are of one commit."""
    path = put(tmp_path / "shm", segment(generation=65_000, status=UNKNOWN))
    writer = start_script("commit_bounds", path)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "ready\n"
    reads, seen = 0, set[int]()
    while reads < 20_000 or len(seen) < 2:
        reads += 1
        try:
            bound = read_error_bound(path)
        except SegmentUnstableError:
            continue
        assert bound == numbered(bound.bound_ns) or bound.status == UNKNOWN
        seen.add(bound.bound_ns)
