"""A commit that lands inside the compiled core's reading of a stamp of CLOCK_MONOTONIC."""

from collections.abc import Callable
from pathlib import Path

import pytest

from kit.stand_ins import compiled, preloaded
from kit.told_world import World

RunScript = Callable[..., str]


@pytest.fixture(scope="module")
def monotonic_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in that commits before CLOCK_MONOTONIC is read."""
    return compiled("monotonic", tmp_path_factory.mktemp("monotonic"))


@pytest.mark.parametrize(
    ("marker", "answer"),
    [
        pytest.param("same", "given", id="commit"),
        pytest.param(
            "moved",
            "refused: the stamp is from before this clock first saw the disruption marker 2",
            id="disruption",
        ),
    ],
)
def test_commit_within_the_reading_of_a_stamp_is_noticed(
    world: World, run_script: RunScript, monotonic_library: Path, marker: str, answer: str
) -> None:
    """The copied page is void once another was committed before CLOCK_MONOTONIC was read: Python reads it again."""
    printed = run_script("commit_within_stamp", world.path, marker, environment=preloaded(monotonic_library))
    assert printed == f"0 1 {answer}\n"
