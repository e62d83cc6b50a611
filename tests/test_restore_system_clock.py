"""CLOCK_REALTIME is set from a segment once it is off, and only where nobody else keeps it.

Each process that may set it runs with a stand-in for the kernel's clock, which counts how often it was set.
"""

import errno
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

import anyio
import pytest
from pydantic import BaseModel

from kit.adjtimex import STA_NANO, STA_PLL, STA_UNSYNC, AdjtimexStandIn
from kit.commands import failure, run_new_interpreter
from kit.earlier_boot import require_attributes
from kit.forks import Started
from vmclock_async import BodyUpdate, Emit, Publisher, SegmentWriter, SystemClockError
from vmclock_async._restoring.daemons import disciplined_by
from vmclock_async._segment.time_source import TimeSource, record_time_source, recorded_time_source
from vmclock_async.restore import step_system_clock
from vmclock_async.testing import ManualClock, PlayedSegment, make_body
from vmclock_async.timebase import COUNTER_ID
from vmclock_chrony import ChronySource
from vmclock_device import DeviceSource
from vmclock_device.source import DeviceSettings
from vmclock_kernel import KernelSource
from vmclock_replay import ReplaySource

NS: Final = 10**9
THREE_DAYS_NS: Final = 3 * 86400 * NS
SetClock = Callable[..., subprocess.CompletedProcess[str]]


def record(path: Path, source: TimeSource | None) -> None:
    with path.open("rb+") as file:
        record_time_source(file.fileno(), source)


def recorded(path: Path) -> TimeSource | None:
    with path.open("rb") as file:
        return recorded_time_source(file.fileno())


@pytest.fixture
def segment(segment_path: Path) -> Iterator[PlayedSegment]:
    """A segment with the right time, from a source that has it from elsewhere."""
    with PlayedSegment(segment_path.parent) as played:
        require_attributes(played.path)
        record(played.path, TimeSource("elsewhere", False))
        yield played


@pytest.fixture
def stale(played_clock: AdjtimexStandIn) -> AdjtimexStandIn:
    """A kernel whose clock is three days behind, as after a restore, and which no daemon disciplines."""
    played_clock.play(status=STA_UNSYNC | STA_NANO)
    played_clock.play_step(-THREE_DAYS_NS)
    return played_clock


@pytest.fixture
def set_clock(segment: PlayedSegment, stale: AdjtimexStandIn, tmp_path: Path) -> SetClock:
    """The command, with the stale clock."""

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return run_new_interpreter(tmp_path, "set-clock", segment.path, *args, variables=stale.environment)

    return run


def said(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def error_ns(facts: dict[str, Any]) -> int:
    """By how much a step may be wrong: the segment's bound, and the millisecond between the readings of two clocks."""
    width_ns: int = facts["latest_ns"] - facts["earliest_ns"]
    return width_ns // 2 + NS // 1000


def test_stale_clock_is_set_into_the_interval(set_clock: SetClock, stale: AdjtimexStandIn) -> None:
    """Three days behind: it is set forward by that, once, and the result says from where to where."""
    began_ns = time.time_ns()
    facts = said(set_clock("--json", "--beside-daemon"))
    ended_ns, error = time.time_ns(), error_ns(facts)
    assert facts["stepped"] is True
    assert facts["dry_run"] is False
    assert abs(facts["step_ns"] - THREE_DAYS_NS) <= error
    assert began_ns - error <= facts["before_ns"] + THREE_DAYS_NS <= ended_ns + error
    assert facts["before_ns"] + THREE_DAYS_NS - error <= facts["after_ns"] <= ended_ns + error
    assert facts["earliest_ns"] - error <= facts["before_ns"] + facts["step_ns"] <= facts["latest_ns"] + error
    assert stale.seen("sets") == 1


def test_second_step_finds_nothing_to_do(set_clock: SetClock, stale: AdjtimexStandIn) -> None:
    """The clock is inside the interval then; it is left alone, and that is no failure."""
    assert set_clock("--beside-daemon").stdout == "CLOCK_REALTIME was set forward by 259200 s\n"
    facts = said(set_clock("--json", "--beside-daemon"))
    assert (facts["stepped"], facts["step_ns"]) == (False, 0)
    assert facts["after_ns"] == facts["before_ns"]
    assert "left alone" in set_clock("--beside-daemon").stdout
    assert stale.seen("sets") == 1


@pytest.mark.parametrize(("args", "expected"), [((), 0), (("--threshold", "0.1s"), 1)])
def test_clock_that_is_near_enough_is_left_alone(
    set_clock: SetClock, stale: AdjtimexStandIn, args: tuple[str, ...], expected: int
) -> None:
    """0.3 s ahead is within the default of 0.5 s, and beyond 0.1 s; a step goes back as well as forward."""
    stale.play_step(3 * NS // 10)
    facts = said(set_clock("--json", "--beside-daemon", *args))
    assert stale.seen("sets") == expected
    assert (facts["step_ns"] < 0) is bool(expected)


def test_dry_run_sets_nothing(set_clock: SetClock, stale: AdjtimexStandIn) -> None:
    """It says by how much the clock would be set, and the clock stays as it is."""
    facts = said(set_clock("--json", "--beside-daemon", "--dry-run"))
    assert (facts["stepped"], facts["dry_run"]) == (False, True)
    assert abs(facts["step_ns"] - THREE_DAYS_NS) <= error_ns(facts)
    assert facts["after_ns"] == facts["before_ns"]
    assert "would be set forward by 259200 s" in set_clock("--beside-daemon", "--dry-run").stdout
    assert stale.seen("sets") == 0


def test_process_without_the_privilege_is_told_which_it_needs(set_clock: SetClock, stale: AdjtimexStandIn) -> None:
    """The kernel's EPERM is an error of ours, which names the capability."""
    stale.play(set_refused=errno.EPERM)
    error = failure(set_clock("--json", "--beside-daemon"))
    assert error["error"] == "SystemClockError"
    assert "CAP_SYS_TIME" in error["remedy"]
    stale.play(set_refused=errno.EINVAL)
    assert "cannot be set to" in failure(set_clock("--json", "--beside-daemon"))["reason"]


def test_time_without_a_bound_sets_no_clock(
    set_clock: SetClock, segment: PlayedSegment, stale: AdjtimexStandIn
) -> None:
    """The error is the clock's own, as now() raises it."""
    segment.lose_sync(void=True)
    assert failure(set_clock("--json", "--beside-daemon"))["error"] == "ClockNotSynchronizedError"
    assert stale.seen("sets") == 0


@pytest.mark.parametrize(
    ("source", "args", "expected"),
    [
        pytest.param(
            TimeSource("kernel", True), (), "source kernel, which makes it from CLOCK_REALTIME", id="itself"
        ),
        pytest.param(TimeSource("kernel", True), ("--independent",), "source kernel, which", id="whoever-says-no"),
        pytest.param(TimeSource("gps", None), (), "comes from gps, which does not say", id="does-not-say"),
        pytest.param(None, (), "has no record of its source", id="no-record"),
    ],
)
def test_clock_is_never_set_from_itself(
    set_clock: SetClock,
    segment: PlayedSegment,
    stale: AdjtimexStandIn,
    source: TimeSource | None,
    args: tuple[str, ...],
    expected: str,
) -> None:
    """A time that rests on CLOCK_REALTIME sets nothing, whatever the caller says; nor one that may rest on it."""
    record(segment.path, source)
    error = failure(set_clock("--json", "--beside-daemon", *args))
    assert error["error"] == "SystemClockError"
    assert expected in error["reason"]
    assert stale.seen("sets") == 0


@pytest.mark.parametrize("source", [TimeSource("gps", None), None])
def test_caller_may_know_that_the_time_is_independent(
    set_clock: SetClock, segment: PlayedSegment, stale: AdjtimexStandIn, source: TimeSource | None
) -> None:
    """Where no record says either."""
    record(segment.path, source)
    assert said(set_clock("--json", "--beside-daemon", "--independent"))["stepped"] is True


def test_daemon_that_keeps_the_clock_is_left_to_it(
    set_clock: SetClock, stale: AdjtimexStandIn, start_script: Callable[..., Started]
) -> None:
    """A process with the name of one runs: nothing is set, and the error says which it is."""
    daemon = start_script("comm", "systemd-timesyncd"[:15])
    assert daemon.stdout is not None
    daemon.stdout.readline()
    error = failure(set_clock("--json"))
    assert error["error"] == "SystemClockError"
    assert " runs (process " in error["reason"]
    assert stale.seen("sets") == 0


@pytest.mark.parametrize(
    ("comm", "name"),
    [
        ("chronyd", "chronyd"),
        ("systemd-timesyn", "systemd-timesyncd"),
        ("ntpd", "ntpd"),
        ("ntp-daemon", "ntpd-rs"),
        ("phc2sys", "phc2sys"),
    ],
)
def test_daemons_are_known_by_name(tmp_path: Path, comm: str, name: str) -> None:
    """By what /proc calls them, which has 15 bytes; other files there, and processes that end, are passed over."""
    for pid, command in (("1", "init"), ("77", comm), ("acpi", "chronyd")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "comm").write_text(f"{command}\n")
    (tmp_path / "78").mkdir()
    assert disciplined_by(tmp_path) == f"{name} runs (process 77)"


@pytest.mark.parametrize(("status", "expected"), [(STA_PLL | STA_NANO, "synchronized"), (STA_UNSYNC, "None")])
def test_unseen_daemon_is_known_by_the_kernel(
    run_script: Callable[..., str], played_clock: AdjtimexStandIn, tmp_path: Path, status: int, expected: str
) -> None:
    """That of a host, whose processes a container does not see: the kernel's clock is synchronized."""
    played_clock.play(status=status)
    assert expected in run_script("disciplined_by", tmp_path, environment=played_clock.environment)


def test_python_says_what_the_command_says(
    run_script: Callable[..., str], segment: PlayedSegment, stale: AdjtimexStandIn
) -> None:
    """The result is a frozen object; a refusal an error that names the remedy."""
    text = run_script("step_clock", segment.path, environment=stale.environment)
    assert text.startswith("SystemClockStep(stepped=True, step_ns=259")
    stale.play_realtime(NS)
    stale.play(set_refused=errno.EPERM)
    text = run_script("step_clock", segment.path, environment=stale.environment)
    assert text.startswith("SystemClockError(")


def test_played_clock_sets_nothing() -> None:
    """A test's virtual time must not become the machine's."""
    with ManualClock() as clock, pytest.raises(SystemClockError, match="played"):
        step_system_clock(clock, independent=True, beside_daemon=True)


@pytest.mark.parametrize("threshold_s", [-1, float("nan"), float("inf")])
def test_threshold_is_a_number_of_seconds(threshold_s: float) -> None:
    """0 or more, and finite."""
    with ManualClock() as clock, pytest.raises(ValueError, match="threshold_s must be 0 or more"):
        step_system_clock(clock, threshold_s=threshold_s)


# The record of the source


class Telling:
    """A source that tells *body* and then ends, and that says nothing of the clock it reads."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, update: BodyUpdate | None = None) -> None:
        self._update = update or BodyUpdate.from_body(make_body(), counter_id=COUNTER_ID, time_type=0)

    async def run(self, emit: Emit) -> None:
        await emit(self._update, epoch=emit.epoch)


class TellingOf(Telling):
    """One that says it."""

    def __init__(self, rests: Any) -> None:
        super().__init__()
        self.rests_on_system_clock = rests


@pytest.mark.anyio
@pytest.mark.parametrize("rests", [True, False, None])
async def test_publisher_records_the_source_of_the_time(segment_path: Path, rests: bool | None) -> None:
    """What the source says of itself is kept with the file; a source that says nothing is one that may rest on it."""
    with anyio.fail_after(20):
        await Publisher(segment_path, {"told": TellingOf(rests)}).run()
        require_attributes(segment_path)
        assert recorded(segment_path) == TimeSource("told", rests)
        await Publisher(segment_path, {"told": Telling()}).run()
        assert recorded(segment_path) == TimeSource("told", None)


@pytest.mark.anyio
async def test_change_of_the_source_changes_the_record(segment_path: Path) -> None:
    """A time that is held keeps its source; the first time of another is recorded as its own."""
    sources = {"first": TellingOf(rests=False), "second": TellingOf(rests=True)}
    with anyio.fail_after(20):
        await Publisher(segment_path, sources).run()
        require_attributes(segment_path)
        assert recorded(segment_path) == TimeSource("first", False)
        await Publisher(segment_path, {"second": sources["second"]}).run()
        assert recorded(segment_path) == TimeSource("second", True)


@pytest.mark.anyio
async def test_source_that_says_nonsense_of_its_clock_is_an_error(segment_path: Path) -> None:
    """It names the source, as each error of a source does."""
    with pytest.raises(Exception, match="told: its attribute rests_on_system_clock is 'yes'"):
        await Publisher(segment_path, {"told": TellingOf("yes")}).run()


def test_writer_that_says_nothing_removes_the_record(segment: PlayedSegment) -> None:
    """What an earlier writer recorded is not true of the next one's time."""
    segment.close()
    with SegmentWriter(segment.path, size=112) as writer:
        assert recorded(segment.path) is None
        writer.write(make_body())
    assert recorded(segment.path) is None


def test_shipped_sources_say_where_their_time_comes_from(tmp_path: Path) -> None:
    """chronyd's and the kernel's is that clock's own; a device's is the hypervisor's, a file's may be anybody's."""
    assert KernelSource.rests_on_system_clock
    assert ChronySource.rests_on_system_clock
    assert ReplaySource.rests_on_system_clock
    assert DeviceSource(DeviceSettings(path=Path("/dev/null"))).rests_on_system_clock is False
    (tmp_path / "page").touch()
    assert DeviceSource(DeviceSettings(path=tmp_path / "page")).rests_on_system_clock is None
