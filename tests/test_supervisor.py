"""Sources that are unavailable, and are tried again; sources that fail, and end the run; on every event loop."""

import asyncio
from pathlib import Path
from typing import Any

import anyio
import pytest
from pydantic import ValidationError

from kit.publishing import assert_at_rest
from kit.sources import Scripted, counting_up, raising
from kit.waits import until
from vmclock_async import (
    BodyUpdate,
    Emit,
    InvalidUpdateError,
    Publisher,
    RecordingError,
    SegmentReader,
    SourceError,
    SourceUnavailableError,
)

# Sources that are unavailable


@pytest.mark.anyio
async def test_unavailable_source_is_run_again(segment_path: Path) -> None:
    """SourceUnavailableError means: later. The publisher counts the restarts and keeps the last error."""

    async def script(emit: Emit) -> None:
        if source.runs < 3:
            raise SourceUnavailableError("scripted", "no daemon yet")
        await emit(BodyUpdate(clock_status=2))

    source = Scripted(script)
    publisher = Publisher(segment_path, {"daemon": source})
    with anyio.fail_after(10):
        await publisher.run()
    statistics = publisher.statistics().sources["daemon"]
    assert (source.runs, statistics.restarts, statistics.state) == (3, 2, "finished")
    assert statistics.last_error == "no daemon yet"
    assert statistics.update_age_s is not None


@pytest.mark.long
@pytest.mark.anyio
async def test_pauses_grow_though_it_said_something(segment_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A source that says that it has no time, and then that it is unavailable, floods neither segment nor log."""

    async def script(emit: Emit) -> None:
        await emit(BodyUpdate(counter_id=0xFF))
        raise SourceUnavailableError("unfit", "no fit counter")

    publisher = Publisher(segment_path, {"unfit": Scripted(script)})
    async with anyio.create_task_group() as tasks:
        began = anyio.current_time()
        tasks.start_soon(publisher.run)
        await until(lambda: publisher.statistics().sources["unfit"].restarts == 4)
        assert anyio.current_time() - began >= 0.05 + 0.1 + 0.2 + 0.4  # each the shorter half of its pause
        tasks.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == ["unfit: no fit counter; it is tried again"]


@pytest.mark.anyio
async def test_errors_go_by_the_name_that_a_source_has_here(segment_path: Path) -> None:
    """Two instances of one plugin call themselves alike; the error says which it was."""

    async def script(emit: Emit) -> None:
        raise SourceError("lamp", "no oil")

    with pytest.raises(SourceError, match=r"^left: no oil$"):
        await Publisher(segment_path, {"left": Scripted(script)}).run()


@pytest.mark.anyio
async def test_one_unavailable_source_does_not_stop_the_others(segment_path: Path) -> None:
    """While one source waits for its daemon, another publishes."""

    async def unavailable(emit: Emit) -> None:
        raise SourceUnavailableError("absent", "not there")

    async def present(emit: Emit) -> None:
        for number in range(1, 20):
            await emit(BodyUpdate(counter_value=number))
        tasks.cancel_scope.cancel()

    publisher = Publisher(segment_path, {"absent": Scripted(unavailable), "present": Scripted(present)})
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
    assert publisher.statistics().sources["absent"].state == "unavailable"
    assert publisher.statistics().sources["present"].updates >= 18
    assert_at_rest(segment_path)


# Sources that fail


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("bug"), "odd one: failed with RuntimeError: bug"),
        (RecordingError("a.jsonl", 5, "bad"), "odd one: a.jsonl, line 5: bad"),
        (SourceError("odd one", "gone for good"), "odd one: gone for good"),
        (ExceptionGroup("tasks", [OSError(5, "disk")]), "odd one: failed with OSError: [Errno 5] disk"),
    ],
)
async def test_other_errors_end_the_run_and_name_the_source(
    segment_path: Path, error: Exception, message: str
) -> None:
    """One bare SourceError that names the source, its cause kept; the other sources are stopped."""
    publisher = Publisher(segment_path, {"odd one": raising(error), "other": Scripted(counting_up)})
    with anyio.fail_after(10), pytest.raises(SourceError) as caught:
        await publisher.run()
    assert str(caught.value) == message
    assert publisher.statistics().sources["odd one"].state == "failed"


@pytest.mark.anyio
async def test_validation_error_arrives_as_invalid_update(segment_path: Path) -> None:
    """pydantic's error never comes out bare: it names source and field, and what was committed stays."""

    async def script(emit: Emit) -> None:
        await emit(BodyUpdate(clock_status=2))
        await emit(BodyUpdate(clock_status=256))

    with pytest.raises(
        InvalidUpdateError, match=r"meter: .*clock_status: must be an integer from 0 to 255"
    ) as caught:
        await Publisher(segment_path, {"meter": Scripted(script)}).run()
    assert isinstance(caught.value.__cause__, ValidationError)
    with SegmentReader(segment_path) as reader:
        assert reader.seq_count == 2
    assert_at_rest(segment_path)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("field", "value"), [("time_sec", -1), ("time_sec", 2**64), ("flags", None), ("counter_id", 256)]
)
async def test_values_that_skipped_validation_name_the_source(segment_path: Path, field: str, value: Any) -> None:
    """What only model_construct() lets in ends as one InvalidUpdateError that names source and field."""

    async def script(emit: Emit) -> None:
        await emit(BodyUpdate(disruption_marker=7))
        await emit(BodyUpdate.model_construct({field}, **{field: value}))

    with pytest.raises(InvalidUpdateError, match=f"meter: sent what is no update: {field}"):
        await Publisher(segment_path, {"meter": Scripted(script)}).run()


class UnshowableError(Exception):
    """An error of a careless plugin."""

    def __str__(self) -> str:
        raise RuntimeError("not even this")


class HalfMadeError(SourceError):
    """An error of another, which never called its base."""

    def __init__(self) -> None:
        Exception.__init__(self)


@pytest.mark.anyio
@pytest.mark.parametrize("error", [UnshowableError(), HalfMadeError()])
async def test_errors_that_cannot_be_shown_name_the_source(segment_path: Path, error: Exception) -> None:
    """However careless the plugin: one bare SourceError with its name."""
    with pytest.raises(SourceError, match=r"careless: .*cannot be shown"):
        await Publisher(segment_path, {"careless": raising(error)}).run()


@pytest.mark.asyncio
async def test_source_that_leaks_a_cancellation_is_an_error(segment_path: Path) -> None:
    """A CancelledError of a source's own, of a task it awaited, does not end the run as a success."""

    async def script(emit: Emit) -> None:
        await emit(BodyUpdate(clock_status=2))
        inner = asyncio.ensure_future(asyncio.sleep(60))
        inner.cancel()
        await inner

    publisher = Publisher(segment_path, {"leaky": Scripted(script), "healthy": Scripted(counting_up)})
    with pytest.raises(SourceError, match="leaky: was cancelled from within"):
        async with asyncio.timeout(10):
            await publisher.run()
    assert_at_rest(segment_path)


class OddError(BaseException):
    """What no ``except Exception`` catches."""


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SystemExit(3), "odd one: failed with SystemExit: 3"),
        (OddError("bang"), "odd one: failed with OddError: bang"),
        (BaseExceptionGroup("tasks", [SystemExit(3)]), "odd one: failed with SystemExit: 3"),
    ],
)
async def test_exits_of_a_source_end_the_run_and_name_it(
    segment_path: Path, error: BaseException, message: str
) -> None:
    """A source that would end the program is one that failed, like any other."""

    async def script(emit: Emit) -> None:
        raise error

    publisher = Publisher(segment_path, {"odd one": Scripted(script), "other": Scripted(counting_up)})
    with anyio.fail_after(10), pytest.raises(SourceError) as caught:
        await publisher.run()
    assert str(caught.value) == message
