"""check_source: it lets good sources pass, and each promise that is broken is named."""

import asyncio
import os
import select
import threading
import time
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from vmclock_async import BodyUpdate, Emit, SourceUnavailableError
from vmclock_async.testing import check_source, make_body
from vmclock_async.timebase import COUNTER_ID

PATIENCE_S = 0.05
ENDS_S = 30.0
"""For sources that end by themselves: however busy the machine is, they are not cut short."""
MEASURED = (
    "counter_id",
    "counter_value",
    "counter_period_frac_sec",
    "counter_period_shift",
    "counter_period_maxerror_rate_frac_sec",
    "time_sec",
    "time_frac_sec",
    "time_maxerror_nanosec",
    "clock_status",
)


class Good:
    """Tells a time twice, with a helper task and a file while it runs, and returns."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel
    patience_s: ClassVar[float] = ENDS_S

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
    patience_s = PATIENCE_S

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


def measurement(**changes: Any) -> BodyUpdate:
    fields = dict(make_body()) | {"counter_id": COUNTER_ID, **changes}
    return BodyUpdate(**{name: fields[name] for name in MEASURED if fields[name] is not None})


@pytest.mark.anyio
@pytest.mark.parametrize("source", [Good, Endless, Absent, Threaded])
async def test_good_sources_pass(source: type[Good]) -> None:
    """One that ends, one that does not, one that is not there, one that has work in a thread."""
    updates = await check_source(source, patience_s=source.patience_s)
    assert source is Absent or updates
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

    patience_s = PATIENCE_S

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
    """Abandons work in a thread, once it has begun."""

    async def run(self, emit: Emit) -> None:
        began = threading.Event()

        def work() -> None:
            began.set()
            LeavingAThread.stop.wait(30)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(anyio.to_thread.run_sync, work, abandon_on_cancel=True))
            await anyio.to_thread.run_sync(began.wait, 10, abandon_on_cancel=True)
            tasks.cancel_scope.cancel()
        await super().run(emit)


class LeavingATask(Good):
    """Starts a task that outlives it."""

    started: ClassVar[list[Any]] = []

    async def run(self, emit: Emit) -> None:
        await super().run(emit)
        if self.started:
            self.started[0].start_soon(anyio.sleep_forever)


class Blocking(Good):
    """Sleeps in the event loop."""

    patience_s = PATIENCE_S

    async def run(self, emit: Emit) -> None:
        while True:
            epoch = emit.epoch
            await emit(measurement(), epoch=epoch)
            time.sleep(0.3)  # noqa: ASYNC251


class BlockingChild(Good):
    """Sleeps in the event loop, in a task of its own."""

    async def run(self, emit: Emit) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sleep)
            await super().run(emit)

    async def _sleep(self) -> None:
        time.sleep(0.3)  # noqa: ASYNC251


class BlockingForGood(Good):
    """Never awaits anything, because it forgets to."""

    async def run(self, emit: Emit) -> None:
        while True:
            emit(BodyUpdate(disruption_marker=1))  # type: ignore[unused-coroutine]
            time.sleep(0.05)  # noqa: ASYNC251


class Forgetful(Good):
    """Emits one update, and forgets to await that."""

    async def run(self, emit: Emit) -> None:
        await super().run(emit)
        emit(BodyUpdate(disruption_marker=1))  # type: ignore[unused-coroutine]
        await anyio.lowlevel.checkpoint()


class Mute(Good):
    """Ends without a word."""

    async def run(self, emit: Emit) -> None:
        await anyio.lowlevel.checkpoint()


class Waiting(Good):
    """Waits for ever without a word."""

    patience_s = PATIENCE_S

    async def run(self, emit: Emit) -> None:
        await anyio.sleep_forever()


class Exiting(Good):
    """Ends the program."""

    async def run(self, emit: Emit) -> None:
        await anyio.lowlevel.checkpoint()
        raise SystemExit(3)


class OfOneEpoch(Good):
    """Reads the epoch once, for all measurements."""

    patience_s = PATIENCE_S

    async def run(self, emit: Emit) -> None:
        epoch = emit.epoch
        while True:
            await anyio.sleep(0.001)
            await emit(measurement(), epoch=epoch)


class Remembering(Good):
    """Reads the epoch each time, and passes on what it read first."""

    patience_s = PATIENCE_S

    async def run(self, emit: Emit) -> None:
        first = emit.epoch
        while emit.epoch >= first:
            await anyio.sleep(0.001)
            await emit(measurement(), epoch=first)


class InNanoseconds(Good):
    """Takes nanoseconds for the unit of the fraction."""

    async def run(self, emit: Emit) -> None:
        epoch = emit.epoch
        await emit(measurement(time_frac_sec=123_456_789), epoch=epoch)


class TooFast(Good):
    """Gives a period that is 2 % too long."""

    async def run(self, emit: Emit) -> None:
        period = measurement().counter_period_frac_sec
        assert period is not None
        changes = {"counter_period_frac_sec": period + period // 50}
        epoch = emit.epoch
        await emit(measurement(**changes), epoch=epoch)


class WithoutStatus(Good):
    """Tells a time, and not whether it is synchronized."""

    async def run(self, emit: Emit) -> None:
        epoch = emit.epoch
        await emit(measurement(clock_status=None), epoch=epoch)


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
        (Synchronous, r"run is an async function; but it is <bound method Synchronous.run"),
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
        (
            Blocking,
            r"never blocks the event loop; but it held it for 0.1 s and more in Blocking.run \(.*\.py:\d+\)",
        ),
        (BlockingChild, r"never blocks the event loop; but it held it .* in BlockingChild._sleep \(.*\.py:\d+\)"),
        (BlockingForGood, r"never blocks the event loop; but it held it for good in BlockingForGood.run"),
        (Forgetful, r"emits with await emit\(update\); but it called emit without await"),
        (Mute, r"emits an update or a report, or raises .*; but it returned with neither"),
        (Waiting, r"emits an update or a report, or raises .*; but it did neither within 1 s"),
        (Exiting, r"another VMClockError; but it raised SystemExit: 3"),
        (OfOneEpoch, r"reads emit.epoch before each measurement; .* epoch 0, which it had read before"),
        (Remembering, r"reads emit.epoch before each measurement; .* epoch 0, which it had read before"),
        (InNanoseconds, r"in the ABI's units; but it sent time_frac_sec 123456789,"),
        (
            TooFast,
            r"in the ABI's units; but it sent counter_period_frac_sec \d+ with shift \d+, .* expected about \d+",
        ),
        (WithoutStatus, r"a time is complete.*; but it sent a time without clock_status"),
        (LeavingATask, r"no task, thread.* it left the task .*sleep_forever"),
        (Once, r"may be run again.* the first run emitted 2, the second 0"),
    ],
)
async def test_broken_promise_is_named(source: type[Good], message: str) -> None:
    """Of a source that breaks one promise, it says which, and what was seen."""
    with pytest.raises(AssertionError, match=f"^{source.__name__} breaks a promise of Source: .*{message}"):
        await check_source(source, patience_s=source.patience_s)


@pytest.fixture
def noise() -> Iterator[None]:
    """Other threads, which open and close descriptors all the time, and leave loops that are collected late."""
    over = threading.Event()

    def open_and_close() -> None:
        while not over.is_set():
            read, write = os.pipe()
            with open(os.devnull, "rb"):
                over.wait(0.003)
            os.close(read)
            os.close(write)

    def leave_loops() -> None:
        while not over.wait(0.02):
            CollectedLate()
            loop = asyncio.new_event_loop()
            over.wait(0.02)
            loop.close()

    threads = [threading.Thread(target=target, daemon=True) for target in (open_and_close, leave_loops)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


class CollectedLate:
    """Has the descriptors of an event loop, and closes them when the collector finds it."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.ends = os.pipe()
        self.circle = self

    def __del__(self) -> None:
        self.epoll.close()
        for end in self.ends:
            os.close(end)


@pytest.mark.anyio
@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize("source", [Good, Endless, Absent, Threaded])
async def test_what_others_open_is_not_the_source_s(source: type[Good]) -> None:
    """A good source passes whatever other threads open and close meanwhile, and whenever a loop is collected."""
    await check_source(source, patience_s=source.patience_s)


@pytest.mark.anyio
@pytest.mark.usefixtures("noise", "nursery")
@pytest.mark.parametrize(
    ("source", "message"),
    [
        (LeavingAFile, r"it left the descriptor \d+ \(/dev/zero\)"),
        (LeavingAThread, r"it left the thread left over"),
        (LeavingATask, r"it left the task .*sleep_forever"),
    ],
)
async def test_what_a_source_leaves_is_found_among_what_others_open(source: type[Good], message: str) -> None:
    """Of a source that leaves something each time, just that is named, though others open things as well."""
    with pytest.raises(AssertionError, match=rf"^{source.__name__} breaks a promise of Source: .*{message}"):
        await check_source(source, patience_s=source.patience_s)
