"""ClockBound's segment kept by one of ours: a twin of its client reads it, in a world whose true time is known.

CLOCK_REALTIME is a test's where it has to be wrong or set; all else is real.
"""

from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import anyio
import anyio.lowlevel
import pytest
from pydantic import BaseModel

from kit.clockbound import FREERUNNING, NS, SYNCHRONIZED, UNKNOWN, Client, coarse_ns
from kit.kept_bound import Kept, PlayedClocks, keeping
from kit.told_world import (
    PERIOD_BOUND,
    PERIOD_WRONG,
    REFERENCE_BOUND_NS,
    REFERENCE_WRONG_NS,
    World,
    open_descriptors,
    origin,
    true_ns,
)
from kit.waits import is_committed, until
from vmclock_async import BodyUpdate, Clock, ClockStatus, Emit, Publisher, _core
from vmclock_async._reading.segment_feed import SegmentFeed
from vmclock_async.clockbound import Layout, read_error_bound
from vmclock_async.clockbound._steps import Steps
from vmclock_async.timebase import Rate

pytestmark = pytest.mark.anyio
US = 1000
READ_NS = 2_000_000
"""Longest time between two readings of a clock that is believed; a busy machine takes another look."""


@pytest.mark.parametrize("off_ns", [0, 3 * US, -3 * US, 250_000_000, -3 * 86400 * NS])
async def test_truth_is_inside_wherever_the_clock_is(world: World, off_ns: int) -> None:
    """At each reading, of a clock that is right, a little off or days off; and the bound is not much larger."""
    with Clock(world.path, fence=None) as clock:
        kept = Kept(world.path, clock)
        kept.clocks.off_ns = off_ns
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.follower.run)
            await until(lambda: kept.told)
            client = Client(kept.path)
            for _ in range(100):
                assert kept.answer_is_right(client)
            await until(lambda: client.read()["bound"] <= kept.is_off_ns() + READ_NS)
            client.close()
            tasks.cancel_scope.cancel()


async def test_each_commit_is_followed(world: World) -> None:
    """Without waiting for the interval: a larger error and a lost synchronization are there at once."""
    async with keeping(world, interval=1.0) as (kept, client):
        small = client.read()["bound"]
        assert client.now().status == SYNCHRONIZED
        world.tell(time_maxerror_nanosec=50_000_000)
        await until(lambda: client.read()["bound"] > small + 40_000_000)
        world.tell(clock_status=ClockStatus.FREERUNNING)
        await until(lambda: client.now().status == FREERUNNING)
        world.tell(clock_status=ClockStatus.UNKNOWN)
        await until(lambda: client.now().status == UNKNOWN)
        assert kept.statuses == ["SYNCHRONIZED", "FREERUNNING", "UNKNOWN"]
        assert kept.told[-1].reason is not None
        assert kept.told[-1].reason.startswith("clock_status is UNKNOWN; wait until it is SYNCHRONIZED")
        world.tell()
        await until(lambda: client.now().status == SYNCHRONIZED)


async def test_bound_is_renewed_without_a_commit(world: World) -> None:
    """After each interval, so that clients see it young; as_of is no later than the clock that clients compare."""
    async with keeping(world, interval=0.01) as (_, client):
        first = client.read()
        await until(lambda: client.read()["generation"] > first["generation"] + 6)
        copy = client.read()
        assert first["as_of_s"] * NS + first["as_of_ns"] < copy["as_of_s"] * NS + copy["as_of_ns"] <= coarse_ns()


async def test_device_ends_the_bound_before_the_publisher_does(world: World) -> None:
    """A marker that moves: clients that look at the device read UNKNOWN at once, and soon all of them."""
    async with keeping(world, fence=world.device) as (kept, client):
        copy = client.read()
        assert (copy["marker"], copy["enabled"]) == (1, 1)
        blind = Client(kept.path)
        world.device_says(2**32 + 9)
        assert client.now().status == UNKNOWN
        await until(lambda: blind.now().status == UNKNOWN)
        assert blind.read()["marker"] == 2**32 + 9
        assert kept.told[-1].reason is not None
        assert "disruption marker" in kept.told[-1].reason
        world.marker = 9  # the low half is what a publisher and its clocks compare
        world.tell()
        await until(lambda: client.now().status == SYNCHRONIZED)
        assert client.read()["marker"] == 2**32 + 9
        blind.close()


async def test_own_disruptions_leave_the_devices_marker(world: World) -> None:
    """The publisher's marker has a high half of its own, which clients of the device must not see."""
    async with keeping(world, fence=world.device) as (_, client):
        world.marker = 5 * 2**32 + 1
        world.tell(clock_status=ClockStatus.UNKNOWN)
        await until(lambda: client.now().status == UNKNOWN)
        world.tell()
        await until(lambda: client.now().status == SYNCHRONIZED)
        assert client.read()["marker"] == 1


async def test_without_a_device_clients_look_for_none(world: World) -> None:
    """The marker of a publisher alone means nothing to them, but a disruption is UNKNOWN all the same."""
    async with keeping(world) as (_, client):
        assert (client.read()["marker"], client.read()["enabled"]) == (0, 0)
        world.marker += 2**32
        world.tell(clock_status=ClockStatus.UNKNOWN)
        await until(lambda: client.now().status == UNKNOWN)


async def test_clock_that_reads_the_device_itself(world: World) -> None:
    """Its marker is the page's own, and there is no fence."""
    with Clock(world.path, fence=None) as clock:
        feed = clock._feed
        assert isinstance(feed, SegmentFeed)
        feed._reader._mapped = feed._reader._mapped._replace(is_device=True)  # no test has a device
        kept = Kept(world.path, clock)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.follower.run)
            await until(lambda: kept.told)
            client = Client(kept.path)
            assert (client.read()["marker"], client.read()["enabled"]) == (1, 1)
            client.close()
            tasks.cancel_scope.cancel()


async def test_segment_that_comes_and_goes(world: World) -> None:
    """Removed, replaced, left half written: UNKNOWN until there is a time again, in the file that clients have open."""
    async with keeping(world) as (kept, client):
        world.stop_in_mid_commit()
        await until(lambda: client.now().status == UNKNOWN)
        world.restart_publisher()
        world.tell()
        await until(lambda: client.now().status == SYNCHRONIZED)
        world.remove()
        await until(lambda: client.now().status == UNKNOWN)
        assert kept.told[-1].reason == "the segment was replaced by another, or removed"
        world.replace()
        await until(lambda: client.now().status == SYNCHRONIZED)
        world.begin_afresh()
        await until(lambda: client.now().status == UNKNOWN)
        world.tell()
        await until(lambda: client.now().status == SYNCHRONIZED)


async def test_use_ends_with_the_age_of_the_segments_time(world: World) -> None:
    """A reference of 960 s leaves its clients nine tenths of forty seconds; one that is too old leaves none."""
    world.tell(age_s=960)
    async with keeping(world) as (_, client):
        copy = client.read()
        left_ns = (copy["void_after_s"] - copy["as_of_s"]) * NS + copy["void_after_ns"] - copy["as_of_ns"]
        assert 0 < left_ns < 36 * NS
        world.tell(age_s=1001)
        await until(lambda: client.now().status == UNKNOWN)
        world.tell(age_s=0)
        await until(lambda: client.now().status == SYNCHRONIZED)
        copy = client.read()
        assert copy["void_after_s"] * NS + copy["void_after_ns"] == (copy["as_of_s"] + 60) * NS + copy["as_of_ns"]


async def test_step_of_the_clock_is_in_the_bound_once_it_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CLOCK_REALTIME is set an hour ahead: the next bound has the hour, long before the interval is over."""
    stepped = [anyio.Event()]

    async def wait(steps: Steps) -> None:
        await stepped[0].wait()
        stepped[0] = anyio.Event()

    monkeypatch.setattr(Steps, "wait", wait)
    async with keeping(world, interval=1.0) as (kept, client):
        for _ in range(10):
            before = client.read()
            kept.clocks.off_ns += 3600 * NS
            assert not kept.answer_is_right(client)  # what remains: the moment until it is noticed
            stepped[0].set()
            await until(partial(reads_other, client, before))
            assert kept.answer_is_right(client)
            assert client.read()["bound"] >= kept.clocks.off_ns - NS
            if as_of_ns(client) - before["as_of_s"] * NS - before["as_of_ns"] < NS * 9 // 10:
                break  # and not because the interval was over; a busy machine has to try again
        else:
            raise AssertionError("only the interval ends the wait")


def reads_other(client: Client, before: dict[str, Any]) -> bool:
    return client.read() != before


def as_of_ns(client: Client) -> int:
    """The age of what *client* reads begins here."""
    copy = client.read()
    return int(copy["as_of_s"] * NS + copy["as_of_ns"])


async def test_nobody_who_waits_for_a_step_is_woken_without_one() -> None:
    """The kernel's timer is armed, and cancelling the wait leaves it so."""
    before = open_descriptors()
    with Steps() as steps:
        assert steps.are_noticed
        for _ in range(2):
            with anyio.move_on_after(0.01) as scope:
                await steps.wait()
            assert scope.cancelled_caught
    assert not open_descriptors() - before
    with anyio.move_on_after(0.01) as scope:
        await steps.wait()  # as where the kernel has no such timers
    assert scope.cancelled_caught


async def test_many_commits_do_not_turn_the_generation_round(world: World) -> None:
    """A publisher that commits as fast as it can: bounds are written once in five milliseconds at most."""
    async with keeping(world) as (_, client):
        began, generation = anyio.current_time(), client.read()["generation"]
        for _ in range(300):
            world.tell()
            await anyio.lowlevel.checkpoint()
        commits = (client.read()["generation"] - generation) / 2
        assert commits <= (anyio.current_time() - began) / 0.005 + 2


class Telling:
    """A source that measures the world's time, and reports a disruption when it is told to."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    def __init__(self, settings: BaseModel | None = None) -> None:
        self.is_disrupted = False
        self.measures = True

    async def run(self, emit: Emit) -> None:
        while True:
            epoch = emit.epoch
            if self.is_disrupted:
                self.is_disrupted = self.measures = False
                await emit.disrupt("a test")
            elif self.measures:
                counter = _core.counter()
                wrong_ns = REFERENCE_WRONG_NS if counter % 2 else -REFERENCE_WRONG_NS
                await emit(
                    BodyUpdate.measured(
                        counter_ticks=counter,
                        utc_ns=true_ns(counter) + wrong_ns,
                        error_ns=REFERENCE_BOUND_NS,
                        rate=Rate(origin().ns_per_tick * (1 + PERIOD_WRONG), Fraction(0)),
                        drift=PERIOD_BOUND,
                    ),
                    epoch=epoch,
                )
            await anyio.sleep(0.005)


async def publish(path: Path, source: Telling, scope: anyio.CancelScope) -> None:
    with scope:
        await Publisher(path, {"told": source}).run()


async def test_publisher_and_its_restart(segment_path: Path) -> None:
    """From a source to a client, through disruptions and another publisher: each answer contains the truth."""
    source, publishers = Telling(), [anyio.CancelScope() for _ in range(2)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publish, segment_path, source, publishers[0])
        await until(lambda: is_committed(segment_path))
        with Clock(segment_path, fence=None) as clock:
            kept = Kept(segment_path, clock)
            tasks.start_soon(kept.follower.run)
            await until(lambda: kept.told)
            client = Client(kept.path)
            for publisher in publishers:
                await until(lambda: client.now().status == SYNCHRONIZED)
                for _ in range(50):
                    assert kept.answer_is_right(client)
                    await anyio.sleep(0.001)
                source.is_disrupted = True
                await until(lambda: client.now().status == UNKNOWN)
                source.measures = True
                await until(lambda: client.now().status == SYNCHRONIZED)
                assert kept.answer_is_right(client)
                publisher.cancel()
                await until(lambda: client.now().status == FREERUNNING)
                assert kept.answer_is_right(client)
                if publisher is publishers[0]:
                    tasks.start_soon(publish, segment_path, source, publishers[1])
            client.close()
            tasks.cancel_scope.cancel()


async def test_both_layouts(world: World) -> None:
    """Layout 3 says the same, with the counter and its rate beside."""
    async with keeping(world, layouts=(Layout.V2, Layout.V3)) as (kept, _):
        await until((kept.directory / "shm1").exists)
        client = Client(kept.directory / "shm1", layout=3)
        await until(lambda: client.now().status == SYNCHRONIZED)
        assert kept.answer_is_right(client)
        copy = client.read()
        assert abs(copy["period"] * 1e9 * (_core.counter() - copy["as_of_tsc"]) / NS) < 20
        assert 0 < copy["period_err"] < copy["period"] / 1000
        bound = read_error_bound(kept.directory / "shm1", layout=Layout.V3)
        assert bound.max_drift_ppb == read_error_bound(kept.path).max_drift_ppb
        client.close()


async def test_rate_that_the_layout_cannot_hold(world: World) -> None:
    """A counter that may be off by all of its rate: nothing is bounded, and the reason says so."""
    period = 2**63
    world.tell(counter_period_frac_sec=period, counter_period_maxerror_rate_frac_sec=period - 1, clock_status=2)
    async with keeping(world) as (kept, client):
        assert client.now().status == UNKNOWN
        assert kept.told[0].reason is not None
        assert kept.told[0].reason.startswith("the segment says that the counter's rate may be off")


async def test_clock_that_is_lifetimes_off(world: World) -> None:
    """At the beginning of 1970 it is beyond what is worth a bound: UNKNOWN, and what to do."""
    clocks = PlayedClocks()
    clocks.off_ns = -clocks.realtime_ns()
    async with keeping(world, clocks=clocks) as (kept, client):
        assert client.now().status == UNKNOWN
        assert kept.told[0].reason == "CLOCK_REALTIME is more than 31 years off; set it"
