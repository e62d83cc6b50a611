"""What a clock must not go on with: a file that was left, a lease that is over, an identity of another life."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from kit.waits import settled
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockError,
    ClockNotSynchronizedError,
    ClockStatus,
    CounterId,
    LeaseLostError,
    SegmentWriter,
    TimeInterval,
    VMClockBody,
    open_clock,
)
from vmclock_async.events import Restored
from vmclock_async.testing import ManualClock, PlayedSegment, make_body
from vmclock_async.timebase import COUNTER_ID

pytestmark = pytest.mark.anyio


@pytest.fixture
def clock(segment: PlayedSegment) -> Iterator[Clock]:
    with Clock(segment.path, fence=None) as opened:
        yield opened


def replaced_by_void(path: Path) -> None:
    """Another publisher's new file, which knows of no time yet, in place of the old one."""
    other = path.with_name("other")
    with SegmentWriter(other, size=112) as writer:
        writer.write(VMClockBody(disruption_marker=99), counter_id=COUNTER_ID)
    other.replace(path)


async def test_file_that_the_clock_has_left_gives_no_more_time(segment: PlayedSegment, clock: Clock) -> None:
    """Once any look has gone on to the new file, now() has too, though that has no time to give."""
    assert clock.now().status == ClockStatus.SYNCHRONIZED
    replaced_by_void(segment.path)
    assert clock.status == ClockStatus.UNKNOWN
    with pytest.raises(ClockNotSynchronizedError):
        clock.now()


@pytest.mark.long
async def test_now_alone_finds_the_new_file_within_a_second(segment: PlayedSegment, clock: Clock) -> None:
    """However old the time was when it was looked at last."""
    segment.change(
        **{name: value for name, value in make_body().model_dump().items() if name.startswith("counter_")}
    )
    clock.now()
    replaced_by_void(segment.path)
    began = time.monotonic()
    with pytest.raises(ClockNotSynchronizedError):  # noqa: PT012
        while True:
            time.sleep(0.001)  # noqa: ASYNC251 - no task has to run; it leaves the processor to other tests
            asked = time.monotonic()
            clock.now()
            assert asked < began + 1.1, "asked after a second, it gave the old file's time"


class CountingClock(Clock):
    """A clock that counts the readings which the core left to Python."""

    slow = 0

    def _now_slowly(self, max_error_ns: int | None) -> TimeInterval:
        self.slow += 1
        return super()._now_slowly(max_error_ns)


async def test_segment_that_has_grown_is_read_quickly_again(segment: PlayedSegment, tmp_path: Path) -> None:
    """From 104 to 112 bytes in place, under the same marker: the core knows its new size after one slow look."""
    path = tmp_path / "short"
    body = make_body(vm_generation_counter=None)
    with SegmentWriter(path) as writer:
        writer.write(body, counter_id=COUNTER_ID)
        with CountingClock(path, fence=None) as clock:
            clock.now()
            writer.close()
            with SegmentWriter(path, size=112) as grown:
                grown.write(body, counter_id=COUNTER_ID)
                clock.now()
                slow = clock.slow
                clock.now()
                assert clock.slow == slow


async def test_block_that_outlasts_its_lease_is_told() -> None:
    """Also where it came to its end by itself, and nothing was left to cancel."""

    async def hold() -> None:
        with ManualClock() as clock:
            async with clock.lease(0.5):
                clock.advance(1)

    with pytest.raises(LeaseLostError, match=r"its 0\.5 s are over"):
        await hold()


async def test_lease_has_no_more_time_by_a_later_body() -> None:
    """Its ticks were as long as the worst body allows, and a better one after it takes none of them back."""
    with ManualClock() as clock:
        sure = clock.body.counter_period_maxerror_rate_frac_sec
        clock.change(counter_period_maxerror_rate_frac_sec=clock.body.counter_period_frac_sec // 5)
        with pytest.raises(LeaseLostError, match="its 100 s are over"):  # noqa: PT012
            async with clock.lease(100) as lease:
                clock.advance(60)
                before_ns = lease.remaining_ns
                clock.change(counter_period_maxerror_rate_frac_sec=sure)
                assert 0 < lease.remaining_ns <= before_ns < 28 * 10**9
                clock.advance(24)  # 84 s, which may have been 100.8
                lease.check()


async def test_counter_that_goes_back_ends_a_lease() -> None:
    """To where the page still has a time, and under the same marker: what went by before is not to be measured."""
    with ManualClock() as clock:
        clock.freeze()  # its reference stays behind the counter
        with pytest.raises(LeaseLostError, match="the counter went back"):  # noqa: PT012
            async with clock.lease(100) as lease:
                clock.advance(50)
                lease.check()
                clock._time._advanced_ns -= 20 * 10**9  # advance() does not do that
                clock.now()
                lease.check()


@pytest.mark.parametrize(
    ("happen", "reason"),
    [
        pytest.param(lambda clock: clock.advance(200), "its 100 s are over", id="over"),
        pytest.param(
            lambda clock: clock.change(vm_generation_counter=2), "generation was 1, and is 2", id="restored"
        ),
    ],
)
async def test_lease_that_ends_before_its_token_is_past_is_not_given(
    happen: Callable[[ManualClock], None], reason: str
) -> None:
    """However long the token took: its block is not begun."""
    begun = anyio.Event()
    clock = ManualClock(follow_loop=False)

    async def hold() -> None:
        with pytest.raises(LeaseLostError, match=reason):
            async with clock.lease(100):
                begun.set()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hold)
            await settled()
            happen(clock)
            clock.advance(1)
    assert not begun.is_set()


async def test_lease_is_over_with_its_block(clock: Clock) -> None:
    """Whoever was handed it cannot go on with it, nor renew it."""
    async with clock.lease(10) as lease:
        lease.check()
    with pytest.raises(LeaseLostError, match="its block has ended"):
        lease.check()
    with pytest.raises(LeaseLostError, match="its block has ended"):
        lease.renew()
    assert lease.remaining_ns == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_forked_child_holds_no_lease(clock: Clock) -> None:
    """It is its parent's; the child has the same token."""
    async with clock.lease(10) as lease:
        if (pid := os.fork()) == 0:
            try:
                lease.check()
            except LeaseLostError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7  # noqa: ASYNC222


async def test_restore_that_only_the_device_tells_of_ends_lease_and_incarnation(segment: PlayedSegment) -> None:
    """The generation alone moved, and the publisher is stopped: the counter is good, the identity is not."""
    with Clock(segment.path, fence=segment.device) as clock:
        first = clock.incarnation
        body = clock.snapshot().body
        segment.close()
        with SegmentWriter(segment.device, size=112) as device:
            device.write(
                VMClockBody(disruption_marker=body.disruption_marker, vm_generation_counter=77),
                counter_id=CounterId.INVALID,
            )
        clock.now()
        with pytest.raises(ClockDisruptedError, match="the device's generation is 77"):
            _ = clock.incarnation
        with pytest.raises(LeaseLostError, match="the device's generation is 77"):
            async with clock.lease(10) as lease:
                lease.check()
        assert first


async def test_clone_made_in_a_callback_is_not_the_one_to_come(segment: PlayedSegment) -> None:
    """What was drawn for one restore is nobody's after the next."""
    seen: list[object] = []
    done = anyio.Event()

    async def authenticate(_: object) -> None:
        async def ask(clock: Clock) -> None:
            try:
                seen.append(clock.incarnation)
            except ClockError as exc:
                seen.append(type(exc))

        await ask(opened)
        if len(seen) == 1:
            segment.restore()  # again, in the middle of it
            await ask(opened)
        else:
            done.set()

    with anyio.fail_after(10):
        async with open_clock(segment.path, fence=None, on_restore=[authenticate]) as opened:
            before = opened.incarnation
            segment.restore()
            await done.wait()
            while True:
                try:
                    after = opened.incarnation
                    break
                except ClockDisruptedError:
                    await anyio.sleep(0.01)
    first, between, second = seen
    assert between is ClockDisruptedError
    assert len({before, first, second}) == 3
    assert after == second


async def test_restore_told_after_a_gap_is_told(tmp_path: Path) -> None:
    """The generation was 5, for a while there was none, and then it is 6."""
    path = tmp_path / "segment"
    with SegmentWriter(path, size=112) as writer:
        writer.write(make_body(vm_generation_counter=5), counter_id=COUNTER_ID)
        with Clock(path, fence=None) as clock:
            async with clock.events() as events:
                writer.write(make_body(vm_generation_counter=None, disruption_marker=9), counter_id=COUNTER_ID)
                await events.receive()
                writer.write(make_body(vm_generation_counter=6, disruption_marker=9), counter_id=COUNTER_ID)
                with anyio.fail_after(5):
                    restored = await events.receive()
    assert isinstance(restored, Restored)
    assert (restored.generation_before, restored.generation_after) == (5, 6)
