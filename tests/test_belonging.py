"""What belongs to one process cannot be sent to another, and says what to do instead."""

import copy
import multiprocessing
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from kit.told_world import World
from vmclock_async import Clock, SegmentReader
from vmclock_async.testing import ManualClock

WAYS = [
    pytest.param(pickle.dumps, id="pickle"),
    pytest.param(copy.copy, id="copy"),
    pytest.param(copy.deepcopy, id="deepcopy"),
]


@pytest.mark.parametrize("send", WAYS)
def test_what_maps_a_segment_stays_where_it_is(world: World, clock: Clock, send: Callable[[Any], object]) -> None:
    """A clock, a reader and a writer are refused by name, with the remedy."""
    with SegmentReader(world.path) as reader, ManualClock() as manual:
        for thing, remedy in (
            (clock, "Clock': it belongs to this process; send its path, and open a clock of it there"),
            (manual, "ManualClock': it belongs to this process; make one there"),
            (reader, "SegmentReader': it belongs to this process; send its path, and open a reader of it there"),
            (world.writer, "SegmentWriter': it belongs to this process; a segment has one writer"),
        ):
            with pytest.raises(TypeError, match=f"^cannot pickle or copy '{remedy}"):
                send(thing)


@pytest.mark.anyio
@pytest.mark.parametrize("send", WAYS)
async def test_what_a_clock_gave_stays_with_it(clock: Clock, send: Callable[[Any], object]) -> None:
    """The same for a lease and a stream of events; readings, snapshots and events themselves travel."""
    async with clock.lease(60) as lease, clock.events() as events:
        with pytest.raises(TypeError, match=r"copy 'Lease': .*; send its token, or take another lease there"):
            send(lease)
        with pytest.raises(TypeError, match=r"copy 'EventStream': .*; open a clock there"):
            send(events)
        send(events.snapshot)
        send(clock.now())


def test_clock_cannot_be_an_argument_of_a_process(clock: Clock) -> None:
    """Where processes are spawned, starting one with a clock among its arguments is what says so."""
    process = multiprocessing.get_context("spawn").Process(target=print, args=(clock,))
    with pytest.raises(TypeError, match="open a clock of it there"):
        process.start()
