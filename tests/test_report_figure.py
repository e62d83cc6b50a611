"""The picture of a report: nothing is lost where there is too much of it, and its axes hold all that is drawn."""

import re
from dataclasses import replace
from math import log10
from pathlib import Path

import pytest

from vmclock_async._cli.reporting.columns import LARGEST, Point
from vmclock_async._cli.reporting.figure import figure, folded_bands, folded_marks
from vmclock_async._cli.reporting.series import Band, Mark, Report, collect
from vmclock_async.recording import RecordingReader

RECORDINGS = Path(__file__).parent.parent / "examples/recordings"


@pytest.fixture(scope="module")
def report() -> Report:
    """That of the shipped migration."""
    with RecordingReader(RECORDINGS / "live-migration.jsonl") as reader:
        return collect(reader)


def test_few_marks_stay_each_for_itself(report: Report) -> None:
    """Also where two are at one moment."""
    assert folded_marks(report) is report.marks
    assert folded_bands(report) is report.bands


def test_of_many_marks_those_in_a_column_become_one_that_counts_them(report: Report) -> None:
    """A slow recorder has a gap at each record. None is lost, and a disruption among them stays a mark of its own."""
    gaps = [Mark(at * 10**6, "gap", "gap: 3 commits not seen") for at in range(20_000)]
    disrupted = Mark(5_000 * 10**6, "disrupted", "disrupted: marker 1 to 2")
    folded = folded_marks(replace(report, marks=sorted([*gaps, disrupted], key=lambda mark: mark.t_ns)))
    assert disrupted in folded
    assert len(folded) <= LARGEST + 1
    more = [int(found[1]) for mark in folded if (found := re.search(r"; (\d+) more within", mark.text))]
    assert len(folded) - 1 + sum(more) == len(gaps)
    assert folded == sorted(folded, key=lambda mark: mark.t_ns)


def test_of_many_bands_neighbors_narrower_than_a_column_become_one(report: Report) -> None:
    """It says that there are several; a wide band stays, and all of the time is covered."""
    statuses = ("SYNCHRONIZED", "FREERUNNING")
    bands = [Band(at * 1000, at * 1000 + 1000, statuses[at % 2]) for at in range(5000)]
    bands.append(Band(5_000_000, report.duration_ns, "SYNCHRONIZED"))
    folded = folded_bands(replace(report, bands=bands))
    assert folded == [Band(0, 5_000_000, "several"), bands[-1]]


def test_marks_are_the_last_trace_in_the_order_of_the_list(report: Report) -> None:
    """By which the list below the picture finds them."""
    drawn = figure(report)["data"][-1]
    assert drawn["text"] == [mark.text for mark in report.marks]
    assert drawn["x"] == [mark.t_ns / 10**9 for mark in report.marks]


def test_bound_of_zero_is_drawn_at_the_least_value_and_says_zero(report: Report) -> None:
    """A logarithmic axis has no zero."""
    drawn = figure(replace(report, bound=[Point(0, 0), Point(10**9, 50), Point(2 * 10**9, None)]))
    line = drawn["data"][0]
    assert line["y"] == [1, 50, None]
    assert line["text"][0] == "bound 0 ns<br>SYNCHRONIZED"
    low, high = drawn["layout"]["yaxis"]["range"]
    assert low == 0
    assert high >= log10(50)


@pytest.mark.parametrize(
    ("seconds", "unit"), [(599, "seconds"), (600, "minutes"), (36_000, "hours"), (864_000, "days")]
)
def test_axis_of_time_has_the_unit_that_reads_best(report: Report, seconds: int, unit: str) -> None:
    """From ten of a unit on."""
    layout = figure(replace(report, duration_ns=seconds * 10**9))["layout"]
    assert layout["xaxis"]["title"]["text"] == f"{unit} since the first record"
