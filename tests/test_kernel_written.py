"""What the kernel source makes of the bounds that a daemon wrote."""

import random

import pytest
from hypothesis import event, given, strategies as st

from kit.kernel_readings import MS, NS, STEP, US
from vmclock_kernel.written import WrittenMaxError


def seen(*maxerrors_ns: int | None, every_s: float = 1, stale: bool = False) -> WrittenMaxError:
    """What is known after these readings, one each *every_s*."""
    written = WrittenMaxError(stale=stale)
    for number, maxerror_ns in enumerate(maxerrors_ns):
        written.seen(maxerror_ns, int(number * every_s * NS))
    return written


@pytest.mark.parametrize(
    ("maxerrors_ns", "may_be_zero"),
    [
        ([0], True),
        ([17 * STEP], True),
        ([17 * STEP, 18 * STEP, 19 * STEP], True),
        ([17 * STEP + 1], False),
        ([17 * STEP + 1, 18 * STEP + 1], False),
        ([17 * STEP, 0], True),
        ([17 * STEP, 10 * STEP], False),
        ([17 * STEP, STEP], True),
        ([17 * STEP, 30 * STEP], False),
        ([17 * STEP + 1, 0], True),
        ([17 * STEP + 1, 16 * STEP], False),
        ([17 * STEP + 1, 16 * STEP, 17 * STEP, 0, STEP, 2 * STEP], True),
    ],
)
def test_written_zero_is_told_from_a_bound(maxerrors_ns: list[int], may_be_zero: bool) -> None:
    """A multiple of 500 us that can have grown from zero is no bound; what cannot is one."""
    assert seen(*maxerrors_ns).may_be_zero is may_be_zero


@given(seed=st.integers(0, 2**32), zero=st.booleans())
def test_no_written_zero_is_taken_for_a_bound(seed: int, zero: bool) -> None:
    """Whenever and whatever a daemon writes, and whenever it is looked at: a zero is never a bound, and what is
    counted as written anew was."""
    chance = random.Random(seed)
    written = WrittenMaxError(stale=True)
    now_ns = chance.randrange(NS)
    maxerror_ns, is_zero, rewritten, looked = chance.randrange(10**5) * US, False, False, False
    kernel_off = chance.uniform(0.91, 1.09)  # as fast as a slewed clock's seconds may go
    second_ns = now_ns
    for _ in range(40):
        now_ns += int(chance.choice([0.01, 0.3, 1, 1, 1, 7]) * NS * chance.uniform(0.9, 1.1))
        while second_ns + NS / kernel_off <= now_ns:
            second_ns += int(NS / kernel_off)
            maxerror_ns += STEP
        if chance.random() < 0.2:
            is_zero = zero or chance.random() < 0.3
            maxerror_ns = 0 if is_zero else chance.choice([chance.randrange(1, 10**5) * US, 10 * STEP])
            rewritten |= looked
        written.seen(maxerror_ns, now_ns)
        looked = True
        if is_zero:
            assert written.may_be_zero
        if not rewritten:
            assert written.stale
    event(f"found out that it was written: {rewritten and not written.stale}")


def test_fall_shows_that_it_was_written() -> None:
    """Growing is the kernel's doing, falling the daemon's."""
    assert seen(20_000_000, 20_500_000, 21_000_000, stale=True).stale
    assert not seen(20_000_000, 20_500_000, 1_000_000, stale=True).stale
    assert not seen(20_000_000, 30_000_000, 25_000_000, stale=True).stale
    assert seen(20_000_000, stale=True).stale


def test_daemon_that_always_writes_the_same_is_found_out() -> None:
    """A zero each second (phc2sys) never falls; but it does not grow either."""
    assert seen(0, 0, stale=True).stale
    assert not seen(0, 0, 0, 0, stale=True).stale


@pytest.mark.parametrize(
    ("maxerrors_ns", "every_s", "may_be_nonsense"),
    [
        ([None], 1, True),
        ([2 * MS, None], 1, True),
        ([None, 50 * US, 550 * US, 1050 * US], 1, True),
        ([None, 50 * US, 550 * US, 50 * US], 1, True),
        ([None, 5 * MS], 1, False),
        ([None, 50 * US, *[20 * MS] * 2], 1, False),
        ([None, 600 * US, 500 * US], 40, False),
        ([None, 600 * US, None, 500 * US], 40, True),
        ([600 * US, 500 * US], 40, False),
    ],
)
def test_what_grew_from_nonsense_is_no_bound(
    maxerrors_ns: list[int | None], every_s: float, may_be_nonsense: bool
) -> None:
    """-450 us is 50 us a second later. Believed is what cannot have grown so, or was written a minute later."""
    assert seen(*maxerrors_ns, every_s=every_s).may_be_nonsense is may_be_nonsense
