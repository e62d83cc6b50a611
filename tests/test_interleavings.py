"""No waiter is left asleep, whatever comes in whatever order: every interleaving is played, with the real reader.

How each play goes: stepped_waiting.py. With the rule that whoever is handed the place in front looks at the page first,
four of these find a waiter that sleeps on beside a commit.
"""

from pathlib import Path

import pytest

from kit.stepped_waiting import Allowed, explore

pytestmark = pytest.mark.long


@pytest.mark.parametrize(
    ("allowed", "least"),
    [
        pytest.param(Allowed(), 2000, id="a-commit-and-a-cancellation"),
        pytest.param(Allowed(cancels=2, together=True), 1000, id="a-commit-and-two-cancellations"),
        pytest.param(Allowed(natively=True), 1000, id="a-commit-and-asyncio's-cancellation"),
        pytest.param(Allowed(cancels=0, time_outs=1), 1000, id="a-commit-and-a-time-out"),
        pytest.param(Allowed(commits=0, cancels=0, replacements=1), 3000, id="a-replacement"),
        pytest.param(Allowed(waiters=2, commits=0, replacements=1), 1000, id="a-replacement-and-a-cancellation"),
    ],
)
def test_no_order_of_events_leaves_a_waiter_asleep(segment_path: Path, allowed: Allowed, least: int) -> None:
    """When nothing more happens by itself, each waiter has seen the last change, or was cancelled."""
    explored = explore(segment_path.parent, allowed)
    assert explored.asleep == []
    assert explored.states > least  # else it is not the search that it was
