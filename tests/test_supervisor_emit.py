"""What a source is given to emit with: what it refuses, and what it is when its run is over."""

from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from kit.sources import Scripted, raising
from vmclock_async import BodyUpdate, Emit, InvalidUpdateError, Publisher, SourceError, SourceUnavailableError


@pytest.mark.anyio
async def test_other_things_than_updates_are_refused(segment_path: Path) -> None:
    """A source that emits a dict is told so, by name."""

    async def script(emit: Emit) -> None:
        await emit({"clock_status": 2})  # type: ignore[arg-type]

    with pytest.raises(InvalidUpdateError, match="meter: sent a dict, not a BodyUpdate"):
        await Publisher(segment_path, {"meter": Scripted(script)}).run()


@pytest.mark.anyio
async def test_emit_kept_beyond_its_run_is_an_error_that_names_its_source(segment_path: Path) -> None:
    """Whether the run has ended, was begun again, or the publisher has ended: a typed error, at each call."""
    kept: list[Emit] = []

    async def script(emit: Emit) -> None:
        for earlier in kept:
            with pytest.raises(SourceError, match="keeper: called emit when its run had ended"):
                await earlier(BodyUpdate(clock_status=2))
        kept.append(emit)
        await emit(BodyUpdate(clock_status=2))
        if len(kept) < 3:
            raise SourceUnavailableError("keeper", "again")

    publisher = Publisher(segment_path, {"keeper": Scripted(script)})
    with anyio.fail_after(10):
        await publisher.run()
    for emit in kept:
        with pytest.raises(SourceError, match="keeper: called emit when its run had ended"):
            await emit(BodyUpdate(clock_status=2))
    assert publisher.statistics().sources["keeper"].updates == 3


@pytest.mark.anyio
async def test_emit_of_somebody_elses_task_ends_with_the_publisher(segment_path: Path) -> None:
    """A task that is not the publisher's, and waits in emit when the writer fails, does not wait for ever."""
    given: list[Emit] = []
    ends: list[str] = []

    async def script(emit: Emit) -> None:
        given.append(emit)
        await emit(BodyUpdate(clock_status=2))
        await anyio.sleep_forever()

    async def foreign() -> None:
        while not given:
            await anyio.lowlevel.checkpoint()
        try:
            while True:
                await given[0](BodyUpdate(clock_status=2))
        except SourceError as exc:
            ends.append(str(exc))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(foreign)
            publisher = Publisher(segment_path, {"shared": Scripted(script), "bad": raising(RuntimeError("bug"))})
            with pytest.raises(SourceError, match="bad: "):
                await publisher.run()
    (end,) = ends
    assert end.startswith("shared: called emit when its run had ended")
