"""A child that is forked while a writer opens or closes keeps nothing of it, in whichever thread the fork happens.

A child that keeps the lock's descriptor keeps the lock for as long as it lives: the next publisher would be refused.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

RunScript = Callable[..., str]


@pytest.mark.parametrize("there", [False, True], ids=["new", "warm"])
def test_fork_at_any_step_of_opening_and_closing_keeps_nothing(
    run_script: RunScript, segment_path: Path, make_page: Callable[..., bytes], there: bool
) -> None:
    """At each line of the opening and the closing, no descriptor of segment or lock is open in the child."""
    if there:
        segment_path.write_bytes(make_page(size=112, body=bytes(96)))
        segment_path.chmod(0o644)
    steps, places = json.loads(run_script("fork_while_writing", segment_path, "each step"))
    assert steps > 100
    assert places == []


def test_forks_in_another_thread_keep_nothing(run_script: RunScript, segment_path: Path) -> None:
    """While one thread opens, writes and closes, 200 children of another have none of it."""
    assert json.loads(run_script("fork_while_writing", segment_path, "storm")) == [True, True, 0]


def test_opening_that_takes_long_and_a_fork_do_not_lock_each_other(
    run_script: RunScript, segment_path: Path
) -> None:
    """The opener waits without the GIL, and the fork waits for it, or goes first; either way the child has nothing."""
    assert run_script("fork_while_writing", segment_path, "blocked") == "[false]\n"
