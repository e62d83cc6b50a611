"""A part of a recording: the same records as a slice of the whole, found without reading what comes before it."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kit.replays import NS, SHIPPED, header, replay, timed, write
from kit.waits import BOUND_S
from vmclock_async import Publisher, RecordingError, SegmentReader, SourceError, SourceSettingsError, VMClockBody
from vmclock_async.abi import Flags, TimeType
from vmclock_async.recording import Moment, Record, RecordingReader, RecordingWriter
from vmclock_async.sources import build_source
from vmclock_async.testing import Heard, RecordedClock

BEGAN_S = 1_577_836_800
"""2020-01-01T00:00:00Z, the time of the first record that ``timed`` makes."""


def part(path: Path, start: str | None = None, until: str | None = None) -> list[Record]:
    """The records of a part, a few at a time, and once more after a rewind."""
    moments = {name: Moment(text) for name, text in (("start", start), ("until", until)) if text is not None}
    with RecordingReader(path, **moments) as reader:
        found: list[list[Record]] = []
        for _ in range(2):
            found.append([])
            while records := reader.read(7):
                found[-1] += records
            assert reader.read() == []
            assert reader.count(2**30) == len(found[0])
            reader.rewind()
    assert found[0] == found[1]
    return found[0]


@pytest.mark.long
@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from([0, 1, 10, 1000]), min_size=300, max_size=500),
    bounds=st.tuples(st.integers(1, 3000), st.integers(1, 3000)),
)
def test_part_is_the_slice(tmp_path: Path, name: str, steps: list[int], bounds: tuple[int, int]) -> None:
    """From the first record at `start` up to the last before `until`, wherever these lie; records at one time, too."""
    times = [sum(steps[:index]) for index in range(len(steps))]
    records = [timed(at) for at in times]
    path = write(tmp_path / name, records)
    start, until = min(bounds), max(bounds)
    whole = [record for record in records if start <= record.t_ns < until]
    assert part(path, f"{start}ns", f"{until}ns") == whole
    assert part(path, f"{start}ns") == [record for record in records if start <= record.t_ns]
    assert part(path, until=f"{until}ns") == [record for record in records if record.t_ns < until]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_part_of_the_shipped(path: Path) -> None:
    """Every record is the first of the part that begins at its time."""
    with RecordingReader(path) as reader:
        records = reader.read(10_000)
    for index in range(1, len(records)):
        assert part(path, f"{records[index].t_ns}ns") == records[index:]


def at_time(path: Path, text: str) -> Record:
    """The first record of the part that begins at *text*."""
    return part(path, text)[0]


@pytest.mark.long
@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
def test_part_by_time_of_the_bodies(tmp_path: Path, name: str) -> None:
    """A time is compared with what the page said when the record was seen; what had no time lies between its like.

    Hours without a time in the middle, as after a restore nobody repaired, do not lead the search astray.
    """
    records = [timed(at * NS, **({"clock_status": 0} if 200 <= at < 800 else {})) for at in range(1000)]
    path = write(tmp_path / name, records)
    assert at_time(path, "2020-01-01T00:01:40Z") == records[100]
    assert at_time(path, "2020-01-01T00:01:40.000001Z") == records[101]
    assert at_time(path, "2020-01-01T01:01:40+01:00") == records[100]
    assert at_time(path, "2020-01-01T00:04:00Z") == records[800]
    assert at_time(path, "2020-01-01T00:15:00Z") == records[900]
    assert part(path, "2020-01-01T00:01:40Z", "2020-01-01T00:01:45Z") == records[100:105]
    assert part(path, "2020-01-01T00:16:39Z", "17min") == records[999:]
    assert part(path, "2020-01-01T00:16:40Z") == []
    assert part(path, until="2020-01-01T00:04:00Z") == records[:800]


def test_part_by_time_goes_by_the_present_of_a_kept_body(tmp_path: Path) -> None:
    """A body that was kept has the time of its own moment, not of its measurement."""
    kept = {"counter_value": 10**15, "time_sec": BEGAN_S}
    records = [timed(at * NS, **kept) for at in range(60)]
    assert at_time(write(tmp_path / "r.jsonl", records), "2020-01-01T00:00:39.5Z") == records[40]


def test_part_by_time_of_tai(tmp_path: Path) -> None:
    """TAI is taken back to UTC; without a valid offset there is no time."""
    tai = {"tai_offset_sec": -37, "flags": Flags.TAI_OFFSET_VALID}
    records = [timed(at * NS, **(tai if at != 2 else {})) for at in range(60)]
    path = write(tmp_path / "r.jsonl", records, header(time_type=TimeType.TAI))
    assert at_time(path, "2019-12-31T23:59:23Z") == records[0]
    assert at_time(path, "2019-12-31T23:59:25Z") == records[3]
    assert (
        part(write(tmp_path / "s.jsonl", records, header(time_type=TimeType.MONOTONIC)), "2019-12-31T00:00:00Z")
        == []
    )


def read_by_this_thread(work: Callable[[], Any]) -> tuple[int, int]:
    """How many bytes *work* reads from files, and in how many calls (proc_pid_io(5))."""

    def counts() -> tuple[int, int]:
        found = dict(re.findall(r"(\w+): (\d+)", Path("/proc/thread-self/io").read_text()))
        return int(found["rchar"]), int(found["syscr"])

    counts()
    before = counts()
    work()
    after = counts()
    own = len(Path("/proc/thread-self/io").read_text())
    return after[0] - before[0] - own, after[1] - before[1]


def grown(path: Path, records: int) -> Path:
    """A recording of so many seconds, made of few different lines."""
    line = timed(0).model_dump_json().removeprefix('{"t_ns":0')
    with path.open("w") as file:
        file.write(header().model_dump_json() + "\n")
        file.writelines(f'{{"t_ns":{at * NS}{line}\n' for at in range(records))
    return path


@pytest.mark.skipif(not os.access("/proc/thread-self/io", os.R_OK), reason="the kernel counts no reads")
def test_beginning_is_found_without_reading_up_to_it(tmp_path: Path) -> None:
    """Sixteen times the length costs four looks more, each of 32 KiB; and not a sixteenth of the file is read."""
    cost = {}
    for number in (4_000, 64_000):
        path = grown(tmp_path / f"{number}.jsonl", number)

        def first(path: Path = path, number: int = number) -> None:
            with RecordingReader(
                path, start=Moment(f"{number - 1000}s"), until=Moment(f"{number - 999}s")
            ) as reader:
                assert [record.t_ns for record in reader.read()] == [(number - 1000) * NS]

        first()  # what Python itself reads at the first call is no matter
        cost[number] = read_by_this_thread(first)
    (few, few_calls), (many, many_calls) = cost.values()
    assert many - few <= 6 * 32_768
    assert many_calls - few_calls <= 6
    assert many < (tmp_path / "64000.jsonl").stat().st_size / 16


@pytest.mark.skipif(not os.access("/proc/thread-self/io", os.R_OK), reason="the kernel counts no reads")
def test_beginning_is_found_behind_a_stretch_without_time(tmp_path: Path) -> None:
    """Where the search looks first no record gives a time, for longer than one look reaches: it goes on from there."""
    untimed = range(2900, 3100)
    records = [timed(at * NS, **({"clock_status": 0} if at in untimed else {})) for at in range(6000)]
    path = write(tmp_path / "r.jsonl", records)

    def first() -> None:
        with RecordingReader(path, start=Moment("2020-01-01T01:35:00Z")) as reader:
            assert reader.read(1) == [records[5700]]

    first()
    assert read_by_this_thread(first)[0] < path.stat().st_size / 4


def test_bad_line_in_a_part_is_named_by_its_number(tmp_path: Path) -> None:
    """Though the lines before it were never read; and lines before the part may be bad, where the text lies open."""
    path = grown(tmp_path / "r.jsonl", 2000)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:10], b"{}\n", *lines[11:1900], b"{}\n", *lines[1901:]]))
    with RecordingReader(path, start=Moment("1890s")) as reader:
        for _ in range(2):
            assert [record.t_ns // NS for record in reader.read()] == list(range(1890, 1899))
            with pytest.raises(RecordingError, match="line 1901: t_ns: is missing"):
                reader.read()
            reader.rewind()
        with pytest.raises(RecordingError, match="line 1901"):
            reader.count(2**30)


def test_truncated_last_line_of_a_part(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It costs that record alone, and its number is right."""
    path = grown(tmp_path / "r.jsonl", 500)
    path.write_bytes(path.read_bytes()[:-40])
    assert [record.t_ns // NS for record in part(path, "490s")] == list(range(490, 499))
    assert "line 501: cut short" in caplog.text


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"start": "90"}, "start: .*'90' is no duration"),
        ({"until": "2026-03-14T15:09:32"}, "until: .*has no zone: add Z"),
        ({"until": "2026-13-14T15:09:32Z"}, "until: .*no time by ISO 8601"),
        ({"start": "2min", "until": "120s"}, ".*until=120s is not later than start=2min"),
    ],
)
def test_moments_that_make_no_sense(options: dict[str, str], reason: str) -> None:
    """They are refused before anything runs, with the option's name."""
    with pytest.raises(SourceSettingsError, match=f"^replay: {reason}"):
        build_source("replay", {"path": "r.jsonl", **options})


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["r.jsonl", "r.jsonl.gz"])
async def test_replay_of_a_part(segment_path: Path, tmp_path: Path, name: str) -> None:
    """It publishes the slice bit for bit and nothing else, the first at once; its progress knows how many."""
    records = [timed(at * 3600 * NS) for at in range(400)]
    source = replay(write(tmp_path / name, records), start="100h", until="110h", speed=0)
    heard = Heard()
    with anyio.fail_after(BOUND_S):
        await source.run(heard)
        bodies = [update.applied_to(VMClockBody()) for update in heard.updates]
        assert bodies == [record.body for record in records[100:110]]
        assert source.progress() == (10, 10)
        at_once = replay(tmp_path / name, start="100h", until="101h")
        await Publisher(segment_path, [at_once]).run()
    with SegmentReader(segment_path) as reader:
        assert (reader.snapshot().seq_count, reader.snapshot().body) == (2, records[100].body)


@pytest.mark.anyio
@pytest.mark.parametrize("mode", ["recorded", "live"])
async def test_replay_of_no_part(segment_path: Path, mode: str) -> None:
    """A part without a record ends with an error, and does not pass for one that was replayed."""
    with (
        anyio.fail_after(BOUND_S),
        pytest.raises(SourceError, match=r"has no record with start=3h and until=4h; see"),
    ):
        await Publisher(segment_path, [replay(SHIPPED[0], mode=mode, start="3h", until="4h")]).run()


@pytest.mark.anyio
async def test_live_replay_of_a_part(tmp_path: Path) -> None:
    """It is the present from its first record on: the hours before it are not waited for."""
    path = write(tmp_path / "r.jsonl", [timed(at * 3600 * NS) for at in range(5)])
    source = replay(path, mode="live", start="3h", until="3.5h")
    heard = Heard()
    with anyio.fail_after(BOUND_S):
        await source.run(heard)
    assert len(heard.updates) == 1


def test_clock_over_a_part() -> None:
    """Time begins at the part's first record, and it has what the whole has from there on."""
    with (
        RecordedClock(SHIPPED[0], follow_loop=False) as whole,
        RecordedClock(SHIPPED[0], follow_loop=False, start="15s", until="19s") as clock,
    ):
        with RecordingReader(SHIPPED[0]) as reader:
            times = [record.t_ns for record in reader.read() if 15 * NS <= record.t_ns < 19 * NS]
        assert clock.duration_ns == times[-1] - times[0]
        whole.advance(times[0] / NS)
        assert clock.snapshot() == whole.snapshot()
        for _ in range(6):
            whole.advance(0.5)
            clock.advance(0.5)
            assert abs(clock.now().midpoint_ns - whole.now().midpoint_ns) < 1000
    with pytest.raises(RecordingError, match="no record in that part"):
        RecordedClock(SHIPPED[0], start="1h")
    with pytest.raises(ValueError, match="no duration"):
        RecordedClock(SHIPPED[0], start="soon")


def test_writer_does_not_overwrite_what_it_is_not_told_to(tmp_path: Path) -> None:
    """With overwrite=False a file that is there is refused, and stays as it is."""
    path = tmp_path / "r.jsonl"
    path.write_text("mine")
    with pytest.raises(RecordingError, match="File exists"):
        RecordingWriter(path, header(), overwrite=False)
    assert path.read_text() == "mine"
