"""Make the recordings in examples/recordings, and the one that ``vmclock-async demo`` plays.

    python tools/make_recordings.py [DIRECTORY]

Each simulates a small machine: its true time and the rate of its counter are known exactly, and a daemon in it
measures the time about once a second, a little wrong, within an honest bound. Every run makes the same files, byte
for byte. Without DIRECTORY they go where the repository keeps them.
"""

import argparse
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from vmclock_async import ClockStatus, CounterId, Flags, LeapIndicator, TimeType, VMClockBody
from vmclock_async.recording import Record, RecordingHeader, RecordingWriter
from vmclock_async.timebase import fixed_point_period

ROOT = Path(__file__).resolve().parent.parent
US, MS, NS, HOUR = 10**3, 10**6, 10**9, 3600 * 10**9  # nanoseconds in each; NS: in a second

MAX_DRIFT_PPM = 50  # an oscillator holds this, so a bound has to grow at this rate
ESTIMATES = Flags.PERIOD_ESTERROR_VALID | Flags.TIME_ESTERROR_VALID
BOUNDS = ESTIMATES | Flags.PERIOD_MAXERROR_VALID | Flags.TIME_MAXERROR_VALID
STARTED_NS = int(datetime(2026, 3, 14, 15, 9, 26, tzinfo=UTC).timestamp()) * NS
LEAP_BEGINS_TAI_NS = (int(datetime(2017, 1, 1, tzinfo=UTC).timestamp()) + 36) * NS  # 2016-12-31 23:59:60 UTC


class Seen(NamedTuple):
    """A recorded commit, and true time at its counter, which the recorder could not know."""

    record: Record
    true_utc_ns: int


@dataclass
class Machine:
    """A machine, its clock daemon, and a recorder that sees each commit 20 microseconds after it was made."""

    seed: int
    hz: int  # rate of its crystal; the daemon does not know it, but measures it
    first_counter: int
    time_ns: int  # true time on the page's timescale
    body: VMClockBody
    time_type: TimeType = TimeType.UTC
    poll_ns: int = NS  # interval of the daemon's measurements
    elapsed_ns: int = 0
    on_this_host_ns: int = 0
    seen: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    @property
    def counter(self) -> int:
        """The counter now. Computed from the whole time, because ticks cut off at each step would add up."""
        return self.first_counter + self.on_this_host_ns * self.hz // NS

    @property
    def true_utc_ns(self) -> int:
        """True UTC now, counted as POSIX does, except for the leap second: see ``calendar``."""
        return self.time_ns + self.calendar().get("tai_offset_sec", 0) * NS

    def calendar(self) -> dict[str, int]:
        """Fields of a TAI page that describe UTC now.

        The convention here is that of IERS bulletins: 23:59:60 still has the offset of the day that it ends, and
        -37 comes into force at 00:00:00. TAI plus offset therefore runs on into the new day for one second, which
        then comes again. (Linux changes the offset a second earlier, and so has 23:59:59 twice.)
        """
        if self.time_type != TimeType.TAI:
            return {}
        if self.time_ns < LEAP_BEGINS_TAI_NS:
            return {"tai_offset_sec": -36, "leap_indicator": LeapIndicator.PRE_POS}
        if self.time_ns < LEAP_BEGINS_TAI_NS + NS:
            return {"tai_offset_sec": -36, "leap_indicator": LeapIndicator.POS}
        return {"tai_offset_sec": -37, "leap_indicator": LeapIndicator.POST_POS}

    def run(self, ns: int) -> None:
        """Let *ns* pass."""
        self.elapsed_ns += ns
        self.on_this_host_ns += ns
        self.time_ns += ns

    def move(self, hz: int, counter: int, *, away_ns: int = 0) -> None:
        """Go on elsewhere, with another counter, after a time that no clock of the machine counted."""
        self.hz, self.first_counter, self.on_this_host_ns = hz, counter, 0
        self.time_ns += away_ns

    def within(self, limit: int) -> int:
        """A number from -limit to limit. Only random() is promised to be the same in every version of Python."""
        return int((2 * self.random.random() - 1) * limit)

    def commit(self, **changes: int) -> None:
        """Commit the body with *changes*."""
        self.body = VMClockBody.model_validate({**self.body.model_dump(), **changes})
        self.run(20 * US)
        if not self.seen:
            self.elapsed_ns = 0
        seq_count = 2 * len(self.seen) + 2
        record = Record(t_ns=self.elapsed_ns, counter=self.counter, seq_count=seq_count, body=self.body)
        self.seen.append(Seen(record, self.true_utc_ns))

    def measure(self, bound_ns: int) -> None:
        """Commit a fresh measurement: off by at most a sixteenth of its bound, the period by at most 5 ppm."""
        bound_ns += self.within(2 * US)
        seconds, ns = divmod(self.time_ns + self.within(bound_ns // 16), NS)
        period = fixed_point_period(NS, self.hz + self.within(5 * self.hz // 10**6))
        measured = {
            "counter_value": self.counter,
            "counter_period_shift": period.shift,
            "counter_period_frac_sec": period.frac_sec,
            "counter_period_esterror_rate_frac_sec": period.frac_sec * 5 // 10**6 + 1,
            "counter_period_maxerror_rate_frac_sec": period.frac_sec * MAX_DRIFT_PPM // 10**6 + 1,
            "time_sec": seconds,
            "time_frac_sec": (ns << 64) // NS,
            "time_esterror_nanosec": bound_ns // 16,
            "time_maxerror_nanosec": bound_ns,
            **self.calendar(),
        }
        self.run(250 * US + self.within(150 * US))  # time from the reading to the commit
        self.commit(clock_status=ClockStatus.SYNCHRONIZED, flags=self.body.flags | BOUNDS, **measured)

    def synchronize(self, polls: int, bound_ns: int, *, best_ns: int = 90 * US) -> None:
        """Measure at the next *polls* polls, with a bound that shrinks from *bound_ns* to *best_ns*."""
        for _ in range(polls):
            self.run(self.poll_ns - self.elapsed_ns % self.poll_ns + 3 * MS + self.within(3 * MS))
            self.measure(bound_ns)
            bound_ns = max(bound_ns * 4 // 5, best_ns)

    def void(self, **changes: int) -> None:
        """Commit what a disruption leaves: a new marker and no reliable time."""
        flags = self.body.flags & ~(BOUNDS | Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT)
        changes["disruption_marker"] = self.body.disruption_marker + 1
        self.commit(clock_status=ClockStatus.UNKNOWN, flags=flags, **changes)

    def resume(self, void_ns: int, polls: int, bound_ns: int) -> None:
        """Find the time again after a disruption: void for *void_ns*, then measured at *polls* polls."""
        self.run(void_ns // 2)
        self.commit(clock_status=ClockStatus.INITIALIZING)
        self.run(void_ns // 2)
        self.synchronize(polls, bound_ns)


def live_migration() -> Machine:
    """A migration, announced, then done: another host, another counter. True time goes on for a blackout of 300 ms."""
    machine = Machine(1, 2_299_961_407, 814_335_091_220_481, STARTED_NS, VMClockBody(disruption_marker=7))
    machine.synchronize(8, 180 * US)
    machine.run(400 * MS)
    machine.commit(flags=machine.body.flags | Flags.DISRUPTION_IMMINENT)
    machine.synchronize(4, 90 * US)
    machine.run(300 * MS)
    machine.move(2_900_043_118, 55_018_276_944_003)
    machine.void()
    machine.resume(1500 * MS, 9, 420 * US)
    return machine


def snapshot_restore() -> Machine:
    """A machine that is stopped, stored, and restored five hours later: a new generation, and a clock hours behind."""
    body = VMClockBody(disruption_marker=1, vm_generation_counter=0x5EED_0001)
    machine = Machine(2, 2_499_988_530, 96_220_718_003_615, STARTED_NS, body)
    machine.synchronize(9, 150 * US)
    machine.run(150 * MS)
    machine.move(2_500_011_972, 1_740_330_526_118, away_ns=5 * HOUR + 17 * HOUR // 60)
    machine.void(vm_generation_counter=0x5EED_0002)
    machine.resume(2500 * MS, 10, 600 * US)
    return machine


def leap_second() -> Machine:
    """The leap second at the end of 2016, ten seconds on either side of it, on a TAI page."""
    started_ns = LEAP_BEGINS_TAI_NS - 10 * NS - 300 * MS
    body = VMClockBody(flags=Flags.TAI_OFFSET_VALID)
    machine = Machine(3, 2_399_990_077, 31_556_925_974_700, started_ns, body, TimeType.TAI, poll_ns=500 * MS)
    machine.synchronize(40, 110 * US)
    return machine


def time_source_lost() -> Machine:
    """A loss of the network for a while: the last measurement is kept, and its bound grows until the next."""
    machine = Machine(4, 3_000_027_004, 7_160_034_115_862_209, STARTED_NS, VMClockBody(disruption_marker=2))
    machine.synchronize(9, 120 * US)
    machine.run(5 * NS)  # a publisher waits so long for a quiet source before it reports it
    machine.commit(clock_status=ClockStatus.FREERUNNING, flags=machine.body.flags & ~ESTIMATES)
    machine.run(6 * NS)
    machine.synchronize(8, 240 * US)
    return machine


def demo() -> Machine:
    """All of it in 13 seconds: synchronized, announced, migrated at 5 s, restored from a snapshot at 9 s."""
    body = VMClockBody(disruption_marker=40, vm_generation_counter=0xC0FF_EE01)
    machine = Machine(5, 2_299_961_407, 814_335_091_220_481, STARTED_NS, body, poll_ns=500 * MS)
    machine.synchronize(6, 400 * US)
    machine.run(250 * MS)
    machine.commit(flags=machine.body.flags | Flags.DISRUPTION_IMMINENT)
    machine.synchronize(4, 130 * US)
    machine.run(490 * MS)
    machine.move(2_900_043_118, 55_018_276_944_003)
    machine.void()
    machine.resume(800 * MS, 6, 500 * US)
    machine.run(490 * MS)
    machine.move(2_900_043_118, 1_740_330_526_118, away_ns=2 * HOUR)
    machine.void(vm_generation_counter=0xC0FF_EE02)
    machine.resume(800 * MS, 7, 500 * US)
    return machine


RECORDINGS: dict[str, Callable[[], Machine]] = {
    "live-migration.jsonl": live_migration,
    "snapshot-restore.jsonl.gz": snapshot_restore,
    "leap-second.jsonl": leap_second,
    "time-source-lost.jsonl": time_source_lost,
    "demo.jsonl": demo,
}


def write(machine: Machine, path: Path) -> None:
    """Write the recorded commits of *machine* to *path*."""
    header = RecordingHeader(
        format="vmclock-recording",
        version=1,
        counter_id=CounterId.X86_TSC,
        time_type=machine.time_type,
        segment_size=112,
        created=datetime.fromtimestamp(machine.seen[0].true_utc_ns // NS, UTC),
    )
    with RecordingWriter(path, header) as writer:
        for seen in machine.seen:
            writer.write(seen.record)


def main() -> None:
    """Make all recordings."""
    parser = argparse.ArgumentParser(description="Make the recordings to replay.")
    parser.add_argument("directory", nargs="?", type=Path, help="where they go; default: where they belong")
    chosen = parser.parse_args().directory
    for name, simulate in RECORDINGS.items():
        directory = chosen or (
            ROOT / "src/vmclock_async/_cli" if simulate is demo else ROOT / "examples/recordings"
        )
        directory.mkdir(parents=True, exist_ok=True)
        write(simulate(), directory / name)
        print(directory / name)


if __name__ == "__main__":
    main()
