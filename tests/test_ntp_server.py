"""How often a server is asked, which of its answers counts, and what it may forbid."""

from fractions import Fraction

import pytest

from kit.ntp_exchanges import EXACT, NOW_NS, NS, PPM, TICK_NS, sample
from vmclock_async.timebase import Rate
from vmclock_ntp.server import LEAST_PAUSE_S, Server

DRIFTING = Rate(TICK_NS, TICK_NS * 50 * PPM)


def pauses(server: Server, *, count: int, trip_ticks: int = 2000, lost: bool = False) -> list[float]:
    """The pauses after each of *count* requests, without what is added at random."""
    found = []
    for number in range(count):
        server.note_request(0.0)
        if lost:
            server.miss("lost")
        else:
            ns = number * 4 * NS
            server.take(sample(counter=2 * ns, ns=NOW_NS + ns, trip_ticks=trip_ticks), DRIFTING)
        found.append(server._usual_s)
    return found


def test_pauses_are_short_at_first_and_as_long_as_the_answers_are_wide() -> None:
    """4 s three times; then 16 s for a server in the same room, up to 64 s for one that is far away or silent."""
    assert pauses(Server("near"), count=8) == [4, 4, 4, 16, 16, 16, 16, 16]
    assert pauses(Server("in between"), count=8, trip_ticks=8_000_000) == [4, 4, 4, 32, 16, 32, 16, 32]
    assert pauses(Server("far"), count=8, trip_ticks=80_000_000) == [4, 4, 4, 32, 64, 64, 64, 64]
    assert pauses(Server("silent"), count=8, lost=True) == [4, 4, 4, 64, 64, 64, 64, 64]


def test_pause_has_up_to_a_tenth_more_at_random() -> None:
    """Never less, and not the same each time; what has passed since the request is taken off."""
    server = Server("any")
    assert server.wait_s(100.0) == 0
    server.note_request(100.0)
    waits = [server.wait_s(101.0) for _ in range(200)]
    assert all(3 <= wait_s <= 3.4 for wait_s in waits)
    assert len(set(waits)) > 100
    assert server.wait_s(1000.0) == 0
    assert server.wait_s(5.0) >= LEAST_PAUSE_S, "another loop's clock may be behind"


def test_server_is_asked_soon_after_a_disruption_but_not_at_once() -> None:
    """4 s after the last request, in place of 16, and then as at the start."""
    server = Server("any")
    pauses(server, count=6)
    server.begin()
    assert server.wait_s(0.0) == LEAST_PAUSE_S
    assert server.wait_s(3.0) == LEAST_PAUSE_S - 3
    assert pauses(server, count=4) == [4, 4, 4, 16]


@pytest.mark.parametrize("asked", [1, 5])
def test_rate_slows_down_for_good(asked: int) -> None:
    """Each RATE at least doubles the pause, up to an hour; also that after a disruption, and in the short ones."""
    server = Server("busy")
    pause_s = pauses(server, count=asked)[-1]
    for _ in range(3):
        server.note_request(0.0)
        pause_s = server._usual_s
        server.kiss("RATE")
        assert server._usual_s >= 2 * pause_s
    assert not server.forbidden
    server.begin()
    assert server.wait_s(0.0) >= 2 * pause_s
    for _ in range(20):
        server.kiss("RATE")
    assert server._usual_s == 3600


@pytest.mark.parametrize("code", ["DENY", "RSTR"])
def test_server_that_forbids_is_obeyed(code: str) -> None:
    """It counts no more, also in the next epoch; other codes forbid nothing."""
    server = Server("closed")
    pauses(server, count=1)
    server.kiss("INIT")
    assert server.is_reachable
    assert server.forbidden is None
    server.kiss(code)
    assert not server.is_reachable
    assert server.forbidden == code
    server.begin()
    assert server.forbidden == code
    assert code in (server.failure or "")


def test_server_counts_until_eight_requests_in_a_row_are_lost() -> None:
    """Then no more, until it answers."""
    server = Server("lossy")
    assert not server.is_reachable
    for lost in (7, 7, 8):
        pauses(server, count=1)
        assert server.is_reachable
        pauses(server, count=lost, lost=True)
    assert not server.is_reachable
    server.take(sample(), EXACT)
    assert server.is_reachable


def test_jumps_that_go_on_are_one_matter() -> None:
    """Only the first of several in a row is told."""
    server = Server("erratic")
    told = [server.take(sample(ns=NOW_NS + jump * NS), EXACT) is not None for jump in (0, 1, 2, 3, 3, 3, 7)]
    assert told == [False, True, False, False, False, False, True]


def test_lost_request_is_no_failure_yet() -> None:
    """Three in a row are, and the first one of all, and a server that forbids to be asked."""
    server = Server("lossy")
    server.miss("lost")
    assert server.is_failing
    pauses(server, count=1)
    assert not server.is_failing
    for failing in (False, False, True):
        server.miss("lost")
        assert server.is_failing == failing
    pauses(server, count=1)
    server.kiss("DENY")
    assert server.is_failing


def test_first_answer_is_waited_for() -> None:
    """For four requests; not after an answer, nor where the server forbids to be asked."""
    server = Server("slow")
    pauses(server, count=3, lost=True)
    assert server.is_waited_for
    pauses(server, count=1, lost=True)
    assert not server.is_waited_for
    server.begin()
    assert server.is_waited_for
    server.take(sample(), EXACT)
    assert not server.is_waited_for
    server.begin()
    server.kiss("DENY")
    assert not server.is_waited_for


def test_answer_that_leaves_least_open_counts() -> None:
    """A narrow one for as long as its drift is less than what a later one is wider; of the last eight alone."""
    server = Server("jittery")
    narrow = sample(counter=0, ns=NOW_NS, trip_ticks=2000)
    server.take(narrow, DRIFTING)
    for number in range(1, 8):
        ns = number * NS
        server.take(sample(counter=2 * ns, ns=NOW_NS + ns, trip_ticks=10**7), DRIFTING)
        at = 2 * ns
        assert server.moment(at, DRIFTING) == narrow.moment(at, DRIFTING)
    server.take(sample(counter=16 * NS, ns=NOW_NS + 8 * NS, trip_ticks=10**7), DRIFTING)
    assert server.moment(0, EXACT).error_ns > 10**6
    later = sample(counter=40 * NS, ns=NOW_NS + 20 * NS, trip_ticks=9 * 10**6)
    server.take(later, DRIFTING)
    assert server.moment(0, EXACT) == later.moment(0, EXACT)


def test_answer_that_contradicts_shows_a_step() -> None:
    """Older answers are forgotten, however narrow they were; one that agrees is no step."""
    server = Server("stepping")
    assert server.take(sample(), EXACT) is None
    assert server.take(sample(ns=NOW_NS + 10_000, trip_ticks=10**6), EXACT) is None
    assert server.take(sample(ns=NOW_NS + NS, trip_ticks=10**6), EXACT) is not None
    assert abs(server.moment(0, EXACT).true_ns - NOW_NS - NS) < Fraction(NS, 1000)


def test_answers_of_another_machine_do_not_count_any_more() -> None:
    """When another address of the name has answered, though the first machine's answer left less open."""
    server = Server("pool")
    server.asks = (2, ("192.0.2.1", 123))
    server.take(sample(), EXACT)
    server.asks = (2, ("192.0.2.2", 123))
    assert server.heard_from == (2, ("192.0.2.1", 123))
    server.take(sample(counter=2 * NS, ns=NOW_NS + NS, trip_ticks=2_000_000), EXACT)
    assert server.moment(2 * NS, EXACT).error_ns > NS // 2000
    assert server.heard_from == (2, ("192.0.2.2", 123))
    server.begin()
    assert server.heard_from is None
