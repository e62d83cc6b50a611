"""Code of a source that holds the event loop, or would."""

import threading
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path

import pytest

import kit.sources
from kit.sources import Script, counting_up, emitting
from vmclock_async import BodyUpdate, Emit, Publisher, SourceError


class Scripted(kit.sources.Scripted):
    """A source of this module's package, where the code is that the log has to show."""


class Synchronous(Scripted):
    """Its ``run`` would never return."""

    def run(self, emit: Emit) -> Awaitable[None]:  # type: ignore[override]
        raise AssertionError("called, it may hold the loop for ever")


class Generating(Scripted):
    """Its ``run`` yields."""

    async def run(self, emit: Emit) -> AsyncIterator[int]:  # type: ignore[override]
        yield 1


class Computing(Scripted):
    """Its attributes fail."""

    @property
    def run(self) -> Script:  # type: ignore[override]
        raise OSError("no run today")


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            Synchronous(counting_up),
            "failed with TypeError: run is .*Synchronous.run.*, which is no async function",
        ),
        (Generating(counting_up), "failed with TypeError: run is .*Generating.run.*, which is no async function"),
        (Computing(counting_up), "failed with OSError: no run today"),
    ],
)
async def test_source_that_cannot_be_run_is_named(segment_path: Path, source: Scripted, message: str) -> None:
    """It is not called to see what happens; the error says what it lacks."""
    with pytest.raises(SourceError, match=f"^odd one: {message}"):
        await Publisher(segment_path, {"odd one": source}).run()


@pytest.mark.long
@pytest.mark.anyio
async def test_source_that_holds_the_loop_is_named_once(
    segment_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says which of two sources of one package it is, and where it is; and not again in the same run."""

    async def script(emit: Emit) -> None:
        while not caplog.records:
            threading.Event().wait(0.01)
        threading.Event().wait(1.5)  # for some looks more

    publisher = Publisher(segment_path, {"quick": emitting(BodyUpdate(clock_status=2)), "slow": Scripted(script)})
    await publisher.run()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("slow has held the event loop for ")
    assert f"script ({__file__}:" in line
