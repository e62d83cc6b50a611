"""check_source: it lets good sources pass, and each promise that is broken is named."""

import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from vmclock_async import BodyUpdate, Emit, Source, SourceUnavailableError
from vmclock_async.testing import check_source
from vmclock_async.timebase import COUNTER_ID, counter_ticks

PATIENCE_S = 0.05


class Good:
    """Tells a time twice, with a helper task and a file while it runs, and returns."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, settings: Any = None) -> None:
        self.runs = 0

    async def run(self, emit: Emit) -> None:
        async with await anyio.open_file("/dev/null"):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(anyio.sleep_forever)
                for _ in range(2):
                    epoch = emit.epoch
                    await anyio.lowlevel.checkpoint()
                    await emit(measurement(), epoch=epoch)
                tasks.cancel_scope.cancel()


class Endless(Good):
    async def run(self, emit: Emit) -> None:
        while True:
            await super().run(emit)
            await anyio.sleep(0.001)


class Absent(Good):
    async def run(self, emit: Emit) -> None:
        await anyio.lowlevel.checkpoint()
        raise SourceUnavailableError("absent", "not there")


class Threaded(Good):
    async def run(self, emit: Emit) -> None:
        await anyio.to_thread.run_sync(time.sleep, 0.001)
        await super().run(emit)


def measurement() -> BodyUpdate:
    return BodyUpdate(counter_value=counter_ticks(), time_sec=1, counter_id=COUNTER_ID)


@pytest.mark.anyio
@pytest.mark.parametrize("source", [Good, Endless, Absent, Threaded])
async def test_good_sources_pass(source: Callable[[], Source]) -> None:
    """One that ends, one that does not, one that is not there, one that has work in a thread."""
    updates = await check_source(source, patience_s=PATIENCE_S)
    assert source is Absent or len(updates) >= 2
    assert source is not Good or len(updates) == 2


class Dawdling(Good):
    def __init__(self, settings: Any = None) -> None:
        time.sleep(0.06)


class Opening(Good):
    def __init__(self, settings: Any = None) -> None:
        self.file = Path("/dev/zero").open("rb")

    def __del__(self) -> None:
        self.file.close()


class Unsettled(Good):
    settings_type: ClassVar[Any] = dict


class Synchronous(Good):
    def run(self, emit: Emit) -> Any:
        return 1


class Failing(Good):
    async def run(self, emit: Emit) -> None:
        await anyio.lowlevel.checkpoint()
        await anyio.open_file("/no/such/file")


class Raw(Good):
    async def run(self, emit: Emit) -> None:
        await emit({"time_sec": 1})  # type: ignore[arg-type]


class Hiding(Good):
    """Emits no BodyUpdate, and keeps the error to itself."""

    async def run(self, emit: Emit) -> None:
        try:
            await emit("now")  # type: ignore[arg-type]
        except Exception:
            return


class Timeless(Good):
    """Measures, and does not say in which epoch."""

    async def run(self, emit: Emit) -> None:
        await emit(measurement())


class Guessing(Good):
    """Takes it that the epoch is 0."""

    async def run(self, emit: Emit) -> None:
        await emit(measurement(), epoch=0)


class Late(Good):
    """Looks at the epoch when it has measured."""

    async def run(self, emit: Emit) -> None:
        update = measurement()
        await anyio.lowlevel.checkpoint()
        await emit(update, epoch=emit.epoch)


class Stubborn(Good):
    """Goes on when it is cancelled."""

    async def run(self, emit: Emit) -> None:
        while True:
            try:
                await emit(BodyUpdate(disruption_marker=1))
                await anyio.sleep(0.001)
            except anyio.get_cancelled_exc_class():
                continue


class Satisfied(Endless):
    """Takes its cancellation for its end."""

    async def run(self, emit: Emit) -> None:
        try:
            await super().run(emit)
        except anyio.get_cancelled_exc_class():
            return


class LeavingAFile(Good):
    """Closes its file, but not if it is cancelled."""

    left: ClassVar[list[int]] = []

    async def run(self, emit: Emit) -> None:
        descriptor = os.open("/dev/zero", os.O_RDONLY)
        self.left.append(descriptor)
        await super().run(emit)
        os.close(descriptor)
        self.left.remove(descriptor)


class LeavingAThread(Good):
    """Starts a thread that outlives it."""

    stop = threading.Event()

    async def run(self, emit: Emit) -> None:
        threading.Thread(target=self.stop.wait, args=(10,), name="left over", daemon=True).start()
        await super().run(emit)


class LeavingAWorker(Good):
    """Abandons work in a thread."""

    async def run(self, emit: Emit) -> None:
        await super().run(emit)
        await anyio.to_thread.run_sync(time.sleep, 3, abandon_on_cancel=True)


class LeavingATask(Good):
    """Starts a task that outlives it."""

    started: ClassVar[list[Any]] = []

    async def run(self, emit: Emit) -> None:
        await super().run(emit)
        if self.started:
            self.started[0].start_soon(anyio.sleep_forever)


class Once(Good):
    """Has nothing to say when it is run again."""

    async def run(self, emit: Emit) -> None:
        self.runs += 1
        if self.runs == 1:
            await super().run(emit)


@pytest.fixture
async def nursery() -> AsyncIterator[None]:
    """Where the task that is left behind runs; the threads and files that are left are given back."""
    async with anyio.create_task_group() as tasks:
        LeavingATask.started.append(tasks)
        yield
        tasks.cancel_scope.cancel()
    LeavingATask.started.clear()
    LeavingAThread.stop.set()
    LeavingAThread.stop.clear()
    while LeavingAFile.left:
        os.close(LeavingAFile.left.pop())


@pytest.mark.anyio
@pytest.mark.usefixtures("nursery")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Dawdling, r"constructing it does no work that waits; but it took 0\.\d+ s"),
        (Opening, r"constructing it does no work; but it came with the descriptor \d+ \(/dev/zero\)"),
        (Unsettled, r"settings_type is a pydantic model; but it is <class 'dict'>"),
        (Synchronous, r"run is an async function; but it returned 1"),
        (Failing, r"SourceUnavailableError, or another VMClockError; but it raised FileNotFoundError"),
        (Raw, r"emits BodyUpdates; but it emitted \{'time_sec': 1\}"),
        (Hiding, r"emits BodyUpdates; but it emitted 'now'"),
        (Timeless, r"reads emit\.epoch before it measures.* measurement without an epoch"),
        (Guessing, r"reads emit\.epoch before it measures.* which emit\.epoch did not give it"),
        (Late, r"reads emit\.epoch before it measures.* read emit\.epoch \d+ ticks after the counter_value"),
        (Stubborn, r"cancelled at any await; but it went on for 1000 awaits"),
        (Satisfied, r"cancelled at any await; but at await 1 it took that for its end"),
        (
            LeavingAFile,
            r"descriptor behind; but cancelled at its await 1, it left the descriptor \d+ \(/dev/zero\)",
        ),
        (LeavingAThread, r"no task, thread.* it left the thread left over"),
        (LeavingAWorker, r"no task, thread.* it left the thread (AnyIO worker|wrapper from)"),
        (LeavingATask, r"no task, thread.* it left the task .*sleep_forever"),
        (Once, r"may be run again.* the first run emitted 2, the second 0"),
    ],
)
async def test_broken_promise_is_named(source: Callable[[], Source], message: str) -> None:
    """Of a source that breaks one promise, it says which, and what was seen."""
    with pytest.raises(AssertionError, match=f"^{source.__name__} breaks a promise of Source: .*{message}"):
        await check_source(source, patience_s=PATIENCE_S)
