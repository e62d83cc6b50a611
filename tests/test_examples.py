"""The examples: recordings that come out the same every time and tell the truth, and programs that run.

The simulation behind the recordings knows true time; so here, and only here, it can be asked whether every bound
that a recorded body gives does contain it.
"""

import gzip
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest

from vmclock_async import (
    ClockNotSynchronizedError,
    ClockStatus,
    CounterId,
    Flags,
    LeapIndicator,
    Snapshot,
    TimeType,
)
from vmclock_async.reckoning import bounds_at, reckon
from vmclock_async.recording import Record, RecordingHeader, RecordingReader

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NS = 10**9
BOUNDS = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
NAMES = (
    "demo.jsonl",
    "leap-second.jsonl",
    "live-migration.jsonl",
    "snapshot-restore.jsonl.gz",
    "time-source-lost.jsonl",
)
UNKNOWN, INITIALIZING, SYNCHRONIZED, FREERUNNING = list(ClockStatus)[:4]


def path_of(name: str) -> Path:
    """Where the repository keeps the recording called *name*."""
    return ROOT / "src/vmclock_async/_cli" / name if name == "demo.jsonl" else EXAMPLES / "recordings" / name


def read(name: str) -> tuple[RecordingHeader, list[Record]]:
    """The header and the records of the recording called *name*."""
    with RecordingReader(path_of(name)) as reader:
        return reader.header, reader.read(10_000)


def snapshot_of(header: RecordingHeader, record: Record) -> Snapshot:
    """*record* as a reader would have seen it."""
    return Snapshot(
        magic=0x4B4C4356,
        size=header.segment_size,
        version=1,
        counter_id=header.counter_id,
        time_type=header.time_type,
        seq_count=record.seq_count,
        body=record.body,
        inode=1,
    )


def statuses(records: list[Record]) -> list[int]:
    """The statuses that *records* go through."""
    return [status for status, _ in groupby(record.body.clock_status for record in records)]


def change_of(records: list[Record], field: str) -> tuple[Record, Record]:
    """The records before and after the only change of *field*."""
    (found,) = (
        (before, after)
        for before, after in pairwise(records)
        if getattr(before.body, field) != getattr(after.body, field)
    )
    return found


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    """The module of make_recordings.py."""
    spec = importlib.util.spec_from_file_location("make_recordings", ROOT / "tools/make_recordings.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["make_recordings"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["make_recordings"]


def run(name: str, *arguments: object) -> str:
    """What the example called *name* prints; it must succeed and have nothing to complain of."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_recordings_come_out_the_same(tmp_path: Path) -> None:
    """make_recordings.py writes what lies in the repository, byte for byte, and nothing else."""
    printed = run("../tools/make_recordings.py", tmp_path).splitlines()
    assert sorted(printed) == [str(tmp_path / name) for name in NAMES]
    assert sorted(path.name for path in tmp_path.iterdir()) == list(NAMES)
    for name in NAMES:
        made, kept = (tmp_path / name).read_bytes(), path_of(name).read_bytes()
        if name.endswith(".gz"):  # the same data; another zlib may pack it otherwise
            made, kept = gzip.decompress(made), gzip.decompress(kept)
        assert made == kept
    assert sorted(path.name for path in (EXAMPLES / "recordings").iterdir()) == list(NAMES[1:])


@pytest.mark.parametrize("name", NAMES)
def test_recordings_tell_the_truth(script: Any, name: str) -> None:
    """Each body's interval contains true UTC, at its own commit and on to the next one; a void body has none."""
    header, records = read(name)
    seen = script.RECORDINGS[name]().seen
    assert [entry.record for entry in seen] == records
    bounded = 0
    for (record, true_utc_ns), (following, later_utc_ns) in pairwise([*seen, seen[-1]]):
        snapshot = snapshot_of(header, record)
        if record.body.clock_status not in (SYNCHRONIZED, FREERUNNING):
            with pytest.raises(ClockNotSynchronizedError):
                bounds_at(snapshot, record.counter, counter_id=CounterId.X86_TSC)
            continue
        looks = [(record.counter, true_utc_ns)]
        if following.body.disruption_marker == record.body.disruption_marker:
            looks.append((following.counter, later_utc_ns))
        for counter, utc_ns in looks:
            bounds = bounds_at(snapshot, counter, counter_id=CounterId.X86_TSC)
            assert bounds.earliest_ns <= utc_ns <= bounds.latest_ns
        bounded += 1
    assert bounded > 15


@pytest.mark.parametrize("name", NAMES)
def test_recordings_are_small_and_whole(name: str) -> None:
    """A recording is under 100 kB, of a 112-byte TSC segment, with a record or two a second and none missing."""
    header, records = read(name)
    assert path_of(name).stat().st_size < 100_000
    assert (header.counter_id, header.segment_size) == (CounterId.X86_TSC, 112)
    assert [record.seq_count for record in records] == list(range(2, 2 * len(records) + 1, 2))
    assert records[0].t_ns == 0
    seconds = records[-1].t_ns / NS
    assert 12 < seconds < 15 if name == "demo.jsonl" else 15 < seconds < 30
    assert 0.6 < len(records) / seconds < 2.5
    assert None not in [record.counter for record in records]


@pytest.mark.parametrize("name", ["live-migration.jsonl", "snapshot-restore.jsonl.gz"])
def test_disruption(name: str) -> None:
    """The commit with the new marker is the void one; time is found again, with a bound that shrinks anew."""
    _, records = read(name)
    before, after = change_of(records, "disruption_marker")
    assert before.body.flags & BOUNDS == BOUNDS
    assert (after.body.clock_status, after.body.flags & BOUNDS) == (UNKNOWN, 0)
    assert after.body.disruption_marker > before.body.disruption_marker
    assert statuses(records) == [SYNCHRONIZED, UNKNOWN, INITIALIZING, SYNCHRONIZED]
    fresh = [record for record in records if record.t_ns > after.t_ns and record.body.clock_status == SYNCHRONIZED]
    assert fresh[0].body.time_maxerror_nanosec > 2 * before.body.time_maxerror_nanosec
    assert fresh[-1].body.time_maxerror_nanosec < fresh[0].body.time_maxerror_nanosec / 2
    # To the counter before, the counter after is nonsense: seconds off, one way or the other.
    seen = reckon(before.body, after.counter or 0)
    assert abs(seen.elapsed >> 64) > 1000


def test_live_migration() -> None:
    """The migration is announced before it comes; it changes the marker and the frequency, not the generation."""
    _, records = read("live-migration.jsonl")
    before, after = change_of(records, "disruption_marker")
    announced = [record for record in records if record.body.flags & Flags.DISRUPTION_IMMINENT]
    assert announced[-1] == before
    assert 2 * NS < after.t_ns - announced[0].t_ns < 10 * NS
    assert {record.body.vm_generation_counter for record in records} == {None}
    ratio = records[-1].body.counter_period_frac_sec / records[0].body.counter_period_frac_sec
    assert not 0.99 < ratio < 1.01
    elapsed_s = records[-1].body.time_sec - records[0].body.time_sec
    assert abs(elapsed_s - records[-1].t_ns / NS) < 2


def test_snapshot_restore() -> None:
    """Marker and generation change in one commit, unannounced; time is hours later than the recorder counted."""
    _, records = read("snapshot-restore.jsonl.gz")
    assert change_of(records, "disruption_marker") == change_of(records, "vm_generation_counter")
    assert not any(record.body.flags & Flags.DISRUPTION_IMMINENT for record in records)
    elapsed_s = records[-1].body.time_sec - records[0].body.time_sec
    assert elapsed_s - records[-1].t_ns // NS > 5 * 3600


def test_leap_second() -> None:
    """The leap second at the end of 2016 is announced, comes, is over; then the offset is -37, never before."""
    header, records = read("leap-second.jsonl")
    assert header.time_type == TimeType.TAI
    seen = [(record.body.leap_indicator, record.body.tai_offset_sec) for record in records]
    assert [value for value, _ in groupby(seen)] == [
        (LeapIndicator.PRE_POS, -36),
        (LeapIndicator.POS, -36),
        (LeapIndicator.POST_POS, -37),
    ]
    for record in records:
        # 1483228836 is TAI at 2016-12-31 23:59:60.
        in_leap_second = record.body.time_sec == 1_483_228_836
        assert (record.body.leap_indicator == LeapIndicator.POS) == in_leap_second
    assert statuses(records) == [SYNCHRONIZED]


def test_time_source_lost() -> None:
    """Free-running changes status and flags alone; the bound grows past what the next measurement brings."""
    _, records = read("time-source-lost.jsonl")
    assert statuses(records) == [SYNCHRONIZED, FREERUNNING, SYNCHRONIZED]
    at = [record.body.clock_status for record in records].index(FREERUNNING)
    before, lost, back = records[at - 1 : at + 2]
    assert lost.body == before.body.model_copy(
        update={"clock_status": lost.body.clock_status, "flags": lost.body.flags}
    )
    assert lost.body.flags & BOUNDS == BOUNDS
    grown_ns = reckon(lost.body, back.counter or 0).maxerror_ns
    assert grown_ns > 5 * before.body.time_maxerror_nanosec
    assert back.body.time_maxerror_nanosec < grown_ns / 2
    assert {record.body.disruption_marker for record in records} == {2}


def test_demo() -> None:
    """In 13 s: synchronized ever better, announced, migrated at about 5 s, restored at about 9 s, synchronized."""
    _, records = read("demo.jsonl")
    lost_and_found = [SYNCHRONIZED, UNKNOWN, INITIALIZING]
    assert statuses(records) == [*lost_and_found, *lost_and_found, SYNCHRONIZED]
    migrated, restored = (
        (before, after)
        for before, after in pairwise(records)
        if before.body.disruption_marker != after.body.disruption_marker
    )
    assert migrated[1].t_ns / NS == pytest.approx(5, abs=0.1)
    assert restored[1].t_ns / NS == pytest.approx(9, abs=0.1)
    assert change_of(records, "vm_generation_counter") == restored
    announced = [record for record in records if record.body.flags & Flags.DISRUPTION_IMMINENT]
    assert announced[-1] == migrated[0]
    assert records[0].body.time_maxerror_nanosec > 3 * migrated[0].body.time_maxerror_nanosec


def test_programs(segment_path: Path) -> None:
    """follow_segment.py prints what publish_in_process.py does in another process, and ends well."""
    program = [str(EXAMPLES / "publish_in_process.py"), str(segment_path), "--seconds", "3600"]
    publishing = subprocess.Popen(
        [sys.executable, "-u", "-W", "error", *program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert publishing.stdout is not None
        assert publishing.stdout.readline() == f"publishing to {segment_path} for 3600 s\n"
        assert publishing.stdout.readline().endswith("commits so far\n")
        lines = run("follow_segment.py", segment_path, "--changes", 6, "--seconds", 3600).splitlines()
    finally:
        publishing.kill()
        _, errors = publishing.communicate()
    assert errors == ""
    assert len(lines) == 7
    counts = [int(line.split()[0].removeprefix("seq_count=")) for line in lines]
    assert counts == sorted(counts)  # one commit may show two events
    text = "\n".join(lines)
    assert "status=UNKNOWN the counter was disrupted" in text
    assert "a disruption is announced" in text


def test_programs_by_themselves(tmp_path: Path) -> None:
    """Without a path the publisher makes its own; a follower of nothing says what is wrong, in one line."""
    assert run("publish_in_process.py", "--seconds", 0.5).endswith("stopped\n")
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "follow_segment.py"), str(tmp_path / "absent")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"follow_segment: {tmp_path / 'absent'}: ")
    assert done.stderr.count("\n") == 1


def test_follower_ends_in_time(tmp_path: Path) -> None:
    """A follower of a segment that nobody changes ends after the seconds it was given."""
    page = bytes.fromhex("56434c4b68000000010001000200000000") + bytes(87)
    (tmp_path / "page").write_bytes(page)
    (tmp_path / "page").chmod(0o644)
    lines = run("follow_segment.py", tmp_path / "page", "--seconds", 0.1).splitlines()
    assert lines == ["seq_count=2 marker=0 status=UNKNOWN", "0.1 s are over"]


@pytest.mark.parametrize("without", [(), ("timeout", "asyncio")], ids=["as-here", "with-pytest-alone"])
def test_example_of_a_test(without: tuple[str, ...]) -> None:
    """A program's own test, as a user would run it: ten minutes of leases in less than a second or so.

    The plugins that this project's own tests need are not asked of whoever tries an example.
    """
    command = [sys.executable, "-m", "pytest", "-q", str(EXAMPLES / "test_step_down.py")]
    command += [option for plugin in ("cacheprovider", *without) for option in ("-p", f"no:{plugin}")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
