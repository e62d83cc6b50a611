"""Whether the sources of time contradict each other: what is compared, and what is said of it."""

import json
import logging
import re
from pathlib import Path

import anyio
import pytest

from kit.commands import run_command
from kit.earlier_boot import require_attributes
from kit.merging import NOW_NS, SECOND, composed, measurement, merger, page, told
from kit.publishing import time_fields
from kit.sources import Scripted
from kit.waits import BOUND_S, until
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    CounterId,
    Emit,
    LeapIndicator,
    Publisher,
    SegmentReader,
    TimeType,
)
from vmclock_async._publishing.agreement import Agreement, Pair, gap_ns
from vmclock_async._publishing.choice import Claim
from vmclock_async._publishing.complaints import Complaints
from vmclock_async._segment.account import Account, recorded_account
from vmclock_async.reckoning import Bounds
from vmclock_async.sources import Explanation, Source, Term
from vmclock_async.timebase import COUNTER_ID

LOG = logging.getLogger("vmclock_async.publisher")
OTHER_COUNTER = CounterId.ARM_VCNT if COUNTER_ID == CounterId.X86_TSC else CounterId.X86_TSC
MONTHS_END_NS = 1_790_812_800 * SECOND
"""2026-10-01T00:00:00Z, the end of a month."""


class World:
    """A merger of *names*, whose sources are compared at each commit."""

    def __init__(self, *names: str) -> None:
        self.now_s = 0.0
        self.merger = merger(*names)
        self.complaints = Complaints(LOG, now=lambda: self.now_s)
        self.agreement = Agreement(names, self.complaints)

    def tell(self, name: str, update: BodyUpdate, at: int) -> None:
        told(self.merger, name, update, at)
        self.agreement.compare(self.merger.claims())

    def look(self, at: int) -> None:
        composed(self.merger, at)
        self.agreement.compare(self.merger.claims())

    @property
    def pair(self) -> Pair:
        """The only one."""
        (pair,) = self.agreement.pairs
        return pair


@pytest.fixture
def world(caplog: pytest.LogCaptureFixture) -> World:
    """chrony and ntp."""
    caplog.set_level(logging.INFO)
    return World("chrony", "ntp")


def between(earliest_ns: int, latest_ns: int) -> Bounds:
    return Bounds(NOW_NS + earliest_ns, NOW_NS + latest_ns)


# The gap


@pytest.mark.parametrize(
    ("second", "gap"),
    [((20, 30), 10), ((11, 30), 1), ((10, 30), 0), ((2, 8), 0), ((-9, 0), 0), ((-9, -1), -1), ((-9, -7), -7)],
)
def test_gap_is_the_time_between_two_intervals(second: tuple[int, int], gap: int) -> None:
    """Positive if the second is later, negative if it is earlier; intervals that touch have an instant in common."""
    assert gap_ns(Bounds(0, 10), Bounds(*second)) == gap


# What is compared


def test_both_are_carried_to_one_counter_value(world: World) -> None:
    """Measured at different moments, each interval has grown by its own rate until the commit."""
    world.tell("chrony", measurement(0, error_ns=100), 0)
    world.tell("ntp", measurement(2 * SECOND, error_ns=500, off_ns=300, ppm=1), 2 * SECOND)
    assert world.pair.intervals is not None
    first, second = world.pair.intervals
    carried = between(2 * SECOND - 100_100, 2 * SECOND + 100_100)
    measured = between(2 * SECOND - 200, 2 * SECOND + 800)
    for found, expected in ((first, carried), (second, measured)):
        assert 0 <= expected.earliest_ns - found.earliest_ns <= 4
        assert 0 <= found.latest_ns - expected.latest_ns <= 4
    assert (world.pair.disagrees, world.pair.disagreements) == (False, 0)


def test_each_source_is_compared_as_it_measured(world: World) -> None:
    """Nesting narrows what is published, and not what the source says; so it hides no other's disagreement."""
    world.tell("chrony", measurement(0, error_ns=100), 0)
    world.tell("chrony", measurement(0, error_ns=1000, off_ns=90), 0)
    world.tell("ntp", measurement(0, error_ns=10, off_ns=1000), 0)
    assert not world.pair.disagrees


def test_tai_and_utc_are_compared_in_utc(world: World) -> None:
    """A TAI time with its offset agrees with the UTC time that it is, whichever of the two the segment keeps."""
    offset_s = -37
    tai = {"time_type": TimeType.TAI, "tai_offset_sec": offset_s, "off_ns": -offset_s * SECOND}
    world.tell("chrony", measurement(0, **tai), 0)
    world.tell("ntp", measurement(0, off_ns=50), 0)
    world.tell("ntp", measurement(1, off_ns=50), 1)
    assert world.pair.intervals is not None
    assert not world.pair.disagrees
    world.tell("ntp", measurement(2, off_ns=-SECOND), 2)
    assert world.pair.disagrees


def test_announced_leap_second_is_no_disagreement(world: World) -> None:
    """Past the month's end the source that announced it may mean either second; once it has measured, both agree."""
    at = MONTHS_END_NS - NOW_NS - SECOND
    world.tell("chrony", measurement(at, leap_indicator=LeapIndicator.PRE_POS), at)
    after = at + 2 * SECOND
    world.tell("ntp", measurement(after, off_ns=-SECOND, leap_indicator=0), after)
    assert world.pair.intervals is not None
    assert not world.pair.disagrees
    world.tell("chrony", measurement(after + 9, off_ns=-SECOND, leap_indicator=LeapIndicator.POST_POS), after + 9)
    assert not world.pair.disagrees


@pytest.mark.parametrize(
    "strange",
    [
        {"time_type": TimeType.MONOTONIC},
        {"time_type": TimeType.INVALID_SMEARED},
        {"time_type": TimeType.INVALID_MAYBE_SMEARED},
        {"time_type": TimeType.TAI, "tai_offset_sec": None},
        {"counter_id": OTHER_COUNTER},
        {"counter_period_shift": 64},
        {"time_maxerror_nanosec": None},
        {"clock_status": ClockStatus.UNKNOWN},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["chrony", "ntp"])
def test_what_no_reader_gets_is_not_compared(
    world: World, strange: dict[str, int | None], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Smeared, MONOTONIC, in another counter, without a bound: it contradicts nobody, an hour off as it may be."""
    other = "ntp" if name == "chrony" else "chrony"
    world.tell(other, measurement(0), 0)
    values = measurement(0, off_ns=3600 * SECOND).model_dump(exclude_unset=True) | strange
    world.tell(name, BodyUpdate.model_validate(values), 0)
    assert (world.pair.intervals, world.pair.was_compared) == (None, False)
    assert not any("agree" in record.getMessage() for record in caplog.records)


def test_sources_without_a_time_are_in_no_pair_that_was_compared(caplog: pytest.LogCaptureFixture) -> None:
    """Of four sources that give two times, one pair is compared."""
    world = World("device", "chrony", "ntp", "kernel")
    world.tell("device", page(disruption_marker=7), 0)
    for name in ("chrony", "kernel"):
        world.tell(name, measurement(0), 0)
    assert [pair.names for pair in world.agreement.pairs if pair.was_compared] == [("chrony", "kernel")]


def test_three_that_disagree_are_three_pairs(caplog: pytest.LogCaptureFixture) -> None:
    """Each pair by itself: the one that is far off disagrees with both others, which agree."""
    world = World("chrony", "ptp", "ntp")
    for name, off_ns in (("chrony", 0), ("ptp", 10_000), ("ntp", 50)):
        world.tell(name, measurement(0, off_ns=off_ns), 0)
    assert {pair.names: pair.disagreements for pair in world.agreement.pairs} == {
        ("chrony", "ptp"): 1,
        ("chrony", "ntp"): 0,
        ("ptp", "ntp"): 1,
    }


def test_contradicting_intervals_are_seen_from_either_source(world: World) -> None:
    """What is later for one is earlier for the other; who agrees contradicts nobody."""
    world.tell("chrony", measurement(0), 0)
    world.tell("ntp", measurement(0, off_ns=10**6), 0)
    assert world.agreement.contradicting("chrony") == {"ntp": "0.999799 ms later"}
    assert world.agreement.contradicting("ntp") == {"chrony": "0.999799 ms earlier"}
    world.tell("ntp", measurement(1, off_ns=-(10**6)), 1)
    assert world.agreement.contradicting("chrony") == {"ntp": "0.999798 ms earlier"}
    world.tell("ntp", measurement(2), 2)
    assert world.agreement.contradicting("chrony") == world.agreement.contradicting("ntp") == {}


# How it ends


def test_quiet_source_is_compared_when_it_measures_again(world: World) -> None:
    """What was found last stands for a source that measures once a minute, until it has no time any more."""
    world.tell("chrony", measurement(0), 0)
    world.tell("ntp", measurement(0, off_ns=10**9), 0)
    assert world.pair.disagrees
    at = 60 * SECOND
    world.tell("chrony", measurement(at, error_ns=2 * 10**9), at)
    assert world.pair.disagrees
    world.tell("ntp", measurement(at), at)
    assert not world.pair.disagrees
    world.tell("ntp", measurement(at + 1, off_ns=-3 * 10**9), at + 1)
    world.look(at + 990 * SECOND)
    assert world.pair.disagrees
    world.look(at + 1001 * SECOND)
    assert world.pair.intervals is None
    assert world.pair.disagreements == 2


@pytest.mark.parametrize("how", ["no time", "no counter", "a disruption"])
def test_disagreement_ends_with_either_time(world: World, how: str, caplog: pytest.LogCaptureFixture) -> None:
    """A source that takes its time back, or whose time is from before a disruption, contradicts nobody any more."""
    world.tell("chrony", measurement(0), 0)
    world.tell("ntp", measurement(0, off_ns=SECOND), 0)
    caplog.clear()
    match how:
        case "no time":
            world.tell("ntp", BodyUpdate(clock_status=ClockStatus.UNKNOWN), 1)
            lacking = "ntp"
        case "no counter":
            world.tell("chrony", BodyUpdate(counter_id=CounterId.INVALID), 1)
            lacking = "chrony"
        case _:
            world.look(2**60)
            world.look(1)
            lacking = "chrony and ntp"
    assert (world.pair.intervals, world.pair.disagrees) == (None, False)
    said = f"chrony and ntp disagreed, and cannot be compared any more: no time from {lacking}"
    assert [r.getMessage() for r in caplog.records if "disagreed" in r.getMessage()] == [said]


# What is said


def test_log_names_both_sources_and_both_intervals(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """One line when it begins, however long it lasts, and one when it ends."""
    world.tell("chrony", measurement(0), 0)
    for at in range(5):
        world.tell("ntp", measurement(at, off_ns=2_000_000), at)
    (line,) = [record for record in caplog.records if "disagree" in record.getMessage()]
    assert line.levelno == logging.WARNING
    chrony, ntp = between(-100, 100), between(2_000_000 - 101, 2_000_000 + 100)  # rounded outward
    assert line.getMessage() == (
        f"chrony and ntp disagree: chrony says {chrony.earliest_ns} to {chrony.latest_ns} ns, ntp says "
        f"{ntp.earliest_ns} to {ntp.latest_ns} ns, 1.999799 ms apart; at least one of the two is wrong"
    )
    caplog.clear()
    world.tell("ntp", measurement(9), 9)
    world.tell("ntp", measurement(10), 10)
    (line,) = caplog.records
    assert (line.levelno, line.getMessage()) == (logging.INFO, "chrony and ntp agree again")


def test_sources_that_waver_do_not_fill_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """A pair that disagrees at every other moment has a few lines a minute, and each time is counted."""
    world.tell("chrony", measurement(0), 0)
    for at in range(100):
        world.tell("ntp", measurement(at, off_ns=2_000_000 * (at % 2)), at)
    assert world.pair.disagreements == 50
    assert len([record for record in caplog.records if "agree" in record.getMessage()]) == 6
    caplog.clear()
    world.now_s = 61.0
    world.complaints.say_what_is_due()
    (line,) = [record.getMessage() for record in caplog.records if "disagree" in record.getMessage()]
    assert line.endswith("; at least one of the two is wrong (47 times in 61 s; this is the last)")


def test_claims_that_are_equal_to_the_nanosecond_agree() -> None:
    """A comparison needs nothing but the claims of one moment."""
    agreement = Agreement(["a", "b"], Complaints(LOG))
    agreement.compare(dict.fromkeys(("a", "b"), Claim(Bounds(5, 5), False)))
    assert (agreement.pairs[0].was_compared, agreement.pairs[0].disagrees) == (True, False)


# The publisher


def shifted(shift_ns: int) -> BodyUpdate:
    """The time of this machine, *shift_ns* later."""
    fields = time_fields()
    sec, ns = divmod(shift_ns, SECOND)
    fraction = fields["time_frac_sec"] + (ns << 64) // SECOND
    return BodyUpdate.model_validate(
        fields | {"time_sec": fields["time_sec"] + sec + (fraction >> 64), "time_frac_sec": fraction % 2**64}
    )


@pytest.mark.anyio
@pytest.mark.parametrize("agreement", [True, False])
async def test_publisher_reports_and_publishes_as_before(segment_path: Path, agreement: bool) -> None:
    """Both intervals are in the statistics; the time stays the first one's, without a disruption. It is an option."""
    shift_ns = 3600 * SECOND

    is_published = anyio.Event()

    async def first(emit: Emit) -> None:
        while True:
            await emit(shifted(0), epoch=emit.epoch)
            is_published.set()
            await anyio.sleep(0.01)

    async def second(emit: Emit) -> None:
        await is_published.wait()
        while True:
            await emit(shifted(shift_ns), epoch=emit.epoch)
            await anyio.sleep(0.01)

    def updates() -> list[int]:
        return [source.updates for source in publisher.statistics().sources.values()]

    sources: dict[str, Source] = {"first": Scripted(first), "second": Scripted(second)}
    publisher = Publisher(segment_path, sources, agreement=agreement)
    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            await until(lambda: min(updates()) > 2)
            tasks.cancel_scope.cancel()
    statistics = publisher.statistics()
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().body.disruption_marker == 0
    assert statistics.groups["time"] == "first"
    assert all(set(source.complaints.values()) == {0} for source in statistics.sources.values())
    if not agreement:
        assert statistics.comparisons == ()
        return
    assert Publisher(segment_path, [Scripted(first)], agreement=True).statistics().comparisons == ()
    (compared,) = statistics.comparisons
    assert (compared.sources, compared.disagreements) == (("first", "second"), 1)
    assert compared.intervals is not None
    earlier, later = compared.intervals
    assert compared.gap_ns == later.earliest_ns - earlier.latest_ns > shift_ns - 2 * SECOND


def test_explain_names_the_sources_that_contradict_the_published_one(tmp_path: Path, segment_path: Path) -> None:
    """And where their intervals lie, seen from the one that is published."""
    require_attributes(segment_path.parent)

    class Explaining(Scripted):
        def explanation(self) -> Explanation:
            return Explanation(
                update.counter_value or 0, (Term("all", update.time_maxerror_nanosec or 0, "words"),)
            )

    update = shifted(0)

    async def first(emit: Emit) -> None:
        nonlocal update
        while True:
            update = shifted(0)
            await emit(update, epoch=emit.epoch)
            await anyio.sleep(0.05)

    async def second(emit: Emit) -> None:
        await until(lambda: publisher.statistics().groups["time"] == "first")
        await emit(shifted(-3600 * SECOND), epoch=emit.epoch)
        await anyio.sleep_forever()

    def account() -> Account | None:
        with segment_path.open("rb") as file:
            return recorded_account(file.fileno())

    def is_explained() -> bool:
        return segment_path.exists() and (found := account()) is not None and bool(found.contradicted_by)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            await until(is_explained)
            tasks.cancel_scope.cancel()

    publisher = Publisher(segment_path, {"first": Explaining(first), "second": Scripted(second)}, agreement=True)
    anyio.run(main)
    said = run_command(tmp_path, "explain", segment_path)
    assert re.search(
        r"^second contradicts it: its interval is 3599\d{3}\.\d{6} ms earlier$", said.stdout, re.MULTILINE
    )
    (found,) = json.loads(run_command(tmp_path, "explain", "--json", segment_path).stdout)[
        "contradicted_by"
    ].items()
    assert (found[0], found[1][-7:]) == ("second", "earlier")


PLUGIN = """
from pydantic import BaseModel
from vmclock_async import BodyUpdate, ClockStatus, TimeType
from vmclock_async.testing import make_body
from vmclock_async.timebase import COUNTER_ID

class Settings(BaseModel):
    pass

class Right:
    settings_type = Settings
    off_s = 0

    def __init__(self, settings):
        pass

    async def run(self, emit):
        body = make_body()
        fields = {name: getattr(body, name) for name in BodyUpdate.MEASURED_FIELDS - {"time_esterror_nanosec",
            "counter_period_esterror_rate_frac_sec"}} | {"time_sec": body.time_sec + self.off_s}
        await emit(BodyUpdate(**fields, clock_status=ClockStatus.SYNCHRONIZED, counter_id=COUNTER_ID,
            time_type=TimeType.UTC), epoch=emit.epoch)

class Wrong(Right):
    off_s = -3600
"""


@pytest.mark.parametrize("words", [["--agreement"], ["--set", "publisher.agreement=true"], []])
def test_option_of_publish(words: list[str], tmp_path: Path, segment_path: Path) -> None:
    """On the command line or in the configuration; the statistics at the end have both intervals. Off by default."""
    metadata = tmp_path / "stand_ins-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: stand-ins\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[vmclock_async.sources]\nright = stand_ins:Right\nwrong = stand_ins:Wrong\n"
    )
    (tmp_path / "stand_ins.py").write_text(PLUGIN)
    arguments = ("publish", "right", "wrong", *words, "--segment", segment_path, "--json")
    done = run_command(tmp_path, *arguments, variables={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    comparisons = json.loads(done.stdout)["comparisons"]
    if not words:
        assert (comparisons, "disagree" in done.stderr) == ([], False)
        return
    (compared,) = comparisons
    assert sorted(compared["sources"]) == ["right", "wrong"]
    (one, other), gap_ns = compared["intervals"], compared["gap_ns"]
    assert -3600 * SECOND < gap_ns == other[1] - one[0] < -3599 * SECOND
    (line,) = [line for line in done.stderr.splitlines() if "disagree" in line]
    assert "right and wrong disagree: right says " in line
