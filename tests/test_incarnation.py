"""Who a process is: that no two lives of it share an incarnation."""

import copy
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

import anyio
import pytest

from settling import settled
from vmclock_async import (
    ClockDisruptedError,
    CounterId,
    LeaseLostError,
    SegmentReader,
    SegmentWriter,
    Snapshot,
    VMClockBody,
    open_clock,
)
from vmclock_async.incarnation import Incarnation
from vmclock_async.testing import PlayedSegment, make_body
from vmclock_async.timebase import COUNTER_ID


def test_clones_that_had_not_looked_yet_differ(segment: PlayedSegment) -> None:
    """An incarnation that nobody had asked for when the machine was stored is not the same in two clones of it."""
    stored = Incarnation()
    with SegmentReader(segment.path) as reader:
        segment.restore()
        restored = reader.snapshot()
        assert copy.deepcopy(stored).of(restored, 2) != copy.deepcopy(stored).of(restored, 2)


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
async def test_a_restore_right_at_the_beginning_of_the_block_is_one(segment: PlayedSegment) -> None:
    """Before its first await too: what the block began with was of the machine before."""
    called = anyio.Event()

    async def call(_: Snapshot) -> None:
        called.set()

    with anyio.fail_after(5):
        async with open_clock(segment.path, fence=segment.device, on_restore=[call]):
            segment.restore()
            await called.wait()


@pytest.mark.anyio
async def test_a_restore_while_callbacks_run_begins_them_anew(segment: PlayedSegment) -> None:
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


@pytest.mark.anyio
async def test_the_devices_generation_counts_where_the_segment_has_none(tmp_path: Path) -> None:
    """A segment of 104 bytes has no room for it: a restore that only the device tells of is one all the same."""
    called = anyio.Event()

    async def call(_: Snapshot) -> None:
        called.set()

    def restored(generation: int) -> VMClockBody:
        return VMClockBody(disruption_marker=1, vm_generation_counter=generation)

    body = make_body(vm_generation_counter=None)
    with SegmentWriter(tmp_path / "shm0") as writer, SegmentWriter(tmp_path / "vmclock0", size=112) as device:
        writer.write(body, counter_id=COUNTER_ID)
        device.write(restored(7), counter_id=CounterId.INVALID)
        with anyio.fail_after(5):
            async with open_clock(writer.path, fence=device.path, on_restore=[call]) as clock:
                before = clock.incarnation
                with pytest.raises(LeaseLostError, match="generation was 7, and is 8"):  # noqa: PT012
                    async with clock.lease(60):
                        device.write(restored(8))
                        await anyio.sleep_forever()
                await called.wait()
                await settled()
                assert clock.incarnation != before


FORK_SCRIPT = """
import os, signal, sys, threading, warnings
from vmclock_async import Clock, incarnation

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from 3.12 on
held, forked = threading.Event(), threading.Event()

def hold():
    with incarnation._lock:
        held.set()
        forked.wait()

with Clock(sys.argv[1], fence=None) as clock:
    before = clock.incarnation
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    if not (child := os.fork()):
        signal.alarm(10)
        os._exit(7 if clock.incarnation != before else 1)
    forked.set()
    thread.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_while_another_thread_asks_leaves_the_child_free(
    segment: PlayedSegment, run_script: Callable[..., str]
) -> None:
    """The child has an incarnation of its own, though the thread that was drawing one is not there to finish."""
    assert run_script(FORK_SCRIPT, segment.path) == "7\n"
