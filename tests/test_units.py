"""Numbers in another unit than nanoseconds, where a clock would wait for them."""

import time

import pytest

from vmclock_async import Clock
from vmclock_async.testing import ManualClock

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("unit", [10**9, 10**6, 10**3], ids=["seconds", "milliseconds", "microseconds"])
async def test_wait_past_refuses_numbers_in_another_unit(clock: Clock, unit: int) -> None:
    """They would be past at once: the error says the number, the unit that is meant, and the remedy."""
    now = time.time_ns() // unit
    said = (
        rf"wait_past\(\) takes nanoseconds since 1970, .* {now} would be before March 1973.* multiply seconds by"
    )
    with pytest.raises(ValueError, match=said):
        await clock.wait_past(now)


@pytest.mark.parametrize("ns", [0, 10**9 - 1, 10**17])
async def test_wait_past_takes_other_numbers_that_are_past(clock: Clock, ns: int) -> None:
    """Zero means that any reading will do; and from March 1973 on a number is nanoseconds."""
    assert (await clock.wait_past(ns)).earliest_ns > ns


async def test_wait_past_takes_an_interval_of_any_time() -> None:
    """An interval has no unit to mistake: that of a played clock may be near 1970."""
    with ManualClock(utc_ns=10**9, max_error_ns=5) as clock:
        before = clock.now()
        clock.advance(1)
        assert before.before(await clock.wait_past(before))
        assert before.before(await clock.wait_past(before.latest))
