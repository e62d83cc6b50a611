"""Callbacks on a restore: once a restore, and never without one."""

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock
from uuid import UUID

import anyio
import anyio.lowlevel
import pytest

from kit.forks import Started
from kit.half_commit import half_way
from kit.lives import ONE_RESTORE, SAME_LIFE, Look, looking, told
from kit.told_world import World
from kit.waits import BOUND_S, settled, until_waiting
from vmclock_async import (
    ClockDisruptedError,
    CounterId,
    SegmentWriter,
    Snapshot,
    VMClockBody,
    open_clock,
)
from vmclock_async.testing import PlayedSegment

StartScript = Callable[..., Started]


@pytest.mark.anyio
async def test_callbacks_see_the_new_incarnation_first(segment: PlayedSegment) -> None:
    """A callback authenticates with the incarnation to come; nobody else has one until all callbacks are done."""
    seen: list[UUID] = []
    in_callback, go_on, done = anyio.Event(), anyio.Event(), anyio.Event()

    async def see(_: Snapshot) -> None:
        seen.append(clock.incarnation)

    async def linger(_: Snapshot) -> None:
        in_callback.set()
        await go_on.wait()
        done.set()

    with anyio.fail_after(5):
        async with open_clock(segment.path, fence=segment.device, on_restore=[see, linger, see]) as clock:
            before = clock.incarnation
            await settled()
            segment.restore()
            await in_callback.wait()
            with pytest.raises(ClockDisruptedError):
                _ = clock.incarnation
            go_on.set()
            await done.wait()
            await settled()
            assert seen == [clock.incarnation] * 2
            assert clock.incarnation != before


@pytest.mark.anyio
async def test_restore_right_at_the_beginning_of_the_block_is_one(segment: PlayedSegment) -> None:
    """Before its first await too: what the block began with was of the machine before."""
    called = anyio.Event()

    async def call(_: Snapshot) -> None:
        called.set()

    with anyio.fail_after(5):
        async with open_clock(segment.path, fence=segment.device, on_restore=[call]):
            segment.restore()
            await called.wait()


@pytest.mark.anyio
async def test_restore_while_callbacks_run_begins_them_anew(segment: PlayedSegment) -> None:
    """They ask for an incarnation that is out of date by then: that is no reason to end the block."""
    seen: list[UUID | None] = []
    done = anyio.Event()

    async def see(snapshot: Snapshot) -> None:
        if snapshot.body.vm_generation_counter == 2:
            segment.restore()
        seen.append(None)
        seen[-1] = clock.incarnation
        done.set()

    with anyio.fail_after(5):
        async with open_clock(segment.path, fence=segment.device, on_restore=[see]) as clock:
            before = clock.incarnation
            segment.restore()
            await done.wait()
            await settled()
            assert seen == [None, clock.incarnation]
            assert clock.incarnation != before


@pytest.mark.anyio
async def test_what_a_callback_asks_of_another_clock_ends_the_block(segment: PlayedSegment) -> None:
    """An error that no new restore explains is the callback's own."""

    async def fail(_: Snapshot) -> None:
        raise ClockDisruptedError("mine")

    with anyio.fail_after(5), pytest.raises(ClockDisruptedError, match="mine"):  # noqa: PT012
        async with open_clock(segment.path, fence=segment.device, on_restore=[fail]):
            segment.restore()
            await anyio.sleep_forever()


class Callbacks:
    """Ways to give an async function, and some that are none."""

    async def method(self, _: Snapshot) -> None:
        """An async method."""

    async def __call__(self, _: Snapshot, *more: object) -> None:
        """An object that is called."""

    @staticmethod
    async def static(_: Snapshot) -> None:
        """A static one."""

    def plain(self, _: Snapshot) -> None:
        """Not async: it would be called, and what it returns awaited."""


ASYNC: list[Any] = [
    Callbacks().method,
    Callbacks(),
    Callbacks.static,
    partial(Callbacks.method, Callbacks()),
    partial(partial(Callbacks()), more=1),
    AsyncMock(),
]


PLAIN: list[tuple[Any, str]] = [
    (Callbacks().plain, r"Callbacks\.plain"),
    (partial(Callbacks().plain), r"Callbacks\.plain"),
    (lambda snapshot: Callbacks().method(snapshot), "<lambda>"),
    (print, "print"),
    (Callbacks, "Callbacks"),
    (7, "7"),
]


@pytest.mark.anyio
async def test_async_callbacks_of_every_kind_are_taken(segment: PlayedSegment) -> None:
    """Methods, objects and partial functions are, too."""
    async with open_clock(segment.path, fence=segment.device, on_restore=ASYNC) as clock:
        assert clock.fenced


@pytest.mark.anyio
@pytest.mark.parametrize(("callback", "name"), PLAIN, ids=[name for _, name in PLAIN])
async def test_callback_that_is_not_async_is_refused_by_name(
    segment: PlayedSegment, callback: Any, name: str
) -> None:
    """When the clock is opened, and not at the first restore; that it returns an awaitable cannot be seen."""
    with pytest.raises(TypeError, match=f"on_restore takes async functions, and .*{name}.* is none"):
        async with open_clock(segment.path, fence=segment.device, on_restore=[Callbacks(), callback]):
            pass


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("looks", "restores"),
    [pytest.param(*case.values, 0, id=case.id) for case in SAME_LIFE]
    + [pytest.param(*case.values, 1, id=case.id) for case in ONE_RESTORE],
)
async def test_callbacks_run_once_a_restore(segment_path: Path, looks: list[Look], restores: int) -> None:
    """And never without one; the restore that follows at the end is seen, too."""
    calls: list[int | None] = []

    async def call(snapshot: Snapshot) -> None:
        calls.append(snapshot.body.vm_generation_counter)

    with anyio.fail_after(10), SegmentWriter(segment_path, size=112) as writer:
        writer.write(looking(looks[0]))
        async with open_clock(writer.path, fence=None, on_restore=[call]) as clock:
            while clock.statistics().waits == 0:
                await anyio.sleep(0.001)
            for look in looks[1:]:
                await told(clock, writer, looking(look))
            assert len(calls) == restores
            await told(clock, writer, looking((99, 50)))
    assert calls[restores:] == [99]


@pytest.mark.anyio
async def test_marker_that_the_device_contradicts_says_nothing(tmp_path: Path) -> None:
    """With a fence: a page that begins afresh, with any marker, is no restore; one that the device tells, too, is."""
    calls: list[int] = []

    async def call(snapshot: Snapshot) -> None:
        calls.append(snapshot.body.disruption_marker)

    with SegmentWriter(tmp_path / "shm0", size=112) as writer, SegmentWriter(tmp_path / "vmclock0") as device:
        device.write(VMClockBody(disruption_marker=1), counter_id=CounterId.INVALID)
        writer.write(looking((None, 1)))
        with anyio.fail_after(10):
            async with open_clock(writer.path, fence=device.path, on_restore=[call]) as clock:
                while clock.statistics().waits == 0:
                    await anyio.sleep(0.001)
                for marker in (5, 1, 0, 1):
                    await told(clock, writer, looking((None, marker)))
                assert calls == []
                device.write(VMClockBody(disruption_marker=2), counter_id=CounterId.INVALID)
                await told(clock, writer, looking((None, 2)))
    assert calls == [2]


@pytest.mark.anyio
async def test_callbacks_are_awaited_before_a_new_incarnation_is_seen(world: World) -> None:
    """One after the other, with the snapshot that showed the restore; until then there is none."""
    calls: list[object] = []
    go_on = anyio.Event()

    async def first(snapshot: Snapshot) -> None:
        calls.append(snapshot.body.vm_generation_counter)
        await go_on.wait()
        calls.append("first is done")

    async def second(snapshot: Snapshot) -> None:
        calls.append(snapshot.body.vm_generation_counter)

    world.tell(vm_generation_counter=5)
    with anyio.fail_after(BOUND_S):
        async with open_clock(world.path, fence=None, on_restore=[first, second]) as clock:
            before = clock.incarnation
            await until_waiting(clock)
            world.tell(vm_generation_counter=6)
            while not calls:
                with pytest.raises(ClockDisruptedError, match="is now 6"):
                    _ = clock.incarnation
                await anyio.lowlevel.checkpoint()
            with pytest.raises(ClockDisruptedError, match="not finished; try again"):
                _ = clock.incarnation
            clock.now()
            go_on.set()
            while True:
                try:
                    after = clock.incarnation
                    break
                except ClockDisruptedError:
                    await anyio.lowlevel.checkpoint()
    assert after != before
    assert calls == [6, "first is done", 6]


@pytest.mark.anyio
async def test_what_a_callback_raises_ends_the_block(world: World) -> None:
    """Bare, and as it was raised: keys that could not be made anew are no small matter."""

    async def fail(_: Snapshot) -> None:
        raise KeyError("no keys")

    world.tell(vm_generation_counter=5)
    with anyio.fail_after(BOUND_S), pytest.raises(KeyError, match="no keys"):  # noqa: PT012
        async with open_clock(world.path, fence=None, on_restore=[fail]) as clock:
            await until_waiting(clock)
            world.tell(vm_generation_counter=6)
            await anyio.sleep_forever()


@pytest.mark.anyio
async def test_writer_that_dies_is_no_reason_to_end_the_block(world: World, start_script: StartScript) -> None:
    """Who only wants to know of restores waits on while the segment cannot be read, and then is told."""
    calls: list[int | None] = []

    async def note(snapshot: Snapshot) -> None:
        calls.append(snapshot.body.vm_generation_counter)

    world.tell(vm_generation_counter=5)
    with anyio.fail_after(BOUND_S):
        async with open_clock(world.path, fence=None, on_restore=[note]) as clock:
            await until_waiting(clock)
            world.tell(vm_generation_counter=5)
            with half_way(world, start_script, signal.SIGKILL):
                await anyio.sleep(0.15)
            world.tell(vm_generation_counter=6)
            while not calls:
                await anyio.sleep(0.001)
    assert calls == [6]


@pytest.mark.anyio
async def test_one_callback_or_several_are_given_alike(segment: PlayedSegment) -> None:
    """``open_clock(on_restore=...)`` and ``clock.on_restore(...)`` take one function, and a list of them."""
    calls: list[str] = []

    async def first(_: Snapshot) -> None:
        calls.append("first")

    async def second(_: Snapshot) -> None:
        calls.append("second")

    async def restored() -> str:
        calls.clear()
        segment.restore()
        while "first" not in calls or (expects_second and "second" not in calls):
            await anyio.sleep(0.001)
        return ",".join(calls)

    with anyio.fail_after(BOUND_S):
        for one, said in ((first, "first"), ([first], "first"), ([first, second], "first,second")):
            expects_second = "second" in said
            async with open_clock(segment.path, fence=segment.device, on_restore=one):
                assert await restored() == said
            async with open_clock(segment.path, fence=segment.device) as clock, clock.on_restore(one):
                assert await restored() == said
        expects_second = True
        async with open_clock(segment.path, fence=segment.device) as clock, clock.on_restore(first, [second]):
            assert await restored() == "first,second"


def test_forked_child_does_not_wait_for_callbacks_of_its_parent(run_script: Callable[..., str]) -> None:
    """The child has an incarnation of its own, and another after a restore; the callback runs once, in the parent."""
    assert run_script("fork_with_on_restore") == "3 0\n2 True\n"
