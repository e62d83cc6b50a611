"""What the ntp source makes of answers: each term of its formulas alone, against fractions made here."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from kit.ntp_exchanges import EXACT, NOW_NS, NS, PPM, TICK_NS, UNIT_NS, sample
from vmclock_async import TimeInterval
from vmclock_async.timebase import Rate
from vmclock_ntp.measure import Baseline, Moment, Sample, counter_rate

LEAST_NS = Fraction(3 * NS, 2 * 65536) + 2 * TICK_NS + 1 + UNIT_NS
"""What a perfect answer leaves: the server's rounding, two ticks, a nanosecond, and the finest precision."""
UNSURE = Rate(TICK_NS, TICK_NS * 100 * PPM)
"""R of 100 ppm."""


def error_ns(measured: Sample, *, at: int = 0, rate: Rate = EXACT) -> Fraction:
    return measured.moment(at, rate).error_ns


# The bound


@pytest.mark.parametrize(
    ("changes", "rate", "ns"),
    [
        ({}, EXACT, 0),
        ({"root_delay": 65536}, EXACT, NS // 2),
        ({"root_dispersion": 65536}, EXACT, NS),
        ({"precision": -10}, EXACT, Fraction(NS, 1024) - UNIT_NS),
        ({"trip_ticks": 4000}, EXACT, 1000),
        ({"trip_ticks": 2 * NS, "held_ns": NS // 2}, EXACT, NS // 4),
        ({"trip_ticks": 2 * NS}, UNSURE, (NS + NS * 100 * PPM) / 2 + NS // 2 * 100 * PPM),
    ],
    ids=["nothing", "half the root delay", "root dispersion", "precision", "half the round trip", "held", "R"],
)
def test_each_term_counts(changes: dict[str, Any], rate: Rate, ns: Fraction) -> None:
    """On top of what a perfect answer leaves; R widens the round trip, and the way back to the counter's value."""
    assert error_ns(sample(**changes), rate=rate) == LEAST_NS + ns


def test_terms_are_explained_one_by_one() -> None:
    """Each term by its name, exact, at the moment of a publication a second later; their sum is the error."""
    measured = sample(
        counter=10, trip_ticks=4000, held_ns=NS // 2**20, root_delay=3, root_dispersion=5, precision=-20
    )
    at = 10 + 2000 + 2 * NS
    terms = {term.name: term.ns for term in measured.terms(at, UNSURE)}
    held_ns = measured._held_ns
    assert abs(held_ns - NS // 2**20) < 1
    assert terms == {
        "root delay": Fraction(3 * NS, 2 * 65536),
        "root dispersion": Fraction(5 * NS, 65536),
        "round trip": (2000 + 2000 * 100 * PPM - held_ns) / 2,
        "precision": Fraction(NS, 2**20),
        "rounding by the server": Fraction(3 * NS, 2 * 65536),
        "counter": 2,
        "oscillator": NS * 100 * PPM,
    }
    assert measured.moment(at, UNSURE).error_ns == sum(terms.values())


def test_time_belongs_to_the_middle() -> None:
    """Of both timestamps and of both readings of the counter; from there it goes on at P, also around the counter's
    end."""
    measured = sample(counter=2**64 - 1000, trip_ticks=4000, held_ns=NS // 2**20)
    assert measured.counter_ticks == 1000
    assert abs(measured.true_ns - NOW_NS - Fraction(NS, 2**21)) < 1
    for ticks in (0, 2 * NS, -NS):
        moment = measured.moment((1000 + ticks) % 2**64, UNSURE)
        assert moment.true_ns == measured.true_ns + ticks * TICK_NS
        assert moment.error_ns == error_ns(measured, at=1000, rate=UNSURE) + abs(ticks) * UNSURE.error


def test_server_that_held_the_packet_too_long_is_refused() -> None:
    """By more than its precision and the last digits; by less, the round trip counts as nothing."""
    within = sample(trip_ticks=2000, held_ns=1900, precision=-20)
    assert within.objection(EXACT) is None
    assert error_ns(within) == LEAST_NS - UNIT_NS + Fraction(NS, 2**20)
    refused = sample(trip_ticks=2000, held_ns=2000, precision=-20).objection(EXACT)
    assert refused is not None
    assert "longer than the round trip" in refused
    assert sample(trip_ticks=2000, held_ns=1003).objection(EXACT)
    assert sample(trip_ticks=2000, held_ns=1001).objection(EXACT) is None
    assert sample(trip_ticks=2000, held_ns=1003).objection(Rate(TICK_NS, TICK_NS / 100)) is None


@example(there=0, held=1, back=0, off_ppm=1, dispersion=0, share=0, later_ticks=0)
@given(
    there=st.integers(0, 10**7),
    held=st.integers(0, 10**6),
    back=st.integers(0, 10**7),
    off_ppm=st.integers(-500, 500),
    dispersion=st.integers(0, 1000),
    share=st.integers(-1000, 1000),
    later_ticks=st.integers(0, 10**11),
)
def test_true_time_is_inside_whatever_the_ways(
    there: int, held: int, back: int, off_ppm: int, dispersion: int, share: int, later_ticks: int
) -> None:
    """For ways there and back of any lengths, a server off by what it states, and a counter off by what R says."""
    rate = Rate(TICK_NS, TICK_NS * 500 * PPM)
    true_tick_ns = TICK_NS * (1 + off_ppm * PPM)
    off_ns = Fraction(dispersion * NS, 65536) * share / 1000
    answered = sample(
        counter=5,
        ns=NOW_NS + int(off_ns),
        held_ns=held,
        trip_ticks=int((there + held + back) / true_tick_ns),
        root_dispersion=dispersion,
    )
    at = 5 + later_ticks
    true_ns = NOW_NS - there + later_ticks * true_tick_ns
    moment = answered.moment(at, rate)
    assert abs(moment.true_ns - true_ns) <= moment.error_ns
    assert answered.objection(rate) is None


def test_interval_is_rounded_outward() -> None:
    """To whole nanoseconds; and an interval is the moment of its middle."""
    interval = Moment(7, Fraction(1001, 2), Fraction(10, 3)).interval
    assert (interval.earliest_ns, interval.latest_ns) == (497, 504)
    assert Moment.of(TimeInterval(500, 503, 2), 9) == Moment(9, Fraction(1003, 2), Fraction(3, 2))


# The counter's rate


def test_rate_is_nominal_until_it_is_measured_better() -> None:
    """500 ppm and RAW's uncertainty; then 50 ppm and the measurement's, once that is less."""
    raw = Rate(TICK_NS, TICK_NS / 1000)
    assert counter_rate(raw, None) == Rate(TICK_NS, TICK_NS * 1500 * PPM)
    measured = Rate(TICK_NS * (1 + 200 * PPM), TICK_NS / 10_000)
    assert counter_rate(raw, measured) == Rate(
        measured.ns_per_tick, measured.error + measured.ns_per_tick * 50 * PPM
    )
    rough = Rate(TICK_NS, TICK_NS * 1451 * PPM)
    assert counter_rate(raw, rough) == counter_rate(raw, None)


def moments(*points: tuple[int, int, int]) -> list[Moment]:
    return [Moment(ticks, Fraction(NOW_NS + ns), Fraction(error)) for ticks, ns, error in points]


def test_baseline_takes_the_pair_that_leaves_least_open() -> None:
    """The difference of the times over that of the counters, with both errors; a wide moment takes nothing back."""
    first, second = moments((0, 0, 300), (2 * NS, NS, 100))
    wide, last = moments((4 * NS, 2 * NS, 10**6), (20 * NS, 10 * NS, 100))

    baseline = Baseline()
    baseline.add(first, UNSURE)
    assert baseline.rate is None
    baseline.add(second, UNSURE)
    two = Rate(TICK_NS, Fraction(400, 2 * NS))
    assert baseline.rate == two
    baseline.add(wide, UNSURE)
    assert baseline.rate == two
    baseline.add(last, UNSURE)
    assert baseline.rate == Rate(TICK_NS, Fraction(200, 18 * NS))


def test_contradiction_begins_the_baseline_over() -> None:
    """A moment farther away than both errors and the drift; one that is not does not."""
    drift_ns = 2 * NS * UNSURE.error
    for away, begins in ((200 + int(drift_ns), False), (201 + int(drift_ns), True)):
        baseline = Baseline()
        for moment in moments((0, 0, 100), (2 * NS, NS + away, 100)):
            baseline.add(moment, UNSURE)
        assert (baseline.rate is None) == begins
        (third,) = moments((4 * NS, 2 * NS + away, 100))
        baseline.add(third, UNSURE)
        assert baseline.rate is not None
        assert (baseline.rate.ns_per_tick == TICK_NS) == begins


def test_baseline_does_not_reach_back_for_ever() -> None:
    """The best pair lasts as long as its earlier moment is one of the last 64."""
    best, *rest = moments((0, 0, 1), *((n * NS, n * NS // 2, 10**5) for n in range(1, 65)))
    baseline = Baseline()
    for moment in [best, *rest[:-1]]:
        baseline.add(moment, UNSURE)
    assert baseline.rate is not None
    assert baseline.rate.error == Fraction(10**5 + 1, 63 * NS)
    baseline.add(rest[-1], UNSURE)
    assert baseline.rate.error == Fraction(2 * 10**5, 63 * NS)


def test_moments_that_do_not_go_forward_give_no_rate() -> None:
    """As two answers that are taken at one counter value."""
    baseline = Baseline()
    for moment in moments((5, 0, 100), (5, 0, 100), (9, -1, 100)):
        baseline.add(moment, UNSURE)
    assert baseline.rate is None
