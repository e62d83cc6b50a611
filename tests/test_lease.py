"""Leases: how long they are held, what ends them, and what a lost one says."""

import time
from collections.abc import Callable

import anyio
import anyio.lowlevel
import pytest

from kit.told_world import BOUNDED, World, true_ns
from kit.waits import BOUND_S, until_waiting
from vmclock_async import (
    Clock,
    ClockNotSynchronizedError,
    ClockStatus,
    ClockUnboundedError,
    Flags,
    Lease,
    LeaseLostError,
    SegmentUnstableError,
    VMClockError,
    _core,
    open_clock,
)
from vmclock_async.testing import PlayedSegment

pytestmark = pytest.mark.anyio

RunScript = Callable[..., str]


async def test_lease_is_held_for_the_block(world: World, clock: Clock) -> None:
    """It ends with the block, quietly; its token was the present's latest_ns, and is past when the block begins."""
    before = clock.now()
    with anyio.fail_after(BOUND_S):
        async with clock.lease(30) as lease:
            assert isinstance(lease, Lease)
            assert before.earliest_ns <= lease.token < clock.now().earliest_ns
            lease.check()
            assert lease.duration_s == 30
            first = lease.remaining_ns
            await anyio.sleep(0.001)
            assert 29 * 10**9 < lease.remaining_ns < first < 30 * 10**9


async def test_later_lease_has_a_greater_token(world: World, clock: Clock, run_script: RunScript) -> None:
    """Of two leases, anywhere: by the same clock, by another, in another process, after commits that correct."""
    tokens = []
    for wrong_ns in (700, -700, 0):
        world.tell(time_maxerror_nanosec=100_000 + wrong_ns)
        async with clock.lease(30) as lease:
            tokens.append(lease.token)
        with Clock(world.path, fence=None) as other:
            async with other.lease(30) as lease:
                tokens.append(lease.token)
    tokens.append(int(run_script("lease_token", world.path)))
    async with clock.lease(30) as lease:
        tokens.append(lease.token)
    assert tokens == sorted(set(tokens))


@pytest.mark.parametrize("drift_ppm", [None, 200_000])
async def test_lease_never_outlasts_its_duration(world: World, drift_ppm: float | None) -> None:
    """By true time, though ticks take 15 % longer than the segment says, which is within the bound it gives."""
    period, rate = 0.87, 0.2
    told = world.writer.body.counter_period_frac_sec
    flags = BOUNDED if drift_ppm is None else BOUNDED & ~Flags.PERIOD_MAXERROR_VALID
    shortened = int(told * period)
    world.tell(
        flags=flags,
        counter_period_frac_sec=shortened,
        counter_period_maxerror_rate_frac_sec=int(shortened * rate) if drift_ppm is None else 0,
    )
    with Clock(world.path, fence=None, max_drift_ppm=drift_ppm) as clock, anyio.fail_after(BOUND_S):
        begun_at, lease, held_at = _core.counter(), None, 0
        with pytest.raises(VMClockError) as over:  # noqa: PT012
            async with clock.lease(0.1) as lease:
                while True:
                    before = _core.counter()
                    lease.check()
                    held_at = before
        over_at = _core.counter()
        # It is not over before: the longest tick is 0.87 * 1.2 of one.
        assert true_ns(over_at) - true_ns(begun_at) > 0.095 * 10**9
        assert_over(over.value, "0.1 s")
        if lease is not None:
            assert true_ns(over_at) - true_ns(lease._start) > 0.095 * 10**9
            assert true_ns(held_at) - true_ns(lease._start) < 10**8
            assert lease.remaining_ns == 0
            with pytest.raises(LeaseLostError):
                lease.renew()


def assert_over(error: VMClockError, duration: str) -> None:
    """*error* says that a lease's time was over: in its block, or, where the machine took as long, in its beginning."""
    if not isinstance(error, LeaseLostError):
        assert isinstance(error, ClockUnboundedError)
        assert f"lease of {duration} would be over" in str(error)
    else:
        assert f"its {duration} are over" in str(error)


async def test_lease_cancels_its_block_when_it_is_over(clock: Clock) -> None:
    """A block that awaits is ended, with the reason; and not before the time."""
    start = time.monotonic()
    with anyio.fail_after(BOUND_S):
        with pytest.raises(VMClockError) as over:
            async with clock.lease(0.05):
                await anyio.sleep_forever()
    assert time.monotonic() - start > 0.049
    assert_over(over.value, "0.05 s")


async def test_renewed_lease_goes_on(clock: Clock) -> None:
    """Each renewal begins the duration anew; the token stays."""
    with anyio.fail_after(BOUND_S):
        renewed = time.monotonic()
        with pytest.raises(VMClockError) as over:  # noqa: PT012
            async with clock.lease(0.1) as lease:
                token, began = lease.token, renewed
                while renewed < began + 0.25:
                    await anyio.sleep(0.05)
                    asked, since = time.monotonic(), true_ns(_core.counter())
                    lease.renew()  # it is lost by now if the machine is too busy
                    renewed = asked
                    remaining_ns = lease.remaining_ns
                    # Of the longest tick that there may be it is a little less than what true time leaves of it.
                    assert remaining_ns > 0.0999 * 10**9 - 1.01 * (true_ns(_core.counter()) - since)
                assert lease.token == token
                await anyio.sleep_forever()
    # For as long as it was renewed in time, and no less than its duration after that.
    assert time.monotonic() - renewed >= 0.099
    assert_over(over.value, "0.1 s")


def garbage_in_place(world: World) -> None:
    """What is no segment is moved over the path."""
    garbage = world.path.with_name("garbage")
    garbage.write_bytes(b"x" * 200)
    garbage.rename(world.path)


def migrate(world: World) -> None:
    """The device tells of it, and the publisher."""
    world.tell(disruption_marker=2)
    world.device_says(2)


HAPPENINGS = [
    pytest.param(migrate, "marker was 1, and is 2", id="migration"),
    pytest.param(
        lambda world: world.tell(disruption_marker=1 + 2**32),
        "marker was 1, and is",
        id="publishers-own-disruption",
    ),
    pytest.param(lambda world: world.tell(vm_generation_counter=6), "generation was 5, and is 6", id="restore"),
    pytest.param(lambda world: world.device_says(2), "its publisher has not published that yet", id="fence"),
    pytest.param(
        lambda world: world.tell(clock_status=0, vm_generation_counter=5), "clock_status is UNKNOWN", id="no-bound"
    ),
    pytest.param(lambda world: world.tell(age_s=2000, vm_generation_counter=5), "2000 s old", id="stale"),
    pytest.param(lambda world: world.replace(vm_generation_counter=5), "segment was replaced", id="replaced"),
    pytest.param(World.remove, "replaced by another, or removed", id="removed"),
    pytest.param(garbage_in_place, "replaced by another|magic", id="garbage"),
    pytest.param(World.stop_in_mid_commit, "stayed odd", id="unreadable"),
]


@pytest.mark.parametrize(("happen", "reason"), HAPPENINGS)
async def test_lease_ends_with_what_it_is_measured_by(
    world: World, happen: Callable[[World], object], reason: str
) -> None:
    """Its block is cancelled within about a second, and LeaseLostError says what happened."""
    world.tell(vm_generation_counter=5)
    with Clock(world.path, fence=world.device) as clock, anyio.fail_after(BOUND_S):
        with pytest.raises(LeaseLostError, match=reason):  # noqa: PT012
            async with clock.lease(60) as lease:
                await until_waiting(clock)
                happen(world)
                waits = clock.statistics().waits
                await anyio.sleep_forever()
        # Within a second's looks, however long the machine took for them: while the path leads nowhere it looks often.
        assert clock.statistics().waits < waits + 25
        assert lease.remaining_ns == 0


@pytest.mark.parametrize(("happen", "reason"), HAPPENINGS)
async def test_check_tells_at_once(world: World, happen: Callable[[World], object], reason: str) -> None:
    """Without an await in between, the very next check() raises; and so does every one after, whatever comes."""
    world.tell(vm_generation_counter=5)
    with Clock(world.path, fence=world.device) as clock, anyio.fail_after(BOUND_S):
        with pytest.raises((LeaseLostError, SegmentUnstableError), match=reason):  # noqa: PT012
            async with clock.lease(60) as lease:
                lease.check()
                happen(world)
                lease.check()
        if reason != "stayed odd":  # of which it cannot be told yet
            with pytest.raises(LeaseLostError, match=reason):
                lease.check()
            with pytest.raises(LeaseLostError, match=reason):
                lease.renew()


async def test_block_that_ends_in_doubt_has_lost_its_lease(world: World, clock: Clock) -> None:
    """check() could not tell, and the block let that out: whoever waits for LeaseLostError gets it, with its cause."""
    with pytest.raises(LeaseLostError, match="stayed odd") as lost:  # noqa: PT012
        async with clock.lease(60) as lease:
            world.stop_in_mid_commit()
            lease.check()
    assert isinstance(lost.value.__cause__, SegmentUnstableError)
    world.tell()
    other = SegmentUnstableError("/another", "of another segment", 1)
    with pytest.raises(SegmentUnstableError, match="of another segment"):
        async with clock.lease(60):
            raise other


async def test_lease_outlasts_commits_that_change_nothing_of_it(world: World, clock: Clock) -> None:
    """A fresh reference, another bound, a maintenance notice, free-running: it is held all the same."""
    async with clock.lease(60) as lease:
        for changes in (
            {"time_maxerror_nanosec": 10**8},
            {"flags": BOUNDED | Flags.DISRUPTION_SOON},
            {"clock_status": ClockStatus.FREERUNNING, "age_s": 50},
            {"leap_indicator": 1},
        ):
            await until_waiting(clock)
            world.tell(**changes)
            lease.check()
        await until_waiting(clock)
        lease.check()


async def test_blocks_own_exceptions_stay_bare(clock: Clock) -> None:
    """No group around them, with what they came from; a group of the block's own is not wrapped in another."""
    with pytest.raises(KeyError, match="mine") as bare:  # noqa: PT012
        async with clock.lease(60):
            try:
                raise ValueError("first")
            except ValueError:
                raise KeyError("mine")  # noqa: B904
    assert isinstance(bare.value.__context__, ValueError)
    assert bare.value.__context__.__context__ is None
    assert not bare.value.__suppress_context__
    group = ExceptionGroup("mine", [KeyError("one"), ValueError("two")])
    with pytest.raises(ExceptionGroup) as caught:
        async with clock.lease(60):
            raise group
    # On trio a copy of it: its nurseries put together anew what goes through them.
    assert (caught.value.message, caught.value.exceptions) == ("mine", group.exceptions)


async def test_cancelling_from_outside_is_no_loss(clock: Clock) -> None:
    """The canceller's scope catches it: no LeaseLostError, and nothing is left running."""
    with anyio.CancelScope() as scope:
        async with clock.lease(60) as lease, anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.sleep, 0)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(LeaseLostError, match="its block has ended"):
        lease.check()  # whoever was handed it
    async with clock.lease(60) as lease, anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.sleep_forever)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("duration_s", [0, -1, float("nan"), float("inf"), 1001])
async def test_duration_is_positive_and_within_max_age(clock: Clock, duration_s: float) -> None:
    """Longer than a reference is carried forward it could not be measured."""
    with pytest.raises(ValueError, match="a lease lasts more than 0 s and 1000 s at most"):
        async with clock.lease(duration_s):
            pass


async def test_without_a_bound_there_is_no_lease(world: World, clock: Clock) -> None:
    """Entering raises now()'s error; at once also what takes longer to begin than it lasts, and says what to do."""
    world.tell(clock_status=0)
    with pytest.raises(ClockNotSynchronizedError):
        async with clock.lease(60):
            pass
    world.tell(time_maxerror_nanosec=30 * 10**9)
    refused = pytest.raises(ClockUnboundedError, match=r"lease of 20 s would be over .* wait_bounded\(\) first")
    with refused, anyio.fail_after(BOUND_S):
        async with clock.lease(20):  # its token alone takes a minute to be past
            pass


async def test_lease_names_the_migration(segment: PlayedSegment) -> None:
    """A lease lost to a migration says so, though the time is void too, which has other causes and remedies."""

    async def hold() -> None:
        async with open_clock(segment.path, fence=segment.device) as clock, clock.lease(100) as lease:
            segment.migrate()
            segment.lose_sync(void=True)
            lease.check()

    with anyio.fail_after(5), pytest.raises(LeaseLostError, match="marker was 1, and is 2"):
        await hold()
