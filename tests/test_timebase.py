"""The period in fixed point against exact fractions, and the counter paired with the kernel's clocks."""

import platform
import time
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vmclock_async.timebase import COUNTER_ID, counter_ticks, fixed_point_period, pair

DURATIONS_NS = st.integers(1, 10**6) | st.integers(1, 2**64) | st.integers(0, 63).map(lambda bit: 2**bit)
TICKS = DURATIONS_NS


def test_period_at_1_ghz() -> None:
    """At 1 GHz the period is the one that UAPI.13 gives as its example."""
    assert fixed_point_period(10**9, 10**9) == (0x89705F4136B4A597, 29)
    assert fixed_point_period(1, 1) == (0x89705F4136B4A597, 29)


@given(duration_ns=DURATIONS_NS, ticks=TICKS)
@settings(deadline=None)
def test_period_is_exact_to_its_last_bit(duration_ns: int, ticks: int) -> None:
    """frac_sec has its top bit set, and is the exact period in its unit, rounded down."""
    exact = Fraction(duration_ns, ticks * 10**9)
    if exact >= 1:
        with pytest.raises(ValueError, match="a second or more"):
            fixed_point_period(duration_ns, ticks)
        return
    period = fixed_point_period(duration_ns, ticks)
    assert period.shift >= 0
    if exact >= Fraction(1, 2):
        assert period.shift == 0
    assert 2**63 <= period.frac_sec < 2**64
    assert 0 <= exact * 2 ** (64 + period.shift) - period.frac_sec < 1


@pytest.mark.parametrize(("duration_ns", "ticks"), [(0, 1), (1, 0), (-1, 1), (1, -1)])
def test_period_of_nothing(duration_ns: int, ticks: int) -> None:
    """A period needs time that passed and a counter that counted: the error gives both numbers."""
    with pytest.raises(ValueError, match=f"not {duration_ns} ns and {ticks}"):
        fixed_point_period(duration_ns, ticks)


def test_counter_is_the_machines() -> None:
    """The counter is numbered as the ABI numbers this architecture's, and never goes back."""
    assert COUNTER_ID == (1 if platform.machine() == "x86_64" else 0)
    values = [counter_ticks() for _ in range(1000)]
    assert values == sorted(values)


@pytest.mark.parametrize("clock_id", [time.CLOCK_REALTIME, time.CLOCK_MONOTONIC, time.CLOCK_MONOTONIC_RAW])
def test_pair_reads_both_at_once(clock_id: int) -> None:
    """A pairing lies between what counter and clock read before and after, its whole window too."""
    counter_before, clock_before = counter_ticks(), time.clock_gettime_ns(clock_id)
    pairing = pair(clock_id)
    counter_after, clock_after = counter_ticks(), time.clock_gettime_ns(clock_id)
    assert pairing.window_ticks >= 0
    assert counter_before <= pairing.counter_ticks - pairing.window_ticks // 2
    assert pairing.counter_ticks + pairing.window_ticks // 2 <= counter_after
    assert clock_before <= pairing.clock_ns <= clock_after
