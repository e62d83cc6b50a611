"""What goes wrong again and again is a line a minute in the log."""

import logging
from functools import partial
from pathlib import Path

import anyio
import pytest

from kit.merging import SECOND, measurement, merger, told
from kit.publishing import publish, time_fields
from kit.sources import Scripted, counting_up
from kit.waits import until
from vmclock_async import BodyUpdate, ClockStatus, Emit, Publisher, SourceUnavailableError
from vmclock_async._publishing.complaints import EVERY_S, ComplaintKind, Complaints
from vmclock_async._publishing.supervisor import Supervised

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


def test_source_that_fails_after_each_update_is_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Its outages are counted, also where the reason has another number each time, and the recoveries are not said."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    complaints = Complaints(LOG, now=clock)
    source = Supervised("chrony", Scripted(counting_up), complaints)
    for second in range(125):
        clock.now = float(second)
        source.note_outage(SourceUnavailableError("chrony", f"process {second} has gone"))
        source.note_update(BodyUpdate(clock_status=2))
        complaints.say_what_is_due()
    assert lines(caplog) == [
        "chrony: process 0 has gone; it is tried again",
        "chrony: is there again, after 0.0 s",
        "chrony: process 60 has gone; it is tried again (60 times in 60 s; this is the last)",
        "chrony: process 120 has gone; it is tried again (60 times in 60 s; this is the last)",
    ]
    for clock.now in (180.0, 240.0):
        complaints.say_what_is_due()
    assert lines(caplog) == [
        "chrony: process 124 has gone; it is tried again (4 times in 60 s; this is the last)",
        "chrony: no new outage (process N has gone) for 60 s; there were 125 in all",
    ]
    source.note_outage(SourceUnavailableError("chrony", "process 7 has gone"))
    assert lines(caplog) == ["chrony: process 7 has gone; it is tried again"]


def test_outage_that_was_alone_ends_with_its_own_line(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing was held back, so nothing is said later. A reason of another kind has a line of its own, at once."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    complaints = Complaints(LOG, now=clock)
    source = Supervised("chrony", Scripted(counting_up), complaints)
    for reason in ("no daemon", "no daemon", "no socket"):
        source.note_outage(SourceUnavailableError("chrony", reason))
    source.note_there()
    for clock.now in (60.0, 120.0):
        complaints.say_what_is_due()
    assert lines(caplog) == [
        "chrony: no daemon; it is tried again",
        "chrony: no socket; it is tried again",
        "chrony: is there again, after 0.0 s",
    ]


def test_changes_have_ten_lines_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """A time that changes its source a few times is followed line by line; one that does so for ever is counted."""
    caplog.set_level(logging.INFO)
    clock = Clock()
    complaints = Complaints(LOG, now=clock)
    said = [complaints.say("the time", "change", f"from {number}") for number in range(25)]
    assert said == [True] * 10 + [False] * 15
    lines(caplog)
    for clock.now in (60.0, 120.0, 180.0):
        complaints.say_what_is_due()
    assert lines(caplog) == [
        "from 24 (15 times in 60 s; this is the last)",
        "the time: no change for 60 s; there were 25 in all",
    ]


@pytest.mark.anyio
async def test_disruptions_that_anybody_reports_have_ten_lines_at_once(
    segment_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is committed, and has another marker. When the run ends the log says how many lines there were not."""

    async def report(publisher: Publisher) -> None:
        await until(lambda: publisher.statistics().commits > 0)
        for _ in range(12):
            await publisher.disrupt("for fun")

    caplog.set_level(logging.INFO)
    with anyio.fail_after(10):
        await publish(segment_path, {"steady": Scripted(counting_up)}, report)
    said = [line for line in lines(caplog) if line.startswith("for fun: the time is void")]
    assert len(said) == 10 + 1
    assert said[-1].endswith("(2 times in 0 s; this is the last)")


@pytest.mark.anyio
async def test_time_that_changes_all_the_time_has_ten_lines_at_once(
    segment_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each change is committed, whether the log says so or not."""
    times = time_fields()

    async def change(emit: Emit) -> None:
        for number in range(24):
            status = (ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING)[number % 2]
            await emit(BodyUpdate.model_validate(times | {"clock_status": status}))

    caplog.set_level(logging.INFO)
    with anyio.fail_after(10):
        await Publisher(segment_path, {"changing": Scripted(change)}).run()
    said = [line for line in lines(caplog) if line.startswith("the time comes from changing")]
    assert len(said) == 10 + 1
    assert "times in 0 s; this is the last)" in said[-1]
