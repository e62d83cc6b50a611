"""The history of ``watch``: bounded memory, and nothing that was short is lost."""

from vmclock_async._cli.history import REFUSED, Column, History

SYNCHRONIZED, FREERUNNING, UNKNOWN = 2, 3, 0


def test_column_keeps_the_largest_bound_and_the_gravest_status() -> None:
    """Looks in one column are one: also what happened in each, and that one had no time."""
    history = History(1000, 10)
    history.add(1000, Column(5, SYNCHRONIZED))
    history.add(1004, Column(70, SYNCHRONIZED, frozenset({"leap"})))
    history.add(1009, Column(6, FREERUNNING))
    history.add(1010, Column(None, UNKNOWN))
    history.add(1011, Column(9, SYNCHRONIZED))
    assert history.columns(10) == (
        [Column(70, FREERUNNING, frozenset({"leap"})), Column(9, UNKNOWN, frozenset({REFUSED}))],
        10,
    )


def test_status_without_a_name_is_the_gravest() -> None:
    """Nobody knows what it means."""
    assert Column(1, 99).joined(Column(2, 4)).status == 99


def test_time_in_which_nobody_looked_is_empty() -> None:
    """As after the program was stopped for a while."""
    history = History(0, 10)
    history.add(0, Column(5, SYNCHRONIZED))
    history.add(35, Column(6, SYNCHRONIZED))
    assert history.columns(10)[0] == [Column(5, SYNCHRONIZED), None, None, Column(6, SYNCHRONIZED)]


def test_peak_is_there_however_long_ago() -> None:
    """A week of looks: few columns, and the one large bound, the one refusal and the one restore are in them."""
    step_ns = 500
    history = History(0, step_ns)
    for number in range(5000):
        bound = 900 if number == 1234 else None if number == 3000 else 5
        marks = frozenset({"restored"}) if number == 4000 else frozenset[str]()
        history.add(number * step_ns * 240, Column(bound, SYNCHRONIZED, marks))
    columns, column_ns = history.columns(64)
    assert 32 <= len(columns) <= 64
    assert len(columns) * column_ns >= 5000 * step_ns * 240 > (len(columns) - 1) * column_ns
    found = [column for column in columns if column is not None]
    assert [column.bound_ns for column in found if column.bound_ns != 5] == [900]
    assert sum(REFUSED in column.marks for column in found) == 1
    assert sum("restored" in column.marks for column in found) == 1
    assert len(history.columns(10**6)[0]) <= 1024
