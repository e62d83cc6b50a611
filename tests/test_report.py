"""Reports of a disruption, from a source or from the program, and the generation counter that restores draw."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from kit.merging import COLD, SECOND, composed, measurement, merger, page, told
from kit.waits import settled, until
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    Emit,
    Flags,
    Publisher,
    SegmentError,
    SegmentReader,
    SourceError,
    SourceUnavailableError,
    VMClockBody,
)
from vmclock_async._publishing.draft import Draft
from vmclock_async._publishing.generation import OwnGeneration
from vmclock_async._publishing.merger import Merger
from vmclock_async._publishing.report import Report
from vmclock_async.abi import OWN_DISRUPTION, is_own_generation, shows_restore
from vmclock_async.models import Contents
from vmclock_async.timebase import COUNTER_ID

RESTORED = Report("agent", "a snapshot was resumed", restored=True)
ANNOUNCED = Report("agent")


class Scripted:
    """A source that does what the test's *script* says."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, script: Callable[[Emit], Awaitable[None]]) -> None:
        self.script = script

    async def run(self, emit: Emit) -> None:
        """Run the script."""
        await self.script(emit)


async def silent(emit: Emit) -> None:
    """Say nothing, for ever."""
    await anyio.sleep_forever()


def reported(merger: Merger, report: Report, at: int) -> Contents:
    """What is published after *report*, at the counter value *at*."""
    merger.take_report(report)
    return composed(merger, at)


def generation_of(contents: Contents) -> int:
    """The generation counter of *contents*, which is a publisher's own."""
    generation = contents.body.vm_generation_counter
    assert generation is not None
    assert contents.body.flags & Flags.VM_GEN_COUNTER_PRESENT
    assert is_own_generation(generation)
    return generation


def test_disruption_voids_each_time_in_its_commit() -> None:
    """The commit with the new marker has no time from before, and a measurement from before is dropped."""
    publishing = merger("clock")
    told(publishing, "clock", measurement(SECOND), SECOND)
    epoch = publishing.epoch
    contents = reported(publishing, Report("agent", "somebody says so"), 2 * SECOND)
    assert contents.body.disruption_marker == OWN_DISRUPTION
    assert contents.body.clock_status == ClockStatus.UNKNOWN
    assert not contents.body.flags & Flags.TIME_MAXERROR_VALID
    assert publishing.epoch == epoch + 1
    assert contents.body.vm_generation_counter is None
    back = told(publishing, "clock", measurement(3 * SECOND), 3 * SECOND)
    assert back.body.clock_status == ClockStatus.SYNCHRONIZED
    assert back.body.disruption_marker == OWN_DISRUPTION


def test_each_restore_has_another_generation() -> None:
    """A generation is there from the announcement on, changes with each restore, and with nothing else."""
    publishing = merger("clock")
    told(publishing, "clock", measurement(SECOND), SECOND)
    first = generation_of(reported(publishing, ANNOUNCED, 2 * SECOND))
    assert generation_of(reported(publishing, Report("agent", "a suspend"), 3 * SECOND)) == first
    assert generation_of(told(publishing, "clock", measurement(4 * SECOND), 4 * SECOND)) == first
    seen = {first}
    for number in range(5, 105):
        seen.add(generation_of(reported(publishing, RESTORED, number * SECOND)))
    assert len(seen) == 101


def test_restore_that_nobody_announced_shows_by_its_marker() -> None:
    """Without an announcement the counter appears along with the new marker, and readers take that for a restore."""
    publishing = merger("clock")
    before = told(publishing, "clock", measurement(SECOND), SECOND).body
    after = reported(publishing, RESTORED, 2 * SECOND)
    assert shows_restore(
        before.vm_generation_counter, before.disruption_marker, generation_of(after), after.body.disruption_marker
    )


def test_next_publisher_goes_on_with_the_generation() -> None:
    """The publisher's own counter is kept by the segment: to begin again is no restore."""
    first = reported(merger("clock"), ANNOUNCED, SECOND)
    again = Merger(("clock",), first, cold=False)
    assert generation_of(reported(again, ANNOUNCED, 2 * SECOND)) == generation_of(first)
    assert generation_of(reported(again, RESTORED, 3 * SECOND)) != generation_of(first)


def test_generation_of_a_device_has_precedence() -> None:
    """Where the device has a generation counter, that one is published, and a report changes the marker alone."""
    publishing = merger("device", "told")
    own = generation_of(reported(publishing, ANNOUNCED, SECOND))
    flags = Flags.VM_GEN_COUNTER_PRESENT
    with_device = told(
        publishing, "device", page(disruption_marker=7, vm_generation_counter=3, flags=flags), 2 * SECOND
    )
    assert with_device.body.vm_generation_counter == 3
    assert not shows_restore(own, with_device.body.disruption_marker, 3, with_device.body.disruption_marker)
    after = reported(publishing, RESTORED, 3 * SECOND)
    assert after.body.vm_generation_counter == 3
    assert after.body.disruption_marker == 7 + OWN_DISRUPTION
    restored = told(
        publishing, "device", page(disruption_marker=8, vm_generation_counter=4, flags=flags), 4 * SECOND
    )
    assert restored.body.vm_generation_counter == 4


def test_report_before_the_first_commit_is_kept() -> None:
    """A publisher that begins with a restore commits it, and measurements from before it are of another epoch."""
    publishing = merger("clock")
    epoch = publishing.epoch
    contents = reported(publishing, RESTORED, SECOND)
    assert publishing.epoch == epoch + 1
    assert generation_of(contents)
    assert contents.body.disruption_marker == OWN_DISRUPTION
    assert COLD.body.disruption_marker == 0


@pytest.mark.parametrize(
    ("before", "after", "restored"),
    [
        ((None, 0), (None, 5), False),
        ((3, 1), (3, 2), False),
        ((3, 1), (4, 1), True),
        ((3, 1), (None, 2), False),
        ((None, 1), (3, 1), False),
        ((None, 1), (3, 2), True),
        ((None, 1), (3, 0), False),
        ((None, 0), (3, 5), False),
        ((None, 2**32), (3, 2**32 + 5), False),
        ((None, 2**32), (3, 2**33 + 5), True),
        ((None, 0), ("own 1", 2**32), True),
        ((None, 2**32), ("own 1", 0), False),
        ((3, 1), ("own 1", 1), False),
        ((3, 1), ("own 1", 2), True),
        (("own 1", 1), (3, 1), False),
        (("own 1", 1), (3, 0), False),
        (("own 1", 1), ("own 1", 2), False),
        (("own 1", 1), ("own 2", 1), True),
    ],
)
def test_restore_is_told_from_what_looks_like_one(
    before: tuple[int | str | None, int], after: tuple[int | str | None, int], restored: bool
) -> None:
    """A counter that appears, or changes its origin, is a restore only along with another marker, and 0 is none."""

    def generation(value: int | str | None) -> int | None:
        if isinstance(value, str):
            own = reported(merger("clock"), ANNOUNCED, SECOND).body.vm_generation_counter
            assert own is not None
            return own // 2**32 * 2**32 + int(value.split()[1])
        return value

    assert shows_restore(generation(before[0]), before[1], generation(after[0]), after[1]) is restored


@pytest.mark.anyio
async def test_program_reports_a_restore(tmp_path: Path) -> None:
    """Publisher.disrupt() returns once readers can see it, and each call is a restore of its own."""
    publisher = Publisher(tmp_path / "shm0", [Scripted(silent)])
    seen: list[VMClockBody] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        await settled()
        for _ in range(3):
            await publisher.disrupt("a fork of the machine", restored=True)
            with SegmentReader(tmp_path / "shm0") as reader:
                seen.append(reader.snapshot().body)
        tasks.cancel_scope.cancel()
    assert [body.disruption_marker for body in seen] == [OWN_DISRUPTION, 2 * OWN_DISRUPTION, 3 * OWN_DISRUPTION]
    assert len({body.vm_generation_counter for body in seen}) == 3


@pytest.mark.anyio
async def test_report_is_refused_where_nobody_can_commit_it(tmp_path: Path) -> None:
    """Without a run it is the caller's error; a run that fails says that it has not committed the report."""
    (tmp_path / "shm0").mkdir()
    publisher = Publisher(tmp_path / "shm0", [Scripted(silent)])
    with pytest.raises(RuntimeError, match="is not running"):
        await publisher.disrupt()
    failures: list[Exception] = []

    async def run() -> None:
        try:
            await publisher.run()
        except SegmentError as exc:
            failures.append(exc)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await settled()
        with pytest.raises(SegmentError, match=r"ended before it committed the disruption \(because\)"):
            await publisher.disrupt("because")
    assert len(failures) == 1


@pytest.mark.anyio
async def test_copy_of_a_page_takes_no_report(tmp_path: Path) -> None:
    """A sole source of whole pages is relayed bit for bit; the refusal ends nothing."""
    ready = anyio.Event()

    async def relay(emit: Emit) -> None:
        await emit(BodyUpdate.from_body(VMClockBody(disruption_marker=4), counter_id=COUNTER_ID, time_type=0))
        ready.set()
        await anyio.sleep_forever()

    publisher = Publisher(tmp_path / "shm0", {"device": Scripted(relay)})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        await ready.wait()
        with pytest.raises(SegmentError, match="a copy of what device says, bit for bit"):
            await publisher.disrupt(restored=True)
        assert publisher.statistics().sources["device"].state == "running"
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_source_reports_and_goes_on(tmp_path: Path) -> None:
    """emit.disrupt() returns after the commit, in a new epoch; emit.segment is the segment's path."""
    heard: list[object] = []

    async def notice(emit: Emit) -> None:
        await emit.announce_restores()
        before = emit.epoch
        await emit.disrupt("the kernel says so", restored=True)
        with SegmentReader(emit.segment) as reader:
            heard.append(reader.snapshot().body.disruption_marker)
        heard.append(emit.epoch - before)

    await Publisher(tmp_path / "shm0", [Scripted(notice)]).run()
    assert heard == [OWN_DISRUPTION, 1]


@pytest.mark.anyio
async def test_report_after_the_run_is_refused(tmp_path: Path) -> None:
    """What a source's own thread or task reports too late is an error that says so."""
    kept: list[Emit] = []

    async def keep(emit: Emit) -> None:
        kept.append(emit)
        await anyio.lowlevel.checkpoint()

    await Publisher(tmp_path / "shm0", {"late": Scripted(keep)}).run()
    with pytest.raises(SourceError, match="its run had ended"):
        await kept[0].disrupt("too late")


@pytest.mark.anyio
async def test_source_that_is_heard_before_the_device_begins_nothing(tmp_path: Path) -> None:
    """Neither an announcement nor an update that says nothing is the first commit: the device's marker is no event."""
    device_may_begin = anyio.Event()
    said = anyio.Event()

    async def early(emit: Emit) -> None:
        await emit(BodyUpdate())
        await emit.announce_restores()
        device_may_begin.set()
        await anyio.sleep_forever()

    async def device(emit: Emit) -> None:
        await device_may_begin.wait()
        epoch = emit.epoch
        await emit(BodyUpdate.from_body(VMClockBody(disruption_marker=41), counter_id=255, time_type=0))
        assert emit.epoch == epoch
        said.set()
        await anyio.sleep_forever()

    publisher = Publisher(tmp_path / "shm0", {"device": Scripted(device), "early": Scripted(early)})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        await said.wait()
        with SegmentReader(tmp_path / "shm0") as reader:
            body = reader.snapshot().body
        tasks.cancel_scope.cancel()
    assert body.disruption_marker == 41
    assert body.vm_generation_counter is not None
    assert is_own_generation(body.vm_generation_counter)


def test_marker_of_a_device_without_a_counter_may_be_a_restore() -> None:
    """Once a restore was reported, each change of such a device's marker draws another counter; not before."""
    publishing = merger("device", "clock")
    first = told(publishing, "device", page(disruption_marker=5), SECOND)
    assert told(publishing, "device", page(disruption_marker=6), 2 * SECOND).body.vm_generation_counter is None
    reported_one = generation_of(reported(publishing, RESTORED, 3 * SECOND))
    assert generation_of(composed(publishing, 4 * SECOND)) == reported_one
    moved = told(publishing, "device", page(disruption_marker=7), 5 * SECOND)
    assert generation_of(moved) != reported_one
    assert first.body.vm_generation_counter is None


def test_marker_of_a_device_is_no_restore_where_each_is_reported() -> None:
    """A live migration moves the marker; what reports each restore knows better."""
    publishing = merger("device", "clock")
    told(publishing, "device", page(disruption_marker=5), SECOND)
    reported(publishing, ANNOUNCED, 2 * SECOND)
    seen = generation_of(reported(publishing, RESTORED, 3 * SECOND))
    assert generation_of(told(publishing, "device", page(disruption_marker=6), 4 * SECOND)) == seen


def test_counter_of_a_run_before_is_not_shown_until_restores_are_announced() -> None:
    """Nobody may report restores any more; once somebody does, it is the same counter."""
    before = reported(merger("clock"), ANNOUNCED, SECOND)
    again = Merger(("clock",), before, cold=False)
    silent_one = composed(again, 2 * SECOND)
    assert silent_one.body.vm_generation_counter is None
    assert not silent_one.body.flags & Flags.VM_GEN_COUNTER_PRESENT
    assert generation_of(reported(again, ANNOUNCED, 3 * SECOND)) == generation_of(before)


class Told:
    """The publisher's own generation counter, on a clock that the test sets, seconds."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.own = OwnGeneration(None, now_ns=lambda: int(self.now_s * SECOND))
        self.last = -1

    def draws_another(self) -> bool:
        """Whether the counter has changed since the last call."""
        draft = Draft(Contents(VMClockBody(), 0, 0))
        self.own.take(draft)
        before, self.last = self.last, draft.values["vm_generation_counter"]
        return before != self.last

    def restored(self, reporter: str, at_s: float) -> bool:
        """Whether a restore that *reporter* reports at *at_s* draws another counter."""
        self.now_s = at_s
        self.own.note_restore(reporter)
        return self.draws_another()


def test_restore_that_two_report_is_one() -> None:
    """The kernel's driver and a program report one restore in either order: one counter; again, another."""
    told_own = Told()
    for reporter in ("vmgenid", "told"):
        told_own.own.announce(reporter)
    assert told_own.draws_another()
    assert told_own.restored("vmgenid", 100)
    assert not told_own.restored("told", 109)
    assert told_own.restored("told", 110)
    assert not told_own.restored("vmgenid", 111)
    assert told_own.restored("vmgenid", 111.1)
    assert told_own.restored("vmgenid", 111.2)
    assert not told_own.restored("told", 112)


def test_restores_that_are_two_have_two_counters() -> None:
    """A late report, and one after a disruption that the machine itself saw, is of another restore."""
    told_own = Told()
    assert told_own.restored("vmgenid", 100)
    assert told_own.restored("told", 110.1)
    told_own.own.note_disruption()
    assert told_own.restored("vmgenid", 110.2)


def test_marker_and_report_are_one_restore() -> None:
    """A device's marker that may mean a restore, and the report of it that follows, draw one counter."""
    told_own = Told()
    assert told_own.restored("told", 100)
    told_own.now_s = 200
    told_own.own.note_device_marker("device")
    assert told_own.draws_another()
    assert not told_own.restored("told", 201)
    assert told_own.restored("told", 202)


def test_disruption_that_the_machine_sees_parts_two_reports() -> None:
    """In the merger, too: the counter went back between the two reports."""
    publishing = merger("clock")
    reported(publishing, RESTORED, 10 * SECOND)
    seen = generation_of(reported(publishing, Report("kernel", "the same", restored=True), 11 * SECOND))
    assert generation_of(composed(publishing, 12 * SECOND)) == seen
    assert generation_of(composed(publishing, SECOND)) == seen
    assert generation_of(reported(publishing, Report("hook", "another", restored=True), 2 * SECOND)) != seen


@pytest.mark.anyio
async def test_announcement_ends_with_the_source(tmp_path: Path) -> None:
    """While the source that announced restores is unavailable, or once it has ended, nobody sees them."""
    steps = {name: anyio.Event() for name in ("fail", "announce", "return")}
    runs = 0

    async def announces(emit: Emit) -> None:
        nonlocal runs
        runs += 1
        if runs == 2:
            await steps["announce"].wait()
        await emit.announce_restores()
        if runs == 1:
            await steps["fail"].wait()
            raise SourceUnavailableError("kernel", "its log is gone")
        await steps["return"].wait()

    async def clock(emit: Emit) -> None:
        await emit(BodyUpdate.from_body(VMClockBody(disruption_marker=1), counter_id=COUNTER_ID, time_type=0))
        await anyio.sleep_forever()

    publisher = Publisher(tmp_path / "shm0", {"clock": Scripted(clock), "kernel": Scripted(announces)})

    def seen() -> int | None:
        with SegmentReader(tmp_path / "shm0") as reader:
            return reader.snapshot().body.vm_generation_counter

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publisher.run)
        await until(lambda: publisher.statistics().commits > 0 and seen() is not None)
        first = seen()
        steps["fail"].set()
        await until(lambda: seen() is None)
        steps["announce"].set()
        await until(lambda: seen() is not None)
        assert seen() == first
        steps["return"].set()
        await until(lambda: seen() is None)
        tasks.cancel_scope.cancel()
