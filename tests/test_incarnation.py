"""Who a process is: that no two lives of it share an incarnation."""

import copy
from collections.abc import Callable
from uuid import UUID

import anyio
import pytest

from settling import settled
from vmclock_async import ClockDisruptedError, SegmentReader, Snapshot, open_clock
from vmclock_async.incarnation import Incarnation
from vmclock_async.testing import PlayedSegment


def test_clones_that_had_not_looked_yet_differ(segment: PlayedSegment) -> None:
    """An incarnation that nobody had asked for when the machine was stored is not the same in two clones of it."""
    stored = Incarnation()
    with SegmentReader(segment.path) as reader:
        segment.restore()
        restored = reader.snapshot()
        assert copy.deepcopy(stored).of(restored) != copy.deepcopy(stored).of(restored)


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
