"""What a report shows of a recording, as numbers: held against a clock over the same recording, and known moments."""

from bisect import bisect_right
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from kit.recordings import write
from vmclock_async import ClockError, RecordingError
from vmclock_async._cli.reporting.columns import LARGEST, Columns, Point
from vmclock_async._cli.reporting.distribution import Distribution
from vmclock_async._cli.reporting.series import Report, collect
from vmclock_async.abi import name_of
from vmclock_async.recording import Record, RecordingReader
from vmclock_async.testing import RecordedClock

RECORDINGS = Path(__file__).parent.parent / "examples/recordings"
NAMES = tuple(sorted(path.name for path in RECORDINGS.iterdir()))
S = 10**9


def report_of(path: Path) -> Report:
    with RecordingReader(path) as reader:
        return collect(reader)


def records_of(name: str) -> list[Record]:
    with RecordingReader(RECORDINGS / name) as reader:
        return reader.read(1000)


def timed(t_ns: int, record: Record, seq_count: int, **fields: object) -> Record:
    """*record* as if it had been committed at *t_ns*, its time and its counter with it."""
    body = record.body
    ticks = t_ns * 2 ** (64 + body.counter_period_shift) // (body.counter_period_frac_sec * S)
    seconds, ns = divmod(t_ns, S)
    later = {
        "counter_value": body.counter_value + ticks,
        "time_sec": body.time_sec + seconds,
        "time_frac_sec": body.time_frac_sec // 2 + (ns << 63) // S,
    }
    return Record(
        t_ns=t_ns,
        counter=body.counter_value + ticks,
        seq_count=seq_count,
        body=body.model_copy(update=later | fields),
    )


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_each_point_of_the_line_is_what_a_clock_over_the_recording_reads(name: str) -> None:
    """The bound, to the nanosecond; and a gap in the line exactly where the clock refuses."""
    report = report_of(RECORDINGS / name)
    drawn: dict[int, set[int | None]] = {}
    for point in report.bound:
        drawn.setdefault(point.t_ns, set()).add(point.value)
    assert len(drawn) > 1000
    with RecordedClock(RECORDINGS / name, follow_loop=False) as clock:
        for t_ns, values in drawn.items():
            assert bound_at(clock, t_ns) in values, t_ns


def bound_at(clock: RecordedClock, t_ns: int) -> int | None:
    """What *clock* reads *t_ns* after the beginning."""
    clock._time._advanced_ns = t_ns  # advance() takes seconds
    try:
        return clock.now().error_ns
    except ClockError:
        return None


@pytest.mark.parametrize(
    ("name", "bound_ns", "at_ns"),
    [
        ("leap-second.jsonl", 1_000_116_513, 10_004_265_517),
        ("live-migration.jsonl", 470_288, 14_002_871_746),
        ("snapshot-restore.jsonl.gz", 651_127, 12_003_166_261),
        ("time-source-lost.jsonl", 689_612, 20_002_138_574),
    ],
)
def test_largest_bound_and_its_moment(name: str, bound_ns: int, at_ns: int) -> None:
    """It is reached right before a commit, and is a point of the line."""
    report = report_of(RECORDINGS / name)
    assert report.bound_ns is not None
    assert (report.bound_ns.max, report.bound_max_at_ns) == (bound_ns, at_ns)
    assert Point(at_ns, bound_ns) in report.bound
    assert at_ns + 1 in {record.t_ns for record in records_of(name)}


def test_marks_of_a_migration() -> None:
    """Announcement, disruption and loss of the time, each at its record."""
    report = report_of(RECORDINGS / "live-migration.jsonl")
    assert [(mark.t_ns, mark.kind) for mark in report.marks] == [
        (7_400_324_711, "maintenance"),
        (11_303_798_308, "disrupted"),
        (11_303_798_308, "unbounded"),
    ]
    assert report.marks[1].text == "disrupted: marker 7 to 8"
    assert report.marks[2].text == "no bounded time: clock_status is UNKNOWN"


def test_marks_of_a_restore_and_of_a_leap_second() -> None:
    """A restore has its generation; a leap second that is announced already is a mark at the first record."""
    restored = report_of(RECORDINGS / "snapshot-restore.jsonl.gz").marks
    assert [mark.kind for mark in restored] == ["disrupted", "restored", "unbounded"]
    assert restored[1].text == "restored: generation 1592590337 to 1592590338"
    leap = report_of(RECORDINGS / "leap-second.jsonl").marks
    assert [(mark.t_ns, mark.text) for mark in leap] == [
        (0, "leap second: PRE_POS"),
        (10_004_265_518, "leap second: POS"),
        (11_006_111_347, "leap second: POST_POS"),
    ]


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_times_in_each_status_are_those_between_the_records(name: str) -> None:
    """They add up to the length of the recording, as do the bands; without a bound is the time of other statuses."""
    report = report_of(RECORDINGS / name)
    expected: dict[str, int] = {}
    for record, later in pairwise(records_of(name)):
        status = name_of(record.body.clock_status)
        expected[status] = expected.get(status, 0) + later.t_ns - record.t_ns
    assert report.status_ns == expected
    assert sum(band.end_ns - band.begin_ns for band in report.bands) == report.duration_ns
    untimed = sum(expected.get(status, 0) for status in ("UNKNOWN", "INITIALIZING", "UNRELIABLE"))
    assert report.unbounded_ns == untimed


def test_bound_ends_where_the_reference_is_too_old(tmp_path: Path) -> None:
    """1000 s after the reference, to the nanosecond, though no record is there; the mark says why."""
    first = records_of("live-migration.jsonl")[0]
    path = write(tmp_path / "stale.jsonl", [timed(0, first, 2), timed(1500 * S, first, 4)])
    report = report_of(path)
    (mark,) = report.marks
    assert mark.kind == "unbounded"
    assert "more than 1000 s" in mark.text
    with RecordedClock(path, follow_loop=False) as clock:
        assert report.bound_ns is not None
        assert bound_at(clock, mark.t_ns - 1) == report.bound_ns.max
        assert bound_at(clock, mark.t_ns) is None
    assert report.unbounded_ns == 1500 * S - mark.t_ns


def test_gaps_count_the_commits_that_were_not_seen(tmp_path: Path) -> None:
    """A step of 2 is none; one across the end of the numbers is small; a step back is a new segment."""
    first = records_of("live-migration.jsonl")[0]
    numbers = (2**32 - 4, 2**32 - 2, 4, 12, 2)
    records = [timed(at * S, first, number) for at, number in enumerate(numbers)]
    report = report_of(write(tmp_path / "gaps.jsonl", records))
    assert [(mark.t_ns // S, mark.kind, mark.text) for mark in report.marks] == [
        (2, "gap", f"gap: 2 commits not seen, seq_count {2**32 - 2} to 4"),
        (3, "gap", "gap: 3 commits not seen, seq_count 4 to 12"),
        (4, "gap", "gap: seq_count went back from 12 to 2, because the segment was started again"),
    ]
    assert report.commits_missed == 5


def test_restore_is_seen_across_a_page_that_lacks_its_generation(tmp_path: Path) -> None:
    """As the events of a clock have it."""
    first = records_of("snapshot-restore.jsonl.gz")[0]
    bodies: list[dict[str, object]] = [
        {},
        {"vm_generation_counter": None, "flags": first.body.flags & ~0x100},
        {"vm_generation_counter": 7, "disruption_marker": 5},
    ]
    records = [timed(at * S, first, 2 * at + 2, **fields) for at, fields in enumerate(bodies)]
    marks = report_of(write(tmp_path / "restored.jsonl", records)).marks
    assert [mark.text for mark in marks if mark.kind == "restored"] == ["restored: generation 1592590337 to 7"]


def test_recording_of_an_unknown_counter_has_no_bound(tmp_path: Path) -> None:
    """No reader has that counter."""
    with RecordingReader(RECORDINGS / "live-migration.jsonl") as reader:
        header = reader.header.model_copy(update={"counter_id": 7})
        records = reader.read(3)
    report = report_of(write(tmp_path / "unknown.jsonl", records, header))
    assert report.bound_ns is None
    assert report.unbounded_ns == report.duration_ns > 0


def test_recording_without_a_record_is_an_error(tmp_path: Path) -> None:
    """The error of every reader of recordings."""
    with pytest.raises(RecordingError, match="has a header and no record"):
        report_of(write(tmp_path / "empty.jsonl", []))


def test_quantiles_of_known_intervals() -> None:
    """Of the intervals between the records: a hundredth of them, at most, is longer than the last quantile."""
    report = report_of(RECORDINGS / "time-source-lost.jsonl")
    lengths = sorted(later.t_ns - record.t_ns for record, later in pairwise(records_of("time-source-lost.jsonl")))
    assert report.update_interval_ns is not None
    assert report.update_interval_ns.max == lengths[-1]
    assert lengths[8] <= report.update_interval_ns.p50 <= lengths[8] * 1.001
    assert lengths[15] <= report.update_interval_ns.p90 <= lengths[15] * 1.001


@given(
    st.lists(
        st.tuples(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(1, 10**10)), min_size=1, max_size=20
    )
)
def test_quantile_leaves_the_share_that_it_says_below(pieces: list[tuple[int, int, int]]) -> None:
    """Within the thousandth by which values are rounded up; never below the true quantile."""
    distribution = Distribution()
    for low, high, weight in pieces:
        distribution.add(low, high, weight)
    found = distribution.quantiles()
    assert found is not None
    total = sum(weight for _, _, weight in pieces)
    for share, value in zip((50, 90, 99), found[:3], strict=True):
        assert weight_up_to(value, pieces) >= total * share / 100 * (1 - 1e-6) - 1
        assert value <= found.max == max(max(low, high) for low, high, _ in pieces)
        below = value * 998 // 1000 - 1
        assert below < 0 or weight_up_to(below, pieces) <= total * share / 100 * (1 + 1e-6) + 1


def weight_up_to(value: int, pieces: list[tuple[int, int, int]]) -> float:
    """The weight of *pieces* at values up to *value*."""
    found = 0.0
    for one, other, weight in pieces:
        low, high = sorted((one, other))
        if value >= high:
            found += weight
        elif value > low:
            found += weight * (value - low) / (high - low)
    return found


@given(st.lists(st.tuples(st.integers(0, 10**7), st.none() | st.integers(0, 100)), min_size=1, max_size=300))
def test_columns_lose_no_peak_and_bridge_no_gap(steps: list[tuple[int, int | None]]) -> None:
    """The extremes of each column stay, every point that is left was added, and no line crosses a gap."""
    columns = Columns()
    added: list[Point] = []
    now = 0
    for step, value in steps:
        now += step
        added.append(Point(now, value))
        columns.add(added[-1])
    points = columns.points()
    assert len({point.t_ns // columns.width_ns for point in points}) <= LARGEST
    assert {point for point in points if point.value is not None} <= set(added)
    assert [point.t_ns for point in points] == sorted(point.t_ns for point in points)
    for column in {point.t_ns // columns.width_ns for point in added}:
        here = [p.value for p in added if p.t_ns // columns.width_ns == column and p.value is not None]
        drawn = [p.value for p in points if p.t_ns // columns.width_ns == column and p.value is not None]
        assert (min(here, default=None), max(here, default=None)) == (
            min(drawn, default=None),
            max(drawn, default=None),
        )
    gaps = [point.t_ns for point in added if point.value is None]
    for one, other in pairwise(points):
        if (
            one.value is not None is not other.value
            and one.t_ns // columns.width_ns != other.t_ns // columns.width_ns
        ):
            assert bisect_right(gaps, one.t_ns) == bisect_right(gaps, other.t_ns - 1)


@pytest.mark.parametrize("wide_first", [True, False], ids=["one-column", "joined-columns"])
def test_column_with_a_gap_does_not_bridge_it(wide_first: bool) -> None:
    """Its ends go on into the neighbors, its extremes are a bar of their own, and gaps lie between these."""
    columns = Columns()
    points = [Point(0, 5), Point(1, 9), Point(2, None), Point(3, 1), Point(4, 6)]
    if wide_first:
        columns.reach(2**20)
    for point in points:
        columns.add(point)
    columns.reach(2**20)
    assert columns.points() == [points[0], Point(0, None), points[1], points[3], Point(4, None), points[4]]
