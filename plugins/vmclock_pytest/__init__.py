"""The fixture ``segment`` for pytest.

Every pytest in an environment that has vmclock-async imports this at its start. So it stays outside that package,
and imports nothing of it until a test asks for the fixture.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vmclock_async.testing import PlayedSegment

__all__ = ("segment",)


@pytest.fixture
def segment(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[PlayedSegment]":
    """A segment that a test can change: see ``vmclock_async.testing.PlayedSegment``."""
    from vmclock_async.testing import PlayedSegment

    with PlayedSegment(tmp_path_factory.mktemp("segment")) as played:
        yield played
