"""The kernel source in whole processes, whose system calls are played (``kit/adjtimex.c``)."""

import errno
import itertools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.adjtimex import STA_CLOCKERR, STA_DEL, STA_INS, STA_NANO, STA_PLL, STA_UNSYNC, AdjtimexStandIn
from kit.fitness import fit
from kit.forks import Started
from kit.kernel_readings import MS, NEW_YEAR_S, NS
from kit.waits import BOUND_S
from vmclock_async import (
    ClockStatus,
    ClockUnboundedError,
    Flags,
    LeapIndicator,
    SegmentReader,
    Snapshot,
    TimeType,
)
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import (
    COUNTER_ID,
    pair,
)

OPTIONS = ("--set", "kernel.poll_interval=0.02", "--set", "kernel.assumed_error=0.001")
"""The latter so that it does not matter whether a chronyd runs on the machine that runs the tests."""


@pytest.fixture
def publishing(
    start_script: Callable[..., Started], played_clock: AdjtimexStandIn, segment_path: Path
) -> Callable[..., Started]:
    """Starts the command, as nobody, under the played clock."""
    segment_path.parent.chmod(0o777)

    def start() -> Started:
        return start_script("publish_kernel", segment_path, *OPTIONS, environment=played_clock.environment)

    return start


def wait_for(path: Path, matches: Callable[[Snapshot], bool]) -> Snapshot:
    """The first snapshot of the segment at *path* that *matches*."""
    deadline = time.monotonic() + BOUND_S
    last: object = None
    while time.monotonic() < deadline:
        try:
            with SegmentReader(path) as reader:
                last = snapshot = reader.snapshot()
        except Exception as exc:  # not there yet
            last = exc
        else:
            if matches(snapshot):
                return snapshot
        time.sleep(0.005)
    pytest.fail(f"no such snapshot in {BOUND_S} s; last was {last!r}")


def has_status(status: ClockStatus) -> Callable[[Snapshot], bool]:
    return lambda snapshot: snapshot.body.clock_status == status


def assert_contains_realtime(snapshot: Snapshot) -> None:
    now = pair(time.CLOCK_REALTIME)
    found = bounds_at(snapshot, now.counter_ticks, counter_id=COUNTER_ID)
    assert found.earliest_ns <= now.clock_ns <= found.latest_ns
    assert found.error_ns < 100 * MS


@fit
def test_command_publishes_tai_and_follows_the_kernel(
    publishing: Callable[..., Started], played_clock: AdjtimexStandIn, segment_path: Path
) -> None:
    """As nobody: TAI with offset -37 around CLOCK_REALTIME, leap seconds ahead, synchronization lost and back."""
    publishing()
    snapshot = wait_for(segment_path, has_status(ClockStatus.SYNCHRONIZED))
    assert segment_path.stat().st_uid != 0 or os.geteuid() != 0
    assert (snapshot.time_type, snapshot.body.tai_offset_sec) == (TimeType.TAI, -37)
    assert snapshot.body.flags & Flags.TAI_OFFSET_VALID
    assert_contains_realtime(snapshot)

    played_clock.play(status=STA_PLL | STA_NANO | STA_INS)
    snapshot = wait_for(segment_path, lambda snapshot: snapshot.body.leap_indicator == LeapIndicator.PRE_POS)
    assert_contains_realtime(snapshot)
    played_clock.play(status=STA_PLL | STA_NANO | STA_DEL)
    wait_for(segment_path, lambda snapshot: snapshot.body.leap_indicator == LeapIndicator.PRE_NEG)

    for lost in (STA_UNSYNC, STA_CLOCKERR):
        played_clock.play(status=STA_PLL | STA_NANO | lost)
        wait_for(segment_path, has_status(ClockStatus.UNKNOWN))
        played_clock.play(status=STA_PLL | STA_NANO)
        assert_contains_realtime(wait_for(segment_path, has_status(ClockStatus.SYNCHRONIZED)))


@fit
def test_command_publishes_utc_with_what_is_being_slewed(
    publishing: Callable[..., Started], played_clock: AdjtimexStandIn, segment_path: Path
) -> None:
    """Without a TAI offset in UTC; the offset counts in microseconds, or in nanoseconds with STA_NANO."""
    played_clock.play(tai=0, status=STA_PLL, offset=-7000)
    publishing()
    snapshot = wait_for(segment_path, has_status(ClockStatus.SYNCHRONIZED))
    assert snapshot.time_type == TimeType.UTC
    assert not snapshot.body.flags & Flags.TAI_OFFSET_VALID
    assert_contains_realtime(snapshot)
    assert 10_501_000 < snapshot.body.time_maxerror_nanosec < 11_000_000
    played_clock.play(status=STA_PLL | STA_NANO)
    wait_for(segment_path, lambda snapshot: 3_508_000 < snapshot.body.time_maxerror_nanosec < 4_000_000)


@fit
def test_timesyncds_zero_is_published_without_a_bound(
    start_script: Callable[..., Started], played_clock: AdjtimexStandIn, segment_path: Path
) -> None:
    """maxerror 0 and esterror 0: the time with its estimated error alone, which now() refuses, and a warning; with
    what others write, a bound again."""
    played_clock.play(maxerror=0, esterror=0)
    process = start_script("publish_without_chronyd", segment_path, environment=played_clock.environment)
    snapshot = wait_for(segment_path, has_status(ClockStatus.SYNCHRONIZED))
    assert snapshot.body.flags & Flags.TIME_ESTERROR_VALID
    assert not snapshot.body.flags & Flags.TIME_MAXERROR_VALID
    with pytest.raises(ClockUnboundedError, match="time_maxerror_nanosec is not valid"):
        assert_contains_realtime(snapshot)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(
        "vmclock_async.kernel WARNING the daemon that keeps the clock writes"
    )
    # As chronyd's: without the kernel's own loop, what is being slewed is not told. A larger bound would take its
    # time: it agrees with what was promised before.
    played_clock.play(maxerror=1234, status=STA_NANO)
    wait_for(segment_path, lambda snapshot: 11_734_000 < snapshot.body.time_maxerror_nanosec < 12_000_000)
    played_clock.play(status=STA_PLL | STA_NANO)
    wait_for(segment_path, lambda snapshot: 1_734_000 < snapshot.body.time_maxerror_nanosec < 2_000_000)


@fit
def test_nonsense_of_the_kernel_ends_nothing(
    start_script: Callable[..., Started], played_clock: AdjtimexStandIn, segment_path: Path
) -> None:
    """Whatever somebody wrote into the kernel's clock state, the publisher goes on with what is known, and the log
    names the rest."""
    process = start_script("publish_without_chronyd", segment_path, environment=played_clock.environment)
    bound, estimate = Flags.TIME_MAXERROR_VALID, Flags.TIME_ESTERROR_VALID
    usual: dict[str, int] = {"maxerror": 2001, "esterror": 300, "offset": 0, "freq": 0, "tick": 10_000}
    has_bound = {"esterror", "freq", "tick"}
    for played in (
        {"freq": 2**62},
        {"tick": -7},
        {"esterror": -1},
        {"esterror": 2**62},
        {"offset": 2**62},
        {"maxerror": -450},
        {"maxerror": -600},
        {"maxerror": 2**62},
    ):
        played_clock.play(**{**usual, **played})
        (name,) = played
        flags = (bound if name in has_bound else 0) | (0 if name in ("esterror", "offset") else estimate)
        counter = pair(time.CLOCK_MONOTONIC).counter_ticks
        wait_for(
            segment_path,
            lambda snapshot: (
                snapshot.body.counter_value > counter  # noqa: B023 - not after this turn
                and snapshot.body.flags & (bound | estimate) == flags  # noqa: B023
            ),
        )
    assert process.stdout is not None
    assert "out of range (offset 4611686018427387904)" in process.stdout.readline()
    assert process.poll() is None


@fit
def test_tai_offset_out_of_range_is_none(
    start_script: Callable[..., Started], played_clock: AdjtimexStandIn, segment_path: Path
) -> None:
    """A kernel that was told 40,000 s knows no TAI: the time is in UTC."""
    played_clock.play(tai=40_000)
    start_script("publish_without_chronyd", segment_path, environment=played_clock.environment)
    snapshot = wait_for(segment_path, has_status(ClockStatus.SYNCHRONIZED))
    assert snapshot.time_type == TimeType.UTC
    assert_contains_realtime(snapshot)


@fit
def test_kernel_that_contradicts_itself_is_unavailable(
    run_script: Callable[..., str], played_clock: AdjtimexStandIn
) -> None:
    """A time that adjtimex cannot mean: an error that shows both clocks, instead of silence for ever."""
    played_clock.play_realtime(-500 * NS)
    said = run_script("run_kernel_source", environment=played_clock.environment)
    assert said.startswith("SourceUnavailableError kernel: adjtimex and CLOCK_REALTIME contradict each other")
    assert "adjtimex says time -49" in said or "adjtimex says time -500" in said


@fit
def test_refused_adjtimex_is_named(run_script: Callable[..., str], played_clock: AdjtimexStandIn) -> None:
    """A seccomp filter that forbids the call: unavailable for now, with what to do."""
    played_clock.play(refused=errno.EPERM)
    lines = run_script("try_kernel_source", environment=played_clock.environment).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("SourceUnavailableError kernel: [Errno 1] adjtimex: Operation not permitted")
        assert line.endswith("allow the system call adjtimex there, or use the source chrony")


@fit
def test_real_readings_contain_true_time_across_a_leap_second(
    start_script: Callable[..., Started], adjtimex_library: Path, tmp_path: Path
) -> None:
    """The same with real polls of a real clock, in TAI and in UTC, for a second inserted and one deleted.

    And no reading is before an earlier one, though UTC itself goes back.
    """
    processes: dict[tuple[int, int], Started] = {}
    clocks: dict[tuple[int, int], AdjtimexStandIn] = {}
    leap_s = {STA_INS: NEW_YEAR_S, STA_DEL: NEW_YEAR_S - 1}
    for bit, tai in itertools.product(leap_s, (37, 0)):
        clock = clocks[bit, tai] = AdjtimexStandIn(adjtimex_library, tmp_path / f"clock-{bit}-{tai}")
        clock.play(
            status=STA_PLL | STA_NANO | bit, tai=tai, maxerror=1, late_ns=10 * MS, leap_at_ns=leap_s[bit] * NS
        )
        processes[bit, tai] = start_script("leap_second", NEW_YEAR_S * NS + NS // 3, environment=clock.environment)
    for (bit, tai), process in processes.items():
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"  # not before: to start may take longer than is played
        clocks[bit, tai].play_realtime(leap_s[bit] * NS - 5 * NS // 2)
        process.stdin.write("\n")
        process.stdin.flush()
    for (bit, tai), process in processes.items():
        output, _ = process.communicate(timeout=BOUND_S)
        found = json.loads(output)
        told = ["PRE_POS", "POS", "POST_POS"] if bit == STA_INS else ["PRE_NEG", "POST_NEG"]
        assert (found["outside"], found["back"], found["told"]) == ([], [], told)
        assert found["looks"] > 20
        assert found["time_type"] == ("TAI" if tai else "UTC")
        if tai:
            assert found["tai_offset_sec"] == (-38 if bit == STA_INS else -36)
    for clock in clocks.values():
        clock.close()
