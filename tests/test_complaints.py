"""What goes wrong again and again is a line a minute in the log."""

import logging
from functools import partial

import pytest

from kit.merging import SECOND, measurement, merger, told
from vmclock_async._publishing.complaints import EVERY_S, ComplaintKind, Complaints

LOG = logging.getLogger("vmclock_async.publisher")


class Clock:
    """A clock that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines since the last call."""
    found = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return found


def test_one_line_a_minute_with_a_count_and_one_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """The first at once, then one a minute that says how many there were; a minute without any is the end."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    complaints = Complaints(LOG, now=clock)
    for second in range(125):
        clock.now = float(second)
        complaints.add("chrony", "contradiction", partial("contradicts at {}".format, second))
        complaints.say_what_is_due()
    assert lines(caplog) == [
        "chrony contradicts at 0",
        "chrony contradicts at 60 (60 times in 60 s; this is the last)",
        "chrony contradicts at 120 (60 times in 60 s; this is the last)",
    ]
    clock.now = 180.0
    complaints.say_what_is_due()
    clock.now = 240.0
    complaints.say_what_is_due()
    complaints.say_what_is_due()
    assert lines(caplog) == [
        "chrony contradicts at 124 (4 times in 60 s; this is the last)",
        "chrony: no contradiction for 60 s; there were 125 in all",
    ]
    complaints.add("chrony", "contradiction", lambda: "contradicts again")
    assert lines(caplog) == ["chrony contradicts again"]


def test_each_source_and_each_kind_has_a_minute_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """One source's noise does not hide what another does, nor what else it does itself."""
    complaints = Complaints(LOG, now=Clock())
    kinds: tuple[ComplaintKind, ...] = ("contradiction", "time of no use")
    for source in ("a", "b", "a"):
        for kind in kinds:
            complaints.add(source, kind, partial("says {}".format, kind))
    assert lines(caplog) == [f"{source} says {kind}" for source in "ab" for kind in kinds]


def test_faults_are_counted_by_source_and_kind() -> None:
    """Each kind from the start, also while none is logged; the count outlasts the complaint's end."""
    clock = Clock()
    complaints = Complaints(LOG, now=clock)
    assert complaints.counts("a") == dict.fromkeys(complaints.counts("b"), 0)
    for _ in range(3):
        complaints.add("a", "contradiction", lambda: "contradicts")
    complaints.add("b", "time of no use", lambda: "says nothing")
    for clock.now in (100.0, 200.0, 300.0):
        complaints.say_what_is_due()
    complaints.add("a", "contradiction", lambda: "contradicts")
    assert {kind: number for kind, number in complaints.counts("a").items() if number} == {"contradiction": 4}
    assert {kind: number for kind, number in complaints.counts("b").items() if number} == {"time of no use": 1}


def test_source_that_contradicts_with_each_update_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A hundred contradictions are a hundred markers, and a line; the minute's end says how many there were."""
    merged = merger("chrony")
    for number in range(101):
        told(merged, "chrony", measurement(number, off_ns=number * SECOND), number)
    assert merged.contents.body.disruption_marker == 100 * 2**32
    (line,) = lines(caplog)
    assert line.startswith("chrony contradicts what was published: measured ")
    assert EVERY_S == 60.0
