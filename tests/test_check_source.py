"""check_source: it lets good sources pass, and each promise that is broken is named."""

import asyncio
import os
import select
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest

from kit.checked_sources import (
    Absent,
    Blocking,
    BlockingChild,
    BlockingForGood,
    Dawdling,
    Endless,
    Exiting,
    Failing,
    Forgetful,
    Good,
    Guessing,
    Hiding,
    InNanoseconds,
    Late,
    LeavingAFile,
    LeavingATask,
    LeavingAThread,
    LeavingAWorker,
    Mute,
    OfOneEpoch,
    Once,
    Opening,
    Raw,
    Remembering,
    Satisfied,
    Stubborn,
    Synchronous,
    Threaded,
    Timeless,
    TooFast,
    Unsettled,
    Waiting,
    WithoutStatus,
)
from vmclock_async.testing import _held, check_source

LEAVING = (Opening, LeavingAFile, LeavingAThread, LeavingAWorker, LeavingATask)
"""Sources that leave something for good."""


@pytest.mark.anyio
@pytest.mark.parametrize("source", [Good, Endless, Absent, Threaded])
async def test_good_sources_pass(source: type[Good]) -> None:
    """One that ends, one that does not, one that is not there, one that has work in a thread."""
    updates = await check_source(source, patience_s=source.patience_s)
    assert source is Absent or updates
    assert source is not Good or len(updates) == 2


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
async def test_broken_promise_is_named(source: type[Good], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a source that breaks one promise, it says which, and what was seen."""
    if source in LEAVING:  # it need not be given a second, three times, to tidy up
        monkeypatch.setattr(_held, "_SETTLE_S", 0.1)
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


@pytest.mark.waits
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
