"""The publisher's account of a bound: made of a source's own terms, kept with the segment, of one reference alone."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from kit.adjtimex import STA_NANO, STA_PLL, AdjtimexStandIn
from kit.commands import run_command, start_command
from kit.earlier_boot import require_attributes
from kit.forks import Started
from kit.kernel_readings import MS, US
from kit.merging import SECOND, Silent, measurement, merger
from kit.played_chronyd import PlayedChronyd
from kit.waits import BOUND_S
from vmclock_async import BodyUpdate, SegmentWriter, VMClockBody
from vmclock_async._cli.terms import Explained
from vmclock_async._publishing.accounting import Accounting
from vmclock_async._publishing.merger import Observed
from vmclock_async._segment.account import Account, record_account, recorded_account, reference_of
from vmclock_async.sources import Explains, Explanation, Term
from vmclock_async.testing import ManualClock
from vmclock_chrony import ChronySource
from vmclock_kernel import KernelSource

UPDATE = measurement(1000, error_ns=100)
BODY = UPDATE.applied_to(VMClockBody())
TERMS = (Term("one", Fraction(121, 2), "60.5"), Term("two", 37, "37"))


class Explaining(Silent):
    """A source that has measured *counter_value*, from *terms*."""

    def __init__(self, counter_value: int = 1000, terms: tuple[Term, ...] = TERMS) -> None:
        self.counter_value, self.terms = counter_value, terms
        self.asked = 0

    def explanation(self) -> Explanation | None:
        self.asked += 1
        return Explanation(self.counter_value, self.terms)


class Failing(Explaining):
    def explanation(self) -> Explanation | None:
        super().explanation()
        raise ZeroDivisionError


def account_of(source: Explaining, update: BodyUpdate = UPDATE, body: VMClockBody = BODY) -> Account | None:
    return Accounting({"first": Silent(), "ours": source}).of(
        "ours", update, body, {"first": "no time"}, {"third": "1 ms later"}
    )


def test_account_has_the_terms_of_the_source_and_adds_up() -> None:
    """Terms are rounded down, the rest is a term, the sum is the body's bound; and the choice of the source."""
    account = account_of(Explaining())
    assert account is not None
    assert [(name, ns) for name, ns, _ in account.terms] == [("one", 60), ("two", 37), ("rounding of terms", 3)]
    assert account.belongs_to(BODY)
    assert (account.source, account.sources) == ("ours", ("first", "ours"))
    assert account.passed_over == {"first": "no time"}
    assert account.contradicted_by == {"third": "1 ms later"}


def test_what_nesting_took_is_a_term() -> None:
    """If the publisher published an intersection, a negative term leads to its smaller bound."""
    nested = BODY.model_copy(update={"counter_value": 1300, "time_maxerror_nanosec": 80})
    account = account_of(Explaining(), body=nested)
    assert account is not None
    assert account.terms[-1][:2] == ("nesting", -20)
    assert account.belongs_to(nested)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(Explaining(counter_value=999), id="another measurement"),
        pytest.param(Explaining(terms=TERMS[:1]), id="terms that are less"),
        pytest.param(Explaining(terms=(*TERMS, *TERMS)), id="terms that are more"),
    ],
)
def test_terms_that_do_not_make_up_the_bound_are_left_out(source: Explaining) -> None:
    """No account is better than a wrong one."""
    assert account_of(source) is None


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param(Failing(), "ZeroDivisionError", id="raises"),
        pytest.param(Explaining(terms=(Term("one", 100, 7),)), "terms", id="words that are none"),  # type: ignore[arg-type]
    ],
)
def test_source_whose_explanation_fails_is_not_asked_again(
    caplog: pytest.LogCaptureFixture, source: Explaining, said: str
) -> None:
    """The log says so once, and the time is published all the same."""
    made = Accounting({"ours": source})
    with caplog.at_level(logging.WARNING, "vmclock_async.publisher"):
        assert made.of("ours", UPDATE, BODY, {}, {}) is None
        end = time.monotonic() + 0.25  # twice the pause after which it would be asked again
        while time.monotonic() < end:
            assert not made.is_due("ours")
    assert source.asked == len(caplog.records) == 1
    assert said in caplog.text


def test_words_that_are_no_unicode_are_not_kept(segment_path: Path) -> None:
    """Nothing is recorded, and nothing is raised: the commit is done already."""
    account = account_of(Explaining())
    assert account is not None
    with SegmentWriter(segment_path) as writer:
        writer.write(BODY)
        writer.explain(account.model_copy(update={"terms": (("\udc80", 100, "words"),)}))
        assert recorded_account(writer._page.fileno()) is None


def test_source_is_asked_at_most_ten_times_a_second() -> None:
    """However often it measures: an account takes longer than a commit."""
    source = Explaining()
    made, began = Accounting({"ours": source}), time.monotonic()
    while source.asked < 3:
        if made.is_due("ours"):
            made.of("ours", UPDATE, BODY, {}, {})
    assert time.monotonic() - began >= 0.2


@pytest.mark.parametrize("field", ["counter_value", "time_sec", "time_frac_sec", "time_maxerror_nanosec"])
def test_account_is_of_one_reference(field: str) -> None:
    """A body that differs in its reference or in its bound is another one."""
    account = account_of(Explaining())
    assert account is not None
    assert not account.belongs_to(BODY.model_copy(update={field: getattr(BODY, field) + 1}))
    assert account.belongs_to(BODY.model_copy(update={"clock_status": 3, "disruption_marker": 7}))


def test_account_that_does_not_add_up_belongs_to_nothing() -> None:
    """Whoever wrote it."""
    account = account_of(Explaining())
    assert account is not None
    wrong = account.model_copy(update={"terms": account.terms[1:]})
    assert wrong.reference == reference_of(BODY)
    assert not wrong.belongs_to(BODY)


def test_account_is_kept_with_the_file(segment_path: Path) -> None:
    """A writer keeps it, another writer's opening removes it, and what is no account is none."""
    account = account_of(Explaining())
    assert account is not None
    with SegmentWriter(segment_path) as writer:
        require_attributes(segment_path)
        writer.write(BODY)
        writer.explain(account)
        fd = writer._page.fileno()
        assert recorded_account(fd) == account
        record_account(fd, None)
        assert recorded_account(fd) is None
        writer.explain(account)
    with SegmentWriter(segment_path) as writer:
        assert recorded_account(writer._page.fileno()) is None
    for text in (b"", b"{}", b"\xff", account.model_dump_json().replace('"terms"', '"words"').encode()):
        assert Account.parse(text) is None


def explained_with(*accounts: Account | None) -> Explained:
    """An explanation while a clock finds one of *accounts* after the other."""
    found: Iterator[Account | None] = iter(accounts)
    with ManualClock(follow_loop=False) as clock:
        body = clock.snapshot().body
        of_this = Account(
            reference=reference_of(body),
            terms=(("all", body.time_maxerror_nanosec, "words"),),
            source="ours",
            sources=("ours",),
            passed_over={},
        )
        explained = Explained.now(clock._readings, lambda: next(found, of_this))
        assert sum(row.ns for row in (*explained.reference, *explained.since)) == explained.interval.error_ns
        return explained


def test_body_that_changed_between_the_two_looks_is_noticed() -> None:
    """An account of another reference is never taken: the look is repeated, and in the end the page alone tells."""
    other = account_of(Explaining())
    found = explained_with(other, other)
    assert [row.name for row in found.reference] == ["all"]
    assert not found.is_of_another
    (row,) = explained_with(*[other] * 100).reference
    assert (row.name, row.words) == ("reference", "as measured; the publisher's account is of another measurement")
    (row,) = explained_with(None).reference
    assert (row.name, row.words) == ("reference", "as measured; the page has no more about it")


def test_explained_leap_and_a_reference_that_lies_ahead() -> None:
    """A leap second is a term only where there is one; a reference ahead of the counter is said to be so."""
    with ManualClock(follow_loop=False) as clock:
        plain = Explained.now(clock._readings)
    assert [row.name for row in plain.since] == ["growth", "rounding"]
    leap = plain._replace(budget=plain.budget._replace(leap_ns=SECOND))
    assert leap.since[-1][:2] == ("leap second", SECOND)
    ahead = plain._replace(counter=plain.snapshot.body.counter_value - 1000)
    assert ahead.since[0].words.startswith("in 1.01 us before it, at 50 ppm")


def test_each_source_that_was_passed_over_says_what_it_lacks() -> None:
    """No measurement, a status without a time, quiet, no bound; nothing of those ranked after the chosen one."""
    merging = merger("silent", "lost", "quiet", "unbounded", "chosen", "after")
    now = 100 * SECOND

    def hear(name: str, update: BodyUpdate) -> None:
        merging.notice(Observed(now))
        merging.hear(name, update)

    hear("lost", measurement(now, clock_status=1))
    hear("quiet", measurement(now - 6 * SECOND))
    hear("unbounded", measurement(now, time_maxerror_nanosec=None))
    hear("after", measurement(now))
    hear("chosen", measurement(now))
    merging.compose()
    assert merging.time_source == "chosen"
    assert merging.passed_over() == {
        "silent": "it has measured no time",
        "lost": "its status is INITIALIZING",
        "quiet": "it has not measured for 5 s",
        "unbounded": "its time gives readers on this machine no interval",
    }
    merging.notice(Observed(now, broken="a test"))
    hear("chosen", measurement(now + 1))
    merging.compose()
    assert merging.passed_over()["quiet"] == "it has not measured since the machine was disrupted"


def explained(tmp_path: Path, segment: Path) -> dict[str, Any]:
    """What the command says once the publisher of *segment* explains."""
    deadline = time.monotonic() + BOUND_S
    result = None
    while time.monotonic() < deadline:
        result = run_command(tmp_path, "explain", "--json", segment)
        said: dict[str, Any] = json.loads(result.stdout)
        if said.get("explained_by_publisher"):
            terms = {term["name"]: term["ns"] for term in said["terms"]}
            assert sum(terms.values()) == said["error_ns"]
            assert len(terms) == len(said["terms"])
            return {**said, "terms": terms}
    pytest.fail(f"no account in {BOUND_S} s; last was {result}")


def test_chrony_explains_its_bound(played: PlayedChronyd, tmp_path: Path, segment_path: Path) -> None:
    """Published by a process: chronyd's numbers are terms, and the source ranked before has measured nothing."""
    require_attributes(segment_path.parent)
    played.say(root_delay=2**-10, root_dispersion=2**-11, age_s=3.0)
    chrony = ("--set", f"chrony.address={played.address}", "--set", "chrony.reference_error=0.002")
    publisher = start_command(
        tmp_path, "publish", "device", "chrony", *chrony, "--segment", segment_path, stderr=-3
    )
    try:
        said = explained(tmp_path, segment_path)
    finally:
        publisher.terminate()
        publisher.wait()
    terms = said["terms"]
    assert terms["root delay"] == terms["root dispersion"] == SECOND // 2**11
    assert terms["reference clock"] == 2 * MS
    assert 142 * US <= terms["oscillator"] <= 147 * US  # 49 ppm of 3 s, less at most 0.1 s until chronyd answered
    assert (said["source"], said["sources"]) == ("chrony", ["device", "chrony"])
    assert said["passed_over"] == {"device": "it has measured no time"}
    assert (
        explained(tmp_path, segment_path)["terms"]["root delay"] == terms["root delay"]
    )  # it outlives its publisher


def test_kernel_explains_its_bound(
    start_script: Callable[..., Started], played_clock: AdjtimexStandIn, tmp_path: Path, segment_path: Path
) -> None:
    """Published by a process under a played kernel, whose values are terms."""
    require_attributes(segment_path.parent)
    played_clock.play(status=STA_PLL | STA_NANO, maxerror=7000, offset=31_000, tai=37)
    segment_path.parent.chmod(0o777)
    options = ("--set", "kernel.assumed_error=0.001", "--set", "kernel.poll_interval=0.3")
    start_script("publish_kernel", segment_path, *options, environment=played_clock.environment)
    terms = explained(tmp_path, segment_path)["terms"]
    assert terms["maxerror"] >= 7000 * US
    assert (terms["maxerror's step"], terms["offset"], terms["assumed error"], terms["clock"]) == (
        500 * US,
        31_000,
        MS,
        2,
    )


def test_shipped_sources_of_time_explain() -> None:
    """Those that measure, and so have terms; before the first measurement there are none."""
    for kind in (ChronySource, KernelSource):
        source = kind(kind.settings_type())  # type: ignore[arg-type]
        assert isinstance(source, Explains)
        assert source.explanation() is None
