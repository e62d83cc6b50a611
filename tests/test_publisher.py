"""The publisher: what becomes of updates, of failing sources and of cancellation; on every event loop.

Sources here are small classes of the tests' own, as an embedder would write them; segments are real files.
"""

import asyncio
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel, ValidationError

from kit.told_world import open_descriptors
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    Emit,
    Flags,
    InvalidUpdateError,
    Publisher,
    RecordingError,
    SegmentError,
    SegmentInUseError,
    SegmentNotInitializedError,
    SegmentReader,
    SegmentWriter,
    SourceError,
    SourceUnavailableError,
    VMClockBody,
)
from vmclock_async.testing._bodies import measured_here
from vmclock_async.timebase import COUNTER_ID

Script = Callable[[Emit], Awaitable[None]]


class Settings(BaseModel):
    """No options."""


class Scripted:
    """A source that does what its script says, and counts its runs."""

    settings_type: ClassVar[type[BaseModel]] = Settings

    def __init__(self, script: Script) -> None:
        self._script = script
        self.runs = 0

    async def run(self, emit: Emit) -> None:
        self.runs += 1
        await self._script(emit)


def emitting(*updates: BodyUpdate) -> Scripted:
    """A source that emits *updates* and returns."""

    async def script(emit: Emit) -> None:
        for update in updates:
            await emit(update)

    return Scripted(script)


def raising(error: Exception) -> Scripted:
    """A source that raises *error* at once."""

    async def script(emit: Emit) -> None:
        raise error

    return Scripted(script)


async def counting_up(emit: Emit) -> None:
    """Emit one number after another, for ever."""
    number = 0
    while True:
        number += 1
        await emit(BodyUpdate(counter_value=number, time_sec=number, disruption_marker=1))


def assert_at_rest(path: Path) -> None:
    """A whole body, an even seq_count, and no lock: neither held nor lying about."""
    with SegmentReader(path) as reader:
        assert reader.snapshot().seq_count % 2 == 0
    assert not Path(f"{path}.lock").exists()
    with SegmentWriter(path) as writer:
        assert not writer.interrupted


@pytest.mark.anyio
async def test_updates_merge_field_by_field(segment_path: Path) -> None:
    """What an update does not speak for stays as it was."""
    source = emitting(
        BodyUpdate(disruption_marker=7, clock_status=2, time_maxerror_nanosec=10),
        BodyUpdate(clock_status=3),
        BodyUpdate(time_maxerror_nanosec=None, tai_offset_sec=-37, time_type=1, counter_id=1),
    )
    await Publisher(segment_path, [source]).run()
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert snapshot.seq_count == 6
    assert (snapshot.counter_id, snapshot.time_type, snapshot.size) == (1, 1, 112)
    assert snapshot.body.disruption_marker == 7
    assert snapshot.body.clock_status == ClockStatus.FREERUNNING
    assert snapshot.body.flags == Flags.TAI_OFFSET_VALID
    assert_at_rest(segment_path)


@pytest.mark.anyio
async def test_every_update_is_a_commit_of_its_own_in_order(segment_path: Path) -> None:
    """Each update is one commit: a reader that looks after each sees each, two numbers further on."""
    with SegmentWriter(segment_path, size=112) as writer:
        start = writer.write(VMClockBody())
    seen: list[tuple[int, int]] = []

    async def script(emit: Emit) -> None:
        with SegmentReader(segment_path) as reader:
            seq_count = start
            for number in range(1, 50):
                await emit(BodyUpdate(counter_value=number))
                snapshot = await reader.wait_changed(seq_count)
                seq_count = snapshot.seq_count
                seen.append((seq_count, snapshot.body.counter_value))

    with anyio.fail_after(20):
        await Publisher(segment_path, [Scripted(script)]).run()
    assert seen == [(start + 2 * number, number) for number in range(1, 50)]


@pytest.mark.anyio
async def test_equal_bodies_are_committed_too(segment_path: Path) -> None:
    """An update that changes nothing still moves seq_count by two."""
    publisher = Publisher(segment_path, [emitting(*[BodyUpdate(clock_status=2)] * 5)])
    await publisher.run()
    assert publisher.statistics().seq_count == 10
    assert publisher.statistics().commits == 5


@pytest.mark.anyio
async def test_body_is_published_verbatim(segment_path: Path) -> None:
    """A body from from_body() arrives bit for bit, flags that no value explains included."""
    body = VMClockBody(tai_offset_sec=37, flags=Flags(1 << 60), clock_status=200, vm_generation_counter=5)
    await Publisher(segment_path, [emitting(BodyUpdate.from_body(body, counter_id=0xFF, time_type=9))]).run()
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert snapshot.body == body
    assert (snapshot.counter_id, snapshot.time_type) == (0xFF, 9)


@pytest.mark.anyio
async def test_warm_start_goes_on_from_the_last_body(segment_path: Path) -> None:
    """A publisher that starts on a segment of its predecessor merges onto what that one left."""
    await Publisher(segment_path, [emitting(BodyUpdate(disruption_marker=3, clock_status=2))]).run()
    await Publisher(segment_path, [emitting(BodyUpdate(clock_status=3))]).run()
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert (snapshot.seq_count, snapshot.body.disruption_marker, snapshot.body.clock_status) == (4, 3, 3)


@pytest.mark.anyio
async def test_interrupted_segment_is_voided_at_once(segment_path: Path) -> None:
    """An odd seq_count is repaired by a void body with the marker kept, before any source has a time."""
    with SegmentWriter(segment_path, size=112) as writer:
        writer.write(VMClockBody(disruption_marker=9, clock_status=2, flags=Flags.TIME_MAXERROR_VALID))
    page = bytearray(segment_path.read_bytes())
    page[0x0C:0x10] = (3).to_bytes(4, "little")
    segment_path.write_bytes(page)

    async def unavailable(emit: Emit) -> None:
        raise SourceUnavailableError("scripted", "not there")

    with anyio.fail_after(5), SegmentReader(segment_path) as reader:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(Publisher(segment_path, [Scripted(unavailable)]).run)
            body = (await reader.wait_changed(2)).body
            tasks.cancel_scope.cancel()
    assert body == VMClockBody(disruption_marker=9)


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


@pytest.mark.anyio
async def test_pauses_grow_though_it_said_something(segment_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A source that says that it has no time, and then that it is unavailable, floods neither segment nor log."""

    async def script(emit: Emit) -> None:
        await emit(BodyUpdate(counter_id=0xFF))
        raise SourceUnavailableError("unfit", "no fit counter")

    publisher = Publisher(segment_path, {"unfit": Scripted(script)})
    with anyio.move_on_after(1.5):
        await publisher.run()
    assert 1 <= publisher.statistics().sources["unfit"].restarts <= 5
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


@pytest.mark.anyio
async def test_log_says_what_is_published_and_what_becomes_of_it(
    segment_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The start, the first bound, an outage, the recovery and the source of the time, each in one line."""
    caplog.set_level(logging.INFO, "vmclock_async.publisher")
    time_told = BodyUpdate(counter_id=COUNTER_ID, **measured_here())

    async def steady(emit: Emit) -> None:
        await emit(time_told)
        while first.runs < 3:
            await anyio.sleep(0.01)

    async def flapping(emit: Emit) -> None:
        if first.runs == 1:
            raise SourceUnavailableError("first", "no daemon yet")
        await emit(time_told)
        while publisher.statistics().groups["time"] != "first":
            await anyio.sleep(0.01)
        if first.runs == 2:
            raise SourceUnavailableError("first", "no daemon any more")

    first = Scripted(flapping)
    publisher = Publisher(segment_path, {"first": first, "second": Scripted(steady)})
    with anyio.fail_after(20):
        await publisher.run()
    told = [re.sub(r"\d+\.\d+", "N", record.getMessage()) for record in caplog.records]
    start = [f"publishing first, second to {segment_path}", "the time comes from second: +/- N ms, SYNCHRONIZED"]
    assert [line for line in told[:3] if line in start] == start
    assert set(told[:3]) - set(start) == {"first: no daemon yet; it is tried again"}  # told whenever it says so
    assert told[3:] == [
        "first: is there again, after N s",
        "the time comes from first: +/- N ms, SYNCHRONIZED",
        "first: no daemon any more; it is tried again",
        "first: is there again, after N s",
        "the time comes from first: +/- N ms, FREERUNNING",
    ]


@pytest.mark.anyio
async def test_publisher_runs_once_at_a_time(segment_path: Path) -> None:
    """A second run() beside the first is refused, and does not disturb it; one after the other is fine."""

    async def script(emit: Emit) -> None:
        await emit(BodyUpdate(clock_status=2))
        with pytest.raises(RuntimeError, match="running already"):
            await publisher.run()

    publisher = Publisher(segment_path, [Scripted(script)])
    await publisher.run()
    await publisher.run()
    assert publisher.statistics().commits == 2


@pytest.mark.anyio
async def test_other_things_than_updates_are_refused(segment_path: Path) -> None:
    """A source that emits a dict is told so, by name."""

    async def script(emit: Emit) -> None:
        await emit({"clock_status": 2})  # type: ignore[arg-type]

    with pytest.raises(InvalidUpdateError, match="meter: sent a dict, not a BodyUpdate"):
        await Publisher(segment_path, {"meter": Scripted(script)}).run()


@pytest.mark.anyio
async def test_failing_before_the_first_update_writes_nothing(segment_path: Path) -> None:
    """A run that cannot start leaves neither segment nor lock behind."""
    with pytest.raises(SourceError):
        await Publisher(segment_path, [raising(RuntimeError("no"))]).run()
    await Publisher(segment_path, [emitting()]).run()
    assert list(segment_path.parent.iterdir()) == []


@pytest.mark.anyio
async def test_segment_errors_come_out_bare(segment_path: Path) -> None:
    """A path that is no segment, or is another writer's, is the publisher's error, not a group's."""
    with pytest.raises(SegmentError, match="is a directory"):
        await Publisher(segment_path.parent, [Scripted(counting_up)]).run()
    with SegmentWriter(segment_path), pytest.raises(SegmentInUseError, match=f"process {os.getpid()}"):
        await Publisher(segment_path, [Scripted(counting_up)]).run()


@pytest.mark.anyio
async def test_update_of_an_ended_epoch_is_dropped(segment_path: Path) -> None:
    """A measurement from before a disruption is dropped; one of the new epoch is not."""

    async def script(emit: Emit) -> None:
        await emit(BodyUpdate(disruption_marker=1))  # a new segment's first marker is no disruption
        epoch = emit.epoch
        await emit(BodyUpdate(counter_value=1), epoch=epoch)
        await emit(BodyUpdate(disruption_marker=2))
        await anyio.wait_all_tasks_blocked()
        await emit(BodyUpdate(counter_value=2), epoch=epoch)
        await emit(BodyUpdate(time_sec=3), epoch=emit.epoch)

    publisher = Publisher(segment_path, {"meter": Scripted(script)})
    await publisher.run()
    with SegmentReader(segment_path) as reader:
        snapshot = reader.snapshot()
    assert (snapshot.body.counter_value, snapshot.body.time_sec, snapshot.seq_count) == (1, 3, 8)
    assert publisher.statistics().sources["meter"].dropped == 1


@pytest.mark.anyio
@pytest.mark.parametrize("checkpoints", [0, 1, 2, 3, 5, 8, 13, 40, 41, 42, 43, 44, 45])
async def test_cancelling_at_any_point_leaves_the_segment_whole(segment_path: Path, checkpoints: int) -> None:
    """However far it has come: a whole body, an even seq_count, no lock, no descriptor left open."""
    descriptors = open_descriptors()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Publisher(segment_path, [Scripted(counting_up)]).run)
        for _ in range(checkpoints):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    assert open_descriptors() == descriptors
    assert not Path(f"{segment_path}.lock").exists()
    if segment_path.exists():
        try:
            assert_at_rest(segment_path)
        except SegmentNotInitializedError:
            pass  # cancelled between the cold start and the first commit
        else:
            with SegmentReader(segment_path) as reader:
                body = reader.snapshot().body
            assert body.counter_value == body.time_sec > 0


@pytest.mark.parametrize("turns", range(5, 45))
def test_publisher_left_running_when_the_loop_ends_leaves_no_lock(segment_path: Path, turns: int) -> None:
    """asyncio.run() cancels what is left, each task by itself, also one that waits for the segment to open."""

    async def main() -> None:
        left = asyncio.create_task(Publisher(segment_path, [Scripted(counting_up)]).run())
        for _ in range(turns):
            await asyncio.sleep(0)
        assert not left.done()

    before = threading.enumerate()
    asyncio.run(main())
    for thread in threading.enumerate():
        if thread not in before:
            thread.join(10)  # the loop is over, and a worker may still be opening the segment
    assert not Path(f"{segment_path}.lock").exists()
    with SegmentWriter(segment_path):
        pass


@pytest.mark.asyncio
async def test_cancelling_the_asyncio_task_stops_the_publisher(segment_path: Path) -> None:
    """Under plain asyncio, task.cancel() is enough, and CancelledError comes out."""
    task = asyncio.create_task(Publisher(segment_path, [Scripted(counting_up)]).run())
    while not segment_path.exists():  # no event: only the file tells
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not Path(f"{segment_path}.lock").exists()


@pytest.mark.asyncio
async def test_publisher_runs_beside_other_asyncio_tasks(segment_path: Path) -> None:
    """Embedded in a TaskGroup it leaves the loop to the others: a source at full speed does not starve them."""
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        publishing = tasks.create_task(Publisher(segment_path, [Scripted(counting_up)]).run())
        turns = 0
        while turns < 500:
            await asyncio.sleep(0)
            turns += 1
        publishing.cancel()
    assert_at_rest(segment_path)


def test_publisher_killed_in_full_flight_leaves_a_segment_to_go_on_from(segment_path: Path) -> None:
    """SIGKILL at any moment: the next publisher starts, on a number further up, and readers get whole bodies."""
    program = (
        "import sys, anyio\n"
        "from vmclock_async import BodyUpdate, Publisher\n"
        "class Fast:\n"
        "    async def run(self, emit):\n"
        "        n = 0\n"
        "        while True:\n"
        "            n += 1\n"
        "            await emit(BodyUpdate(counter_value=n, time_sec=n))\n"
        "anyio.run(Publisher(sys.argv[1], [Fast()]).run)\n"
    )
    last = 0
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", program, str(segment_path)])
        try:
            wait_for_commit(segment_path, last)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        with SegmentWriter(segment_path, size=112) as writer:
            assert writer.seq_count > last
            last = writer.write(VMClockBody(disruption_marker=1))
        assert_at_rest(segment_path)


def wait_for_commit(path: Path, seq_count: int) -> None:
    """Return once the segment at *path* has gone beyond *seq_count* by a hundred commits."""

    async def wait() -> None:
        with anyio.fail_after(20):
            while True:
                try:
                    with SegmentReader(path) as reader:
                        while reader.seq_count < seq_count + 200:
                            await reader.wait_changed(reader.seq_count)
                        return
                except SegmentNotInitializedError:
                    await anyio.sleep(0.01)

    anyio.run(wait)


def test_publisher_without_sources_is_refused(segment_path: Path) -> None:
    """Nothing to publish is a programming error."""
    with pytest.raises(ValueError, match="at least one source"):
        Publisher(segment_path, [])


def test_sources_of_one_class_get_names_of_their_own(segment_path: Path) -> None:
    """A list of sources goes by the names of their classes, numbered."""
    publisher = Publisher(segment_path, [emitting(), emitting()])
    assert list(publisher.statistics().sources) == ["Scripted", "Scripted-2"]
