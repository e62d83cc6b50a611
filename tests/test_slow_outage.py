"""A source whose tries fail only after seconds, on a clock that is played."""

import logging
import re
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
import trio
import trio.testing
from pydantic import BaseModel

from vmclock_async import BodyUpdate, Emit, Publisher, Source
from vmclock_async.errors import SourceUnavailableError

TRY_S = 6.0
"""Length of each try, longer than the publisher takes for a sign of health."""
WATCHED_S = 600.0


class Slow:
    """Fails after TRY_S seconds each time; if *healthy*, it has sent an update by then."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, *, healthy: bool) -> None:
        self.healthy = healthy
        self.tries = 0

    async def run(self, emit: Emit) -> None:
        self.tries += 1
        if self.healthy:
            await emit(BodyUpdate(vm_generation_counter=1))
        await anyio.sleep(TRY_S)
        raise SourceUnavailableError("slow", "the daemon does not answer")


class Steady:
    """Sends one update, and lets *played* run from then on: before, the segment is opened in a thread."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, played: trio.testing.MockClock) -> None:
        self.played = played

    async def run(self, emit: Emit) -> None:
        for _ in range(2):  # the second update is taken once the segment is open
            await emit(BodyUpdate(disruption_marker=1))
        self.played.autojump_threshold = 0
        await anyio.sleep_forever()


def published(source: Slow, path: Path) -> None:
    """Publish *source* for WATCHED_S seconds of played time."""

    async def main() -> None:
        with anyio.move_on_after(WATCHED_S):
            await Publisher(path, sources).run()

    played = trio.testing.MockClock()
    sources: dict[str, Source] = {"slow": source, "steady": Steady(played)}
    trio.run(main, clock=played)


def test_source_that_fails_slowly_has_not_recovered(segment_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without an update, a long try is no recovery: the log has one line, and the pauses grow up to 30 s."""
    source = Slow(healthy=False)
    with caplog.at_level(logging.INFO, "vmclock_async.publisher"):
        published(source, segment_path)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("slow: ")]
    assert said == ["slow: the daemon does not answer; it is tried again"]
    assert source.tries <= WATCHED_S / (TRY_S + 15) + 10  # a pause is at least half of what it may be


def test_source_that_worked_for_a_while_is_tried_again_soon(
    segment_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With an update in each try, the pauses stay short; the log has the first outage, and counts the others."""
    source = Slow(healthy=True)
    with caplog.at_level(logging.INFO, "vmclock_async.publisher"):
        published(source, segment_path)
    said = [record.getMessage() for record in caplog.records if record.getMessage().startswith("slow: ")]
    assert said[0] == "slow: the daemon does not answer; it is tried again"
    assert re.fullmatch(r"slow: is there again, after \d+\.\d s", said[1])
    assert len(said) == 3  # the run takes seconds by the clock that counts a minute
    assert said[2].endswith("s; this is the last)")  # what was held back, when the run ends
    assert source.tries >= WATCHED_S / (TRY_S + 0.1) - 1
