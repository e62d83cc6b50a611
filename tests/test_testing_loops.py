"""Virtual time and event loops: it goes by the loop's clock, and waiting in it takes none."""

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest
import trio.testing

from vmclock_async import Clock, LeaseLostError, SegmentUnstableError
from vmclock_async.events import Disrupted, StatusChanged
from vmclock_async.testing import ManualClock

NS = 10**9
MS = 10**6


def under_trio(main: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Run *main* under trio's clock that jumps to the next deadline; the seconds that took."""
    began = time.monotonic()
    anyio.run(main, backend="trio", backend_options={"clock": trio.testing.MockClock(autojump_threshold=0)})
    return time.monotonic() - began


class JumpingLoop(asyncio.SelectorEventLoop):
    """A test clock for asyncio: where the loop would sleep, its time jumps."""

    def __init__(self) -> None:
        self.jumped_s = 0.0
        loop = self

        class Selector(selectors.DefaultSelector):
            def select(self, timeout: float | None = None) -> Any:
                if timeout and not (ready := super().select(0)):
                    loop.jumped_s += timeout
                    return ready
                return super().select(timeout)

        super().__init__(Selector())

    def time(self) -> float:
        return self.jumped_s


def under_asyncio(main: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """The same, under asyncio."""
    began = time.monotonic()
    anyio.run(main, backend_options={"loop_factory": JumpingLoop})
    return time.monotonic() - began


jumping = pytest.mark.parametrize("run", [under_trio, under_asyncio])


@jumping
def test_hour_of_virtual_time_takes_none(run: Callable[..., float]) -> None:
    """Under a clock that jumps, wait_past returns at once, an hour later, and not a moment too soon."""

    async def main() -> None:
        with ManualClock() as clock:
            began_s, end_ns = anyio.current_time(), clock.utc_ns + 3600 * NS
            assert (await clock.wait_past(end_ns)).earliest_ns > end_ns
            assert clock.utc_ns > end_ns
            assert clock.utc_ns - end_ns < 2 * MS, "the bound, and no more"
            assert 3600 < anyio.current_time() - began_s < 3600.01

    assert run(main) < 30, "it slept"


@jumping
def test_lease_runs_out_in_virtual_time(run: Callable[..., float]) -> None:
    """It ends when the loop's time has gone on by as much, less the drift of the counter."""

    async def main() -> None:
        with ManualClock() as clock:
            began_s = anyio.current_time()

            async def hold() -> None:
                async with clock.lease(30):
                    await anyio.sleep_forever()

            with pytest.raises(LeaseLostError, match="its 30 s are over"):
                await hold()
            assert 29.99 < anyio.current_time() - began_s <= 30.01

    assert run(main) < 30, "it slept"


@jumping
def test_lease_that_can_no_longer_be_read_ends_in_time(run: Callable[..., float]) -> None:
    """A page left half written is waited for, but not for longer than the lease lasts."""

    async def main() -> None:
        with ManualClock() as clock:
            began_s = anyio.current_time()

            async def hold() -> None:
                async with clock.lease(30):
                    await anyio.sleep(29.95)
                    clock.die_mid_commit()
                    await anyio.sleep_forever()

            with pytest.raises(LeaseLostError, match="seq_count stayed odd"):
                await hold()
            assert 29.95 < anyio.current_time() - began_s <= 30.005

    assert run(main) < 30, "it slept"


@jumping
def test_renewed_lease_outlasts_a_commit_at_its_old_end(run: Callable[..., float]) -> None:
    """A page that is half written for a moment is waited for as long as the lease lasts now, not as it did before."""

    async def main() -> None:
        with ManualClock() as clock:
            async with clock.lease(0.3) as lease:
                await anyio.sleep(0.2)
                lease.renew()
                await anyio.sleep(0.04)
                clock.die_mid_commit()
                with pytest.raises(SegmentUnstableError):
                    _ = lease.remaining_ns
                await anyio.sleep(0.075)
                clock.regain_sync()
                await anyio.sleep(0.05)
                lease.check()
                assert 0 < lease.remaining_ns < 0.2 * NS

    assert run(main) < 30, "it slept"


@jumping
def test_program_steps_down_and_up_again(run: Callable[..., float]) -> None:
    """Tasks that sleep, wait and play share one virtual time."""
    log: list[str] = []

    async def program(clock: Clock) -> None:
        while True:
            await clock.wait_bounded(2 * MS)
            log.append("up")
            async with clock.events() as events:
                while not isinstance(await events.receive(), Disrupted | StatusChanged):
                    continue
            log.append("down")

    async def main() -> None:
        with ManualClock() as clock:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(program, clock)
                await anyio.sleep(100)
                clock.migrate()
                await anyio.sleep(100)
                assert log == ["up", "down", "up"]
                clock.lose_sync(void=True)
                await anyio.sleep(100)
                assert log[3:] == ["down"]
                clock.regain_sync()
                await anyio.sleep(100)
                assert log[4:] == ["up"]
                tasks.cancel_scope.cancel()

    assert run(main) < 30, "it slept"


def test_time_jumps_with_trios_clock() -> None:
    """``MockClock.jump``: time that nobody waited for has gone by, too."""
    clock = trio.testing.MockClock()

    async def main() -> None:
        with ManualClock() as manual:
            before_ns = manual.utc_ns
            clock.jump(5)
            assert manual.utc_ns - before_ns == 5 * NS

    anyio.run(main, backend="trio", backend_options={"clock": clock})


@pytest.mark.anyio
async def test_advance_wakes_who_waits() -> None:
    """With a clock that does not follow the loop, time is what the test says, on every loop."""
    past: list[int] = []
    with ManualClock(follow_loop=False, max_error_ns=0) as clock:
        end_ns = clock.utc_ns + 10 * NS

        async def wait() -> None:
            past.append((await clock.wait_past(end_ns)).earliest_ns)

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                for _ in range(2):
                    await anyio.wait_all_tasks_blocked()
                    assert past == []
                    clock.advance(5)
                await anyio.wait_all_tasks_blocked()
                assert past == []
                clock.advance(0.001)
        assert past == [end_ns + MS - 1]
        with pytest.raises(ValueError, match="time goes on"):
            clock.advance(-1)


@pytest.mark.anyio
async def test_advance_adds_to_the_loops_time() -> None:
    """Following the loop, who waits an hour goes on when the test says that it is over."""
    with ManualClock() as clock:
        end_ns = clock.utc_ns + 3600 * NS
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(clock.wait_past, end_ns)
                await anyio.wait_all_tasks_blocked()
                clock.advance(3601)
        assert clock.utc_ns > end_ns


def test_time_stands_still_outside_of_a_loop_and_never_goes_back() -> None:
    """It goes on with each loop from where it was, whatever time that loop begins with."""
    clock = ManualClock(utc_ns=NS, max_error_ns=5)
    assert (clock.utc_ns, clock.utc_ns) == (NS, NS)
    assert clock.now().earliest_ns in (NS - 6, NS - 5)
    clock.advance(2)
    seen = [clock.utc_ns]
    assert seen == [3 * NS]

    async def sleep() -> None:
        seen.append(clock.utc_ns)
        await anyio.sleep(7)
        seen.append(clock.utc_ns)

    under_trio(sleep)
    under_asyncio(sleep)
    under_trio(sleep)
    assert seen == sorted(seen)
    assert clock.utc_ns == pytest.approx(24 * NS, abs=1000)
