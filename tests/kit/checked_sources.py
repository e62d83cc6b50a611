"""Sources that ``check_source`` is given: good ones, and for each promise one that breaks it."""

import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
from pydantic import BaseModel

from vmclock_async import BodyUpdate, Emit, SourceUnavailableError
from vmclock_async.testing import make_body
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

    async def run(self, emit: Emit) -> None:
        epoch = emit.epoch
        for _ in range(3):
            await anyio.sleep(0.001)
            await emit(measurement(), epoch=epoch)


class Remembering(Good):
    """Reads the epoch each time, and passes on what it read first."""

    async def run(self, emit: Emit) -> None:
        epochs = []
        for _ in range(3):
            epochs.append(emit.epoch)
            await anyio.sleep(0.001)
            await emit(measurement(), epoch=epochs[0])


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
