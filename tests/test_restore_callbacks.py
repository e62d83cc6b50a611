"""Registered callbacks: each once a restore, in the promised order, and none lost; on each event loop."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kit.waits import BOUND_S, settled
from vmclock_async import ClockDisruptedError, Snapshot, open_clock
from vmclock_async._restoring import callbacks as module
from vmclock_async.restore import callbacks, register_after_restore, register_before_snapshot
from vmclock_async.testing import ManualClock, PlayedSegment


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    """A clock that only the test moves."""
    with ManualClock(follow_loop=False) as manual:
        yield manual


@pytest.fixture(autouse=True)
def registry() -> Iterator[None]:
    """An empty one, for this test."""
    before, after = list(module._before), list(module._after)
    module._before.clear()
    module._after.clear()
    yield
    module._before[:], module._after[:] = before, after


class Notes(list[Any]):
    """What callbacks did, in order."""

    def note(self, what: object, *, again: bool = False) -> None:
        self.append((what, "again") if again else what)

    async def note_later(self, what: object) -> None:
        await anyio.lowlevel.checkpoint()
        self.append(what)


@pytest.mark.anyio
async def test_callbacks_after_a_restore_run_in_the_order_of_registration(clock: ManualClock) -> None:
    """Sync and async ones, with their arguments, once a restore; a migration is none."""
    notes = Notes()

    @register_after_restore
    def first() -> None:
        notes.note(1)

    assert register_after_restore(notes.note_later, 2) == notes.note_later
    register_after_restore(notes.note, 3, again=True)
    register_after_restore(partial(notes.note_later, 4))

    @register_after_restore
    async def last() -> None:
        await notes.note_later(5)

    first()  # a decorator leaves the function as it is
    notes.clear()
    with anyio.fail_after(BOUND_S):
        async with callbacks(clock):
            await settled()
            assert not notes
            clock.migrate()
            clock.announce_maintenance(imminent=True)
            await settled()
            assert not notes
            for times in (1, 2):
                clock.restore()
                await settled()
                assert notes == [1, 2, (3, "again"), 4, 5] * times
        clock.restore()
        await settled()
    assert len(notes) == 10


@pytest.mark.anyio
async def test_callbacks_before_a_snapshot_run_in_the_opposite_order(clock: ManualClock) -> None:
    """Each time that a disruption is announced as imminent; one that is only soon is none."""
    notes = Notes()
    register_before_snapshot(notes.note, 1)
    register_before_snapshot(notes.note_later, 2)
    with anyio.fail_after(BOUND_S):
        async with callbacks(clock):
            clock.announce_maintenance()
            await settled()
            assert not notes
            clock.announce_maintenance(imminent=True)
            await settled()
            assert notes == [2, 1]
            clock.restore()
            clock.announce_maintenance(imminent=True)
            await settled()
            assert notes == [2, 1] * 2


@pytest.mark.anyio
async def test_announcement_from_before_the_block_counts(clock: ManualClock) -> None:
    """A program that starts half an hour before the snapshot is warned as well."""
    notes = Notes()
    register_before_snapshot(notes.note, 1)
    clock.announce_maintenance(imminent=True)
    async with callbacks(clock):
        await settled()
        assert notes == [1]


@pytest.mark.anyio
async def test_callbacks_have_the_new_incarnation_before_others(clock: ManualClock) -> None:
    """A callback authenticates with it; a task beside gets an error until all have finished."""
    seen: list[object] = []
    in_callback, go_on = anyio.Event(), anyio.Event()

    @register_after_restore
    async def see() -> None:
        seen.append(clock.incarnation)
        in_callback.set()
        await go_on.wait()

    with anyio.fail_after(BOUND_S):
        async with callbacks(clock):
            before = clock.incarnation
            clock.restore()
            await in_callback.wait()
            with pytest.raises(ClockDisruptedError):
                _ = clock.incarnation
            go_on.set()
            await settled()
            assert seen == [clock.incarnation]
            assert clock.incarnation != before


@pytest.mark.anyio
async def test_restore_while_callbacks_run_is_not_lost(clock: ManualClock) -> None:
    """Both sync and async: they finish, and all run again for the life that is there now."""
    notes = Notes()

    @register_after_restore
    async def restored_meanwhile() -> None:
        notes.note(clock.body.vm_generation_counter)
        if clock.body.vm_generation_counter < 4:  # type: ignore[operator]
            clock.restore()
            await settled()

    register_after_restore(notes.note, "last")
    with anyio.fail_after(BOUND_S):
        async with callbacks(clock):
            clock.restore()
            await settled()
            await settled()
            await settled()
    assert notes == [2, "last", 3, "last", 4, "last"]


@pytest.mark.anyio
async def test_failures_end_the_block_after_all_have_run(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is in the log with its name, and all are in the error."""
    notes = Notes()

    @register_after_restore
    def reconnect() -> None:
        raise ConnectionError("refused")

    register_after_restore(notes.note_later, "between")

    @register_after_restore
    async def authenticate() -> None:
        raise PermissionError("denied")

    register_after_restore(notes.note, "last")
    with anyio.fail_after(BOUND_S), pytest.raises(ExceptionGroup, match="callbacks after a restore") as caught:  # noqa: PT012
        async with callbacks(clock):
            clock.restore()
            await anyio.sleep_forever()
    assert notes == ["between", "last"]
    assert [type(error) for error in caught.value.exceptions] == [ConnectionError, PermissionError]
    assert "reconnect" in caught.value.exceptions[0].__notes__[0]
    assert "authenticate after a restore failed" in caplog.text


@pytest.mark.anyio
async def test_failure_before_a_snapshot_is_reported_the_same_way(clock: ManualClock) -> None:
    """The others run, and the block ends."""
    notes = Notes()
    register_before_snapshot(notes.note, "last")
    register_before_snapshot(notes.note, "wrong argument", gain=True)
    with anyio.fail_after(BOUND_S), pytest.raises(ExceptionGroup, match="callbacks before a snapshot"):  # noqa: PT012
        async with callbacks(clock):
            clock.announce_maintenance(imminent=True)
            await anyio.sleep_forever()
    assert notes == ["last"]


@pytest.mark.anyio
async def test_failure_in_a_life_that_is_over_ends_nothing(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that a second restore broke: the callbacks run again, and the log says why."""
    notes = Notes()

    @register_after_restore
    async def connect() -> None:
        notes.note(clock.body.vm_generation_counter)
        if notes == [2]:
            clock.restore()
            raise ConnectionError("reset")

    with anyio.fail_after(BOUND_S):
        async with callbacks(clock):
            clock.restore()
            await settled()
            await settled()
    assert notes == [2, 3]
    assert "the machine was restored again" in caplog.text


@pytest.mark.anyio
async def test_callbacks_of_both_kinds_never_run_at_once(clock: ManualClock) -> None:
    """A pool that is being closed for the snapshot is closed before the restore opens it again."""
    notes = Notes()
    go_on = anyio.Event()

    @register_before_snapshot
    async def close() -> None:
        notes.note("closing")
        await go_on.wait()
        notes.note("closed")

    register_after_restore(notes.note, "opened")
    with anyio.fail_after(BOUND_S):
        async with callbacks(clock):
            clock.announce_maintenance(imminent=True)
            await settled()
            clock.restore()
            await settled()
            assert notes == ["closing"]
            go_on.set()
            await settled()
    assert notes == ["closing", "closed", "opened"]


@pytest.mark.anyio
async def test_one_clock_of_a_process_runs_them(clock: ManualClock) -> None:
    """A second one would run them twice for one restore; it may once the first block has ended."""
    with ManualClock(follow_loop=False) as other:
        async with callbacks(clock):
            with pytest.raises(RuntimeError, match="run already, beside the clock of ManualClock"):
                async with callbacks(other):
                    pass
        async with callbacks(other):
            pass


def test_child_of_a_fork_may_run_them_itself(clock: ManualClock) -> None:
    """Its parent's block is not its own: no task of the child runs there."""

    async def main() -> None:
        async with callbacks(clock):
            pass

    module._run_by = (object(), "the parent's")
    try:
        anyio.run(main)
    finally:
        module._run_by = None


@pytest.mark.anyio
async def test_callbacks_of_the_clock_itself_exclude_them(segment: PlayedSegment) -> None:
    """open_clock(on_restore=...) gives a clock its own; the registered ones need another clock."""

    async def own(_: Snapshot) -> None:
        pass

    async with open_clock(segment.path, fence=segment.device, on_restore=[own]) as clock:
        with pytest.raises(RuntimeError, match="on_restore callbacks already"):
            async with callbacks(clock):
                pass
        async with open_clock(segment.path, fence=segment.device) as another, callbacks(another):
            pass


@pytest.mark.anyio
async def test_real_segment_runs_them_once_a_restore(segment: PlayedSegment) -> None:
    """With other clocks open, and waiting for the same events."""
    notes = Notes()
    register_after_restore(notes.note, "restored")
    with anyio.fail_after(BOUND_S):
        async with (
            open_clock(segment.path, fence=segment.device) as one,
            open_clock(segment.path, fence=segment.device) as two,
            callbacks(two),
            one.events() as events,
        ):
            for times in (1, 2, 3):
                segment.restore()
                await events.receive()
                while len(notes) < times:
                    await anyio.sleep(0.001)
                await settled()
                assert notes == ["restored"] * times


@pytest.mark.anyio
async def test_one_announcement_runs_them_once(clock: ManualClock) -> None:
    """A commit that shows a migration and the next announcement at once is one; another step of the time is none."""
    notes = Notes()
    register_before_snapshot(notes.note, 1)
    with anyio.fail_after(BOUND_S):
        async with callbacks(clock):
            clock.freeze()
            clock.restore()
            clock.announce_maintenance(imminent=True)
            clock.thaw()
            await settled()
            assert notes == [1]
            clock.step(10**9)
            await settled()
    assert notes == [1]


@pytest.mark.anyio
async def test_restores_under_a_stopped_publisher_are_not_lost(clock: ManualClock) -> None:
    """Two in a row are one, once the publisher goes on; until then nobody gets the old incarnation."""
    notes = Notes()
    register_after_restore(notes.note, "restored")
    with anyio.fail_after(BOUND_S):
        async with callbacks(clock):
            before = clock.incarnation
            clock.freeze()
            for _ in range(2):
                clock.restore()
                await settled()
                with pytest.raises(ClockDisruptedError):
                    _ = clock.incarnation
            assert not notes
            clock.thaw()
            await settled()
            assert notes == ["restored"]
            assert clock.incarnation != before
