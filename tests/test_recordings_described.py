"""What ``examples/README.md`` says of the recordings is in the files."""

import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

from vmclock_async import ClockStatus, LeapIndicator
from vmclock_async.recording import Record, RecordingReader

EXAMPLES = Path(__file__).parent.parent / "examples"
TIMED = (ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING)


def records_of(name: str) -> list[Record]:
    """The records of a recording that lies in the repository."""
    with RecordingReader(EXAMPLES / "recordings" / name) as reader:
        return reader.read()


def described(name: str) -> str:
    """What the table says that it shows."""
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(rf"^\| \[`recordings/{re.escape(name)}`\]\S* \| (.*) \|$", text, re.MULTILINE)
    return str(shown)


def seconds_in(records: list[Record], holds: Callable[[Record], bool]) -> float:
    """For how long the pages of *records* are in a state, from the first such page to the next that is not."""
    marks = [(record.t_ns, holds(record)) for record in records]
    first = next(at for at, held in marks if held)
    end = next((at for at, held in marks if at > first and not held), marks[-1][0])
    return (end - first) / 10**9


def stale_s(records: list[Record]) -> float:
    """The longest time from one measurement to the next."""
    fresh = [
        after.t_ns for before, after in pairwise(records) if before.body.counter_value != after.body.counter_value
    ]
    return max(after - before for before, after in pairwise(fresh)) / 10**9


@pytest.mark.parametrize(
    "name", ["live-migration.jsonl", "snapshot-restore.jsonl.gz", "leap-second.jsonl", "time-source-lost.jsonl"]
)
def test_recording_is_as_long_as_described(name: str) -> None:
    """To the second."""
    (length,) = re.findall(r"; (\d+) s$", described(name))
    assert round(records_of(name)[-1].t_ns / 10**9) == int(length)


@pytest.mark.parametrize("name", ["live-migration.jsonl", "snapshot-restore.jsonl.gz"])
def test_recording_has_no_time_for_as_long_as_described(name: str) -> None:
    """From the disruption to the first measurement after it."""
    (without,) = re.findall(r"no time for ([\d.]+) s", described(name))
    found = seconds_in(records_of(name), lambda record: record.body.clock_status not in TIMED)
    assert f"{found:.1f}" == without


def test_recording_of_a_lost_source_is_as_described() -> None:
    """How long nothing was measured, and how long the page says so."""
    records = records_of("time-source-lost.jsonl")
    unmeasured, silent, free = (
        int(number) for number in re.findall(r"(\d+) s\b", described("time-source-lost.jsonl"))[:3]
    )
    assert round(stale_s(records)) == unmeasured == silent + free
    found = seconds_in(records, lambda record: record.body.clock_status == ClockStatus.FREERUNNING)
    assert round(found) == free


def test_recording_of_a_leap_second_is_as_described() -> None:
    """How long it is announced, and in progress."""
    records = records_of("leap-second.jsonl")
    announced, lasting = (int(number) for number in re.findall(r"for (\d+) s", described("leap-second.jsonl")))
    assert (
        round(seconds_in(records, lambda record: record.body.leap_indicator == LeapIndicator.PRE_POS)) == announced
    )
    assert round(seconds_in(records, lambda record: record.body.leap_indicator == LeapIndicator.POS)) == lasting
