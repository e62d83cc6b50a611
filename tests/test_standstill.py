"""Standstills: seen by ticks that come late, and by the counter and the kernel's clock that part."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kit.waits import eventually, is_committed
from vmclock_async import SegmentReader
from vmclock_async._publishing.standstill import LONGEST_NS, Standstill
from vmclock_async._timebase.continuity import Clocks, Continuity
from vmclock_async.abi import OWN_DISRUPTION

SECOND = 10**9
EVERY_S = 0.5


class Played:
    """Clocks that a test moves."""

    def __init__(self) -> None:
        self.now_ns = 50 * SECOND
        self.busy_ns = SECOND
        self.standstill = Standstill(EVERY_S, now_ns=lambda: self.now_ns, busy_ns=lambda: self.busy_ns)

    def go_on(self, ns: int, *, busy_ns: int = 0) -> None:
        """Let *ns* go by, in which the process is busy for *busy_ns*."""
        self.now_ns += ns
        self.busy_ns += busy_ns


@pytest.fixture
def played() -> Played:
    """Clocks at a moment when ticks begin."""
    played = Played()
    played.standstill.begin()
    return played


def test_late_tick_is_a_standstill_once(played: Played) -> None:
    """Whoever comes first after it, the thread that ticks or the writer task, it is reported once."""
    for thread_is_first in (True, False):
        played.go_on(60 * SECOND)
        if thread_is_first:
            played.standstill.tick()
        assert played.standstill.seen() == "this machine or this process stood still for 60.0 s"
        assert played.standstill.seen() is None
        played.standstill.tick()
        assert played.standstill.seen() is None


def test_late_by_less_is_none(played: Played) -> None:
    """Ticks that are late by no more than the limit are a busy machine's."""
    for _ in range(100):
        played.go_on(int(EVERY_S * SECOND) + LONGEST_NS)
        assert played.standstill.seen() is None
        played.standstill.tick()
    played.go_on(int(EVERY_S * SECOND) + LONGEST_NS + 1)
    assert played.standstill.seen() is not None


def test_busy_process_is_none(played: Played) -> None:
    """A program that holds the interpreter's lock is late too, but its processor time goes on."""
    played.go_on(60 * SECOND, busy_ns=59 * SECOND)
    played.standstill.tick()
    assert played.standstill.seen() is None


def test_nothing_is_seen_where_nobody_ticks(played: Played) -> None:
    """Before the first tick and after the last, time may go by."""
    played.standstill.end()
    played.go_on(60 * SECOND)
    assert played.standstill.seen() is None
    played.standstill.tick()
    assert played.standstill.seen() is None


class PlayedCounter:
    """A counter at 2.5 GHz and CLOCK_MONOTONIC_RAW, each of which a test moves, and what reports their breaks."""

    def __init__(self) -> None:
        self.ticks = 2**64 - 3 * SECOND  # it passes its end
        self.raw_ns = 7 * SECOND
        self.window_ticks = 100
        self.asleep_ns = 0
        self.interrupted_ns = 0
        """Time that goes by, once, between the first reading of the counter and that of the clock."""
        self.continuity = Continuity(clocks=self.look, clocksource=lambda: "tsc")

    def look(self) -> Clocks:
        before = self.ticks
        self.raw_ns += self.interrupted_ns
        self.ticks += self.interrupted_ns * 5 // 2
        self.interrupted_ns = 0
        after = self.ticks + self.window_ticks
        return Clocks(self.asleep_ns, self.asleep_ns + 10, before % 2**64, self.raw_ns, after % 2**64)

    def go_on(self, ns: int, *, ppm: int = 0, counter_ns: int = 0) -> str | None:
        """Let *ns* go by, in which the counter goes *counter_ns* farther; what is seen."""
        self.raw_ns += ns
        self.ticks += (ns * (10**6 + ppm) // 10**6 + counter_ns) * 5 // 2
        return self.continuity.break_seen()


@pytest.mark.parametrize("parted_ns", [2 * 10**6, -2 * 10**6, 3 * SECOND, -3 * SECOND, 86_400 * SECOND])
def test_counter_and_clock_that_part_are_a_break_once(parted_ns: int) -> None:
    """A pause that only one of them counts is a break, and afterwards the two agree again."""
    counter = PlayedCounter()
    assert [counter.go_on(SECOND // 5) for _ in range(20)] == [None] * 20
    assert counter.go_on(SECOND // 5, counter_ns=parted_ns) == (
        f"the counter and CLOCK_MONOTONIC_RAW moved apart by {parted_ns / 1e9:.6f} s"
    )
    assert [counter.go_on(SECOND // 5) for _ in range(20)] == [None] * 20


def test_corrections_of_a_host_are_no_break() -> None:
    """A rate that wanders by 400 ppm, steps of half a millisecond and slow reads are no break."""
    counter = PlayedCounter()
    for number in range(1000):
        counter.window_ticks = 25 * 10**6 if number % 10 == 9 else 100
        assert (
            counter.go_on(
                SECOND // 10, ppm=(-200, 200)[number % 2], counter_ns=(-5 * 10**5, 5 * 10**5)[number % 2]
            )
            is None
        )


def test_counter_of_any_rate_is_watched() -> None:
    """A counter that changes its rate by 1,000 ppm and more is a break."""
    counter = PlayedCounter()
    for _ in range(200):
        assert counter.go_on(SECOND) is None
    assert counter.go_on(10 * SECOND, ppm=1000) is not None


def test_publisher_that_stood_still_voids_the_time(segment_path: Path) -> None:
    """A publisher that is stopped for seconds and goes on commits a new marker, because nobody knows what happened."""
    command = [sys.executable, "-m", "vmclock_async", "publish", "told", "--segment", str(segment_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        eventually(lambda: is_committed(segment_path))
        os.kill(process.pid, signal.SIGSTOP)
        try:
            subprocess.run(["sleep", str(LONGEST_NS / 10**9 + 1)], check=True)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        for line in process.stderr:
            if "stood still" in line:
                break
        process.send_signal(signal.SIGTERM)
        process.communicate()
    with SegmentReader(segment_path) as reader:
        assert reader.snapshot().body.disruption_marker == OWN_DISRUPTION


def test_suspend_is_one_break_though_the_two_parted() -> None:
    """A sleep that only one of counter and clock counts is the sleep's break, and no second one."""
    counter = PlayedCounter()
    assert [counter.go_on(SECOND // 5) for _ in range(20)] == [None] * 20
    counter.asleep_ns = 10 * SECOND
    assert "was suspended" in str(counter.go_on(SECOND // 5, counter_ns=10 * SECOND))
    assert [counter.go_on(SECOND // 5) for _ in range(20)] == [None] * 20


@pytest.mark.parametrize("first", [0, 1, 2, 7, 40])
def test_look_that_was_interrupted_is_no_break(first: int) -> None:
    """A process that loses the processor between two readings measures no wrong rate, and sees no break."""
    counter = PlayedCounter()
    for number in range(100):
        if number >= first and number % 3 == first % 3:
            counter.interrupted_ns = 30 * 10**6
        assert counter.go_on(SECOND // 5) is None
