"""Which servers are believed: a majority from three up, both of two, and one alone."""

from collections.abc import Mapping

from hypothesis import given, strategies as st

from vmclock_async import TimeInterval
from vmclock_async.intervals import intersection
from vmclock_ntp.selection import CALM_VOTES, Choice, Selection, agreed


def intervals(**ends: tuple[int, int]) -> dict[str, TimeInterval]:
    return {name: TimeInterval(*both, 2) for name, both in ends.items()}


def ends(interval: TimeInterval | None) -> tuple[int, int] | None:
    return None if interval is None else (interval.earliest_ns, interval.latest_ns)


def test_one_server_is_believed_and_two_must_agree() -> None:
    """Two have what they have in common, if only a nanosecond; if nothing, there is no time."""
    assert ends(agreed(intervals(a=(5, 9))).interval) == (5, 9)
    assert ends(agreed(intervals(a=(5, 9), b=(9, 20))).interval) == (9, 9)
    choice = agreed(intervals(a=(5, 9), b=(10, 20)))
    assert choice == Choice(None, frozenset(), frozenset())
    assert agreed({}).interval is None


def test_majority_decides_from_three_up() -> None:
    """The others are found false; half is no majority."""
    choice = agreed(intervals(a=(5, 9), b=(8, 20), c=(30, 40)))
    assert ends(choice.interval) == (8, 9)
    assert (choice.right, choice.false) == (frozenset("ab"), frozenset("c"))
    assert agreed(intervals(a=(5, 9), b=(10, 20), c=(30, 40))).interval is None
    assert agreed(intervals(a=(5, 9), b=(8, 20), c=(30, 40), d=(35, 45))).interval is None


def test_all_that_a_majority_may_have_is_kept() -> None:
    """A wide interval makes two with either of two others: nobody knows which of these is false. And where all three
    overlap, two of them may be right elsewhere."""
    choice = agreed(intervals(wide=(0, 100), early=(10, 20), late=(80, 90)))
    assert ends(choice.interval) == (10, 90)
    assert choice.false == frozenset()
    assert ends(agreed(intervals(a=(0, 10), b=(5, 20), liar=(10, 12))).interval) == (5, 12)


_INTERVALS = st.tuples(st.integers(0, 50), st.integers(0, 20)).map(lambda both: (both[0], both[0] + both[1]))


@given(st.lists(_INTERVALS, min_size=1, max_size=8))
def test_truth_of_a_majority_is_inside(given_ends: list[tuple[int, int]]) -> None:
    """Whatever point more than half have in common (of one and two: all): it is in the result, whose ends are such
    points; and nobody who has one is found false."""
    given = intervals(**{f"s{number}": both for number, both in enumerate(given_ends)})
    choice = agreed(given)
    needed = len(given) // 2 + 1
    agreeing = [ns for ns in range(-1, 73) if len(_having(ns, given)) >= needed]
    assert ends(choice.interval) == ((agreeing[0], agreeing[-1]) if agreeing else None)
    for ns in agreeing:
        assert not _having(ns, given) & choice.false
    if choice.interval is not None:
        for name, interval in given.items():
            assert (name in choice.false) == (intersection(interval, choice.interval) is None)
    assert choice.right | choice.false == (set(given) if agreeing else set())


def _having(ns: int, given: Mapping[str, TimeInterval]) -> set[str]:
    return {name for name, interval in given.items() if interval.earliest_ns <= ns <= interval.latest_ns}


def test_silent_servers_have_a_vote() -> None:
    """Two that agree are enough for three, and not for four; one alone is enough for two, and not for three. Of two
    of three, one may be wrong."""
    two = intervals(a=(5, 9), b=(8, 20))
    assert ends(agreed(two, silent=1).interval) == (5, 20)
    assert agreed(two, silent=2).interval is None
    one = intervals(a=(5, 9))
    assert ends(agreed(one, silent=1).interval) == (5, 9)
    assert agreed(one, silent=2).interval is None
    selection = Selection()
    selection.vote(intervals(a=(5, 9), b=(8, 20), c=(30, 40)))
    assert ends(selection.vote(intervals(c=(30, 40), b=(8, 20)), silent=1).interval) is None
    assert ends(selection.vote(intervals(c=(30, 40), b=(8, 20)), silent=0).interval) == (8, 20)


@given(st.data())
def test_truth_is_inside_whoever_is_silent(data: st.DataObject) -> None:
    """Where more than half of three to eight servers are right, and any of them have not answered."""
    count = data.draw(st.integers(3, 8))
    wrong = data.draw(st.integers(0, (count - 1) // 2))
    truth = 30
    right = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(lambda both: (truth - both[0], truth + both[1]))
    given_ends = [data.draw(_INTERVALS if number < wrong else right) for number in range(count)]
    answered = data.draw(st.sets(st.sampled_from(range(count)), min_size=1))
    given = intervals(**{f"s{number}": given_ends[number] for number in answered})
    choice = agreed(given, silent=count - len(answered))
    if choice.interval is not None:
        assert choice.interval.earliest_ns <= truth <= choice.interval.latest_ns
        assert not _having(truth, given) & choice.false
    elif len(answered) == count:
        raise AssertionError("all have answered, and more than half are right")


def test_two_that_contradicted_each_other_are_doubted() -> None:
    """For an hour of votes in which they agree they have what either contains, and neither is believed alone; a
    majority ends that."""
    selection = Selection()
    both = intervals(a=(5, 9), b=(8, 20))
    assert ends(selection.vote(both).interval) == (8, 9)
    assert selection.vote(intervals(a=(5, 9), b=(10, 20))).interval is None
    for _ in range(CALM_VOTES):
        assert ends(selection.vote(both).interval) == (5, 20)
    assert ends(selection.vote(both).interval) == (8, 9)
    assert selection.vote(intervals(a=(5, 9), b=(10, 20))).interval is None
    assert ends(selection.vote(both).interval) == (5, 20)
    assert selection.vote(intervals(a=(5, 9))).interval is None
    assert selection.vote({}).interval is None
    assert selection.vote(intervals(a=(5, 9), b=(10, 20), c=(30, 40))).interval is None
    assert ends(selection.vote(both).interval) == (5, 20)
    assert ends(selection.vote(intervals(a=(5, 9), b=(8, 20), c=(30, 40))).interval) == (8, 9)
    assert ends(selection.vote(both).interval) == (8, 9)


def test_server_found_false_decides_nothing_by_itself() -> None:
    """When the others fail, it is neither believed alone nor against one of them, until a majority finds it right."""
    selection = Selection()
    three = intervals(a=(5, 9), b=(8, 20), c=(30, 40))
    assert ends(selection.vote(three).interval) == (8, 9)
    assert selection.false == {"c"}
    assert ends(selection.vote({name: three[name] for name in "ac"}).interval) == (5, 9)
    assert selection.vote({"c": three["c"]}).interval is None
    assert selection.vote(intervals(a=(5, 9), b=(10, 20), c=(30, 40))).interval is None
    assert selection.false == {"c"}, "without a majority nothing changes"
    assert ends(selection.vote(intervals(a=(5, 9), b=(8, 20), c=(6, 9))).interval) == (6, 9)
    assert selection.false == frozenset()
    assert ends(selection.vote({"c": three["c"]}).interval) == (30, 40)
