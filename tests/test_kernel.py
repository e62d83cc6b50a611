"""The kernel source: its figures by hand, leap seconds played through, and the real command under a played kernel.

Three boundaries are played: pure readings (``reading``), a ``Machine`` whose kernel state is a test's
(``PlayedMachine``), and for whole processes the system calls themselves (``kit/adjtimex.c``).
"""

import errno
import itertools
import json
import logging
import math
import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from hypothesis import event, given, strategies as st

from kit.adjtimex import STA_CLOCKERR, STA_DEL, STA_INS, STA_NANO, STA_PLL, STA_UNSYNC, AdjtimexStandIn
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    ClockUnboundedError,
    CounterId,
    Flags,
    LeapIndicator,
    SegmentReader,
    Snapshot,
    SourceSettingsError,
    TimeType,
    VMClockBody,
)
from vmclock_async.errors import SourceUnavailableError
from vmclock_async.models import Contents
from vmclock_async.reckoning import Bounds, bounds_at
from vmclock_async.sources import Probes, build_source
from vmclock_async.testing import check_source
from vmclock_async.timebase import (
    COUNTER_ID,
    ClockState,
    ClockStatusBits,
    Pairing,
    Rate,
    Timex,
    counter_unfit_because,
    fixed_point_period,
    pair,
)
from vmclock_kernel import KernelSettings, KernelSource
from vmclock_kernel.machine import Machine
from vmclock_kernel.measure import Reading, Steering, assumed_error_ns, drift, max_error_ns, time_update
from vmclock_kernel.written import WrittenMaxError

BOUND_S = 20.0
"""Longest time that a test may wait, on a machine that is busy with others."""
NS = 10**9
MS = 10**6
US = 1000
STEP = 500 * US
"""What the kernel adds to maxerror each second."""
NEW_YEAR_S = 1_798_761_600
"""2027-01-01 00:00:00 UTC: the end of a month."""
SYNCHRONIZED = ClockStatusBits.PLL | ClockStatusBits.NANO
PPM = Fraction(1, 10**6)
RAW = Rate(Fraction(1, 2), Fraction(0))
"""A counter of 2 GHz, known exactly."""

fit = pytest.mark.skipif(counter_unfit_because() is not None, reason=str(counter_unfit_because()))


def timex(**changes: Any) -> Timex:
    """A kernel whose own loop keeps its clock in TAI."""
    values: dict[str, Any] = {
        "state": ClockState.OK,
        "status": SYNCHRONIZED,
        "offset_ns": 0,
        "frequency_ppb": 0,
        "maxerror_ns": 2001 * US,
        "esterror_ns": 300 * US,
        "tai_offset_s": 37,
        "realtime_ns": 1_790_000_000 * NS,
    }
    return Timex(**{**values, **changes})


def realtime_of(state: Timex) -> int:
    """CLOCK_REALTIME at that reading."""
    assert state.realtime_ns is not None
    return state.realtime_ns


def reading(counter: int = 1000, clock_ns: int | None = None, *, window: int = 0, **changes: Any) -> Reading:
    """A reading of that kernel, with TAI or UTC paired as the kernel has it."""
    state = timex(**changes)
    if clock_ns is None:
        clock_ns = realtime_of(state) + state.tai_offset_s * NS
    return Reading(state, Pairing(counter, clock_ns, window), state)


def contents(update: BodyUpdate) -> Contents:
    """What a segment holds after *update* alone."""
    return Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC).updated(update)


def bounds(update: BodyUpdate, counter: int) -> Bounds:
    """The interval that *update* gives at *counter*."""
    return bounds_at(contents(update), counter, counter_id=COUNTER_ID)


# The bound


def test_max_error_is_the_sum_of_its_terms() -> None:
    """Daemon's maxerror, a second's growth, what is being slewed, half a window, the assumption: rounded up."""
    before = timex(maxerror_ns=7_000_000, offset_ns=-31_000)
    after = timex(maxerror_ns=5_000_000, offset_ns=29_000)
    measured = Reading(before, Pairing(0, 0, 2001), after)
    # 2001 ticks of half a ns: 1000 and 2 make 501 ns; and 2 ns for roundings.
    tick_ns = Fraction(1, 2)
    assert max_error_ns(measured, tick_ns, 900) == 7_000_000 + 500_000 + 31_000 + 501 + 900 + 2
    assert max_error_ns(measured._replace(before=after, after=before), tick_ns, 900) == 7_532_403


def test_offset_in_microseconds_is_rounded_up() -> None:
    """Without STA_NANO the kernel cuts its offset to whole microseconds: one more is assumed."""
    nano, micro = (
        max_error_ns(reading(status=status, offset_ns=31_000), Fraction(1, 2), 0)
        for status in (SYNCHRONIZED, ClockStatusBits.PLL)
    )
    assert nano is not None
    assert micro == nano + 1000


def test_estimated_error_is_the_kernels_and_what_is_being_slewed() -> None:
    """esterror, |offset| and half a window; and of the period, what measuring it left open."""
    rate = Rate(Fraction(1, 2), Fraction(1, 10**9))
    update = time_update(reading(window=2001, offset_ns=-70_000), rate, RAW, assumed_ns=0)
    # 1002 ticks of half a ns and 501 ppm.
    assert update.time_esterror_nanosec == 300_000 + 70_000 + 502
    assert update.counter_period_esterror_rate_frac_sec is not None
    in_ns = Fraction(update.counter_period_esterror_rate_frac_sec * NS, 2 ** (64 + 30))
    assert rate.error < in_ns < rate.error * (1 + PPM)


SIGNS = st.sampled_from([-1, 1])


@pytest.mark.parametrize("slew_ppm", [-90_000, 0, 90_000])
@pytest.mark.parametrize("drift_ppm", [-500, 500])
def test_drift_is_of_the_oscillator_and_not_of_the_slew(slew_ppm: int, drift_ppm: int) -> None:
    """The 500 ppm are of RAW's rate: a clock that is slewed, and so has another, takes nothing of them away."""
    slewed = Rate(RAW.ns_per_tick * (1 + slew_ppm * PPM), Fraction(0))
    assert abs(RAW.ns_per_tick * (1 + drift_ppm * PPM) - slewed.ns_per_tick) <= drift(slewed, RAW)


@given(
    offset_ns=st.integers(-50 * MS, 50 * MS),
    window=st.integers(0, 10**6),
    window_part=st.fractions(-1, 1),
    assumed_ns=st.integers(0, 10 * MS),
    maxerror_ns=st.integers(0, 10**10),
    second_part=st.fractions(0, 1),
    sign=SIGNS,
    drift=st.sampled_from([-500, 0, 500]),
    slew_ppm=st.integers(-90_000, 90_000),
    ticks=st.integers(0, 1_800 * NS),
    tai=st.sampled_from([0, 37]),
)
def test_true_time_is_inside(
    offset_ns: int,
    window: int,
    window_part: Fraction,
    assumed_ns: int,
    maxerror_ns: int,
    second_part: Fraction,
    sign: int,
    drift: int,
    slew_ppm: int,
    ticks: int,
    tai: int,
) -> None:
    """However the parts of the error come together, each to its full amount, the interval contains true time.

    The oscillator is off RAW's nominal rate by 500 ppm at most; the clock was slewed while it was measured.
    """
    measured = reading(
        window=window,
        maxerror_ns=maxerror_ns,
        offset_ns=offset_ns,
        tai_offset_s=tai,
        realtime_ns=1_790_000_000_123456789,
    )
    rate = Rate(RAW.ns_per_tick * (1 + slew_ppm * PPM), Fraction(0))
    update = time_update(measured, rate, RAW, assumed_ns=assumed_ns)
    error_ns = maxerror_ns + second_part * STEP + assumed_ns
    true_then_ns = realtime_of(measured.before) + offset_ns + sign * error_ns
    true_per_tick = RAW.ns_per_tick * (1 + drift * PPM)
    counter = measured.pairing.counter_ticks + ticks
    true_ns = true_then_ns + (ticks - window_part * window / 2) * true_per_tick
    found = bounds(update, counter)
    assert found.earliest_ns <= true_ns <= found.latest_ns


def test_period_and_its_bound() -> None:
    """P is the clock's own rate; R is 500 ppm of RAW's, their distance and the uncertainty, rounded up."""
    rate = Rate(RAW.ns_per_tick * (1 - 40 * PPM), Fraction(3, 10**9))
    update = time_update(reading(), rate, RAW, assumed_ns=0)
    period = fixed_point_period(rate.ns_per_tick.numerator, rate.ns_per_tick.denominator)
    assert (update.counter_period_frac_sec, update.counter_period_shift) == period
    unit_ns = Fraction(NS, 2 ** (64 + period.shift))
    expected = RAW.ns_per_tick * 500 * PPM + RAW.ns_per_tick * 40 * PPM + rate.error
    assert update.counter_period_maxerror_rate_frac_sec == math.ceil(expected / unit_ns) + 1


def test_rate_beyond_the_abi_has_no_bound() -> None:
    """An uncertainty of more than a whole period does not fit its field: it is no bound, and no error either."""
    update = time_update(reading(), Rate(Fraction(1, 2), Fraction(1)), RAW, assumed_ns=0)
    assert update.counter_period_maxerror_rate_frac_sec is None
    with pytest.raises(ClockUnboundedError, match="counter_period_maxerror"):
        bounds(update, 1000)


def test_update_in_tai() -> None:
    """Where the kernel knows the TAI offset the segment is in TAI, with the offset that leads to UTC."""
    update = time_update(reading(state=ClockState.OOP), RAW, RAW, assumed_ns=5)
    assert (update.counter_id, update.time_type, update.tai_offset_sec) == (COUNTER_ID, TimeType.TAI, -37)
    assert (update.time_sec, update.time_frac_sec) == (1_790_000_037, 0)
    assert (update.clock_status, update.leap_indicator) == (ClockStatus.SYNCHRONIZED, LeapIndicator.POS)
    assert update.counter_value == 1000


def test_update_in_utc() -> None:
    """Where it does not, in UTC, without an offset."""
    update = time_update(reading(tai_offset_s=0, realtime_ns=3 * NS + 1), RAW, RAW, assumed_ns=None)
    assert (update.time_type, update.tai_offset_sec, update.leap_indicator) == (
        TimeType.UTC,
        None,
        LeapIndicator.NONE,
    )
    assert (update.time_sec, update.time_frac_sec) == (3, 2**64 // NS)
    assert "time_maxerror_nanosec" in update.model_fields_set
    assert update.time_maxerror_nanosec is None


@pytest.mark.parametrize(
    ("setting", "chronyd_runs", "may_be_zero", "may_be_nonsense", "loop", "assumed"),
    [
        (0, True, True, True, False, 0),
        (7, False, False, False, True, 7),
        (None, True, True, False, False, 10 * MS),
        (None, True, False, True, False, None),
        (None, False, False, True, True, None),
        (None, False, True, False, True, None),
        (None, False, True, False, False, None),
        (None, False, False, False, True, 0),
        (None, False, False, False, False, 10 * MS),
    ],
)
def test_assumed_error(
    setting: int | None,
    chronyd_runs: bool,
    may_be_zero: bool,
    may_be_nonsense: bool,
    loop: bool,
    assumed: int | None,
) -> None:
    """The setting counts; else 10 ms for what slews the clock unseen, none for the kernel's own loop, and no
    assumption makes a bound of a written zero, nor of nonsense."""
    state = timex(status=SYNCHRONIZED if loop else ClockStatusBits.NANO)
    found = assumed_error_ns(
        setting, state, may_be_zero=may_be_zero, may_be_nonsense=may_be_nonsense, chronyd_runs=chronyd_runs
    )
    assert found == assumed


@pytest.mark.parametrize("esterror_ns", [5 * MS, 0])
def test_bound_is_no_less_than_the_estimated_error(esterror_ns: int) -> None:
    """A daemon that writes a smaller maxerror than esterror has told no bound by that: the larger one counts."""
    update = time_update(reading(maxerror_ns=50 * US, esterror_ns=esterror_ns), RAW, RAW, assumed_ns=0)
    assert update.time_maxerror_nanosec is not None
    assert update.time_esterror_nanosec is not None
    assert update.time_maxerror_nanosec >= max(550 * US, update.time_esterror_nanosec)
    assert update.time_maxerror_nanosec < max(550 * US, update.time_esterror_nanosec) + 10


@pytest.mark.parametrize(
    ("changes", "has_bound", "has_estimate"),
    [
        ({"maxerror_ns": None}, True, True),
        ({"esterror_ns": None}, True, False),
        ({"offset_ns": None}, False, False),
        ({"frequency_ppb": None}, True, True),
    ],
)
def test_nothing_is_made_of_what_is_not_known(
    changes: dict[str, Any], has_bound: bool, has_estimate: bool
) -> None:
    """The time is told all the same, with the errors that can be; for maxerror it is the setting that stands."""
    update = time_update(reading(**changes), RAW, RAW, assumed_ns=7 * MS)
    assert update.clock_status == ClockStatus.SYNCHRONIZED
    assert (update.time_maxerror_nanosec is not None, update.time_esterror_nanosec is not None) == (
        has_bound,
        has_estimate,
    )
    if "maxerror_ns" in changes:
        assert update.time_maxerror_nanosec is not None
        assert 7500 * US < update.time_maxerror_nanosec < 7501 * US


# The rate


def test_first_rate_where_the_correction_is_not_known() -> None:
    """Any that the kernel can make is in its error: a tenth, and 500 ppm."""
    rate = Steering().rate(reading(frequency_ppb=None), RAW)
    assert rate == (RAW.ns_per_tick, RAW.ns_per_tick * Fraction(1005, 10_000))


def test_first_rate_is_raws_with_the_kernels_correction() -> None:
    """A clock that the kernel makes run 100 ppm faster takes more nanoseconds a tick; each is 1 ppb uncertain."""
    raw = Rate(Fraction(1, 2), Fraction(1, 10**8))
    rate = Steering().rate(reading(frequency_ppb=100_000), raw)
    assert rate.ns_per_tick == Fraction(10001, 20000)
    assert rate.error == raw.error * Fraction(10001, 10000) + Fraction(1, 2 * NS)


@pytest.mark.parametrize("first", [0, 2**64 - 7 * NS])
def test_later_rates_are_the_clocks_own(first: int) -> None:
    """From the second reading on it is the clock's own slope, whatever the kernel says of frequency.

    So it is where the counter, which is modulo 2**64, begins again in between.
    """
    steering = Steering()
    for second in range(20):
        utc_ns = 1_790_000_000 * NS + second * (NS + 50_000)
        counter = (first + second * 2 * NS) % 2**64
        rate = steering.rate(reading(counter, realtime_ns=utc_ns, frequency_ppb=-7000), RAW)
        expected = Fraction(1, 2) * (1 - 7 * PPM if second == 0 else 1 + 50 * PPM)
        assert rate.ns_per_tick == expected
    assert rate.error < 10 * PPM / 1000


@pytest.mark.parametrize(
    "changes",
    [
        {"realtime_ns": 1_790_000_001 * NS + NS // 5},
        {"realtime_ns": 1_790_000_001 * NS - NS // 5},
        {"realtime_ns": 1_790_000_001 * NS, "state": ClockState.OOP},
        {"realtime_ns": 1_790_000_001 * NS, "tai_offset_s": 38},
        {"realtime_ns": 1_790_000_001 * NS, "tai_offset_s": 0},
        {"realtime_ns": 1_790_000_001 * NS, "counter": 1000},
    ],
    ids=["stepped on", "stepped back", "leap", "TAI offset", "timescale", "same counter"],
)
def test_clock_that_jumped_begins_anew(changes: dict[str, Any]) -> None:
    """A step or a leap is no rate: the first reading after it has RAW's again."""
    steering = Steering()
    steering.rate(reading(1000), RAW)
    after = reading(**{"counter": 1000 + 2 * NS, **changes})
    assert steering.rate(after, RAW) == Steering().rate(after, RAW)


def test_slewed_clock_goes_on() -> None:
    """A clock that chronyd slews as fast as it may was not stepped: its slope is its rate."""
    steering = Steering()
    steering.rate(reading(1000), RAW)
    after = reading(1000 + 2 * NS, realtime_ns=1_790_000_001 * NS + 83_333_000)
    assert steering.rate(after, RAW).ns_per_tick == Fraction(1_083_333, 2_000_000)


def test_readings_too_close_to_tell_fall_back_on_raw() -> None:
    """Two readings whose windows overlap have no slope."""
    steering = Steering()
    steering.rate(reading(1000, window=100), RAW)
    after = reading(1010, realtime_ns=1_790_000_000 * NS + 5, window=100)
    assert steering.rate(after, RAW).ns_per_tick == Fraction(1, 2)


# One reading


@pytest.mark.parametrize(
    ("after", "clock_off_ns", "consistent"),
    [
        ({}, 0, True),
        ({"realtime_ns": 1_790_000_000 * NS + 500}, 400, True),
        ({"maxerror_ns": 0, "offset_ns": 5}, 0, True),
        ({"status": SYNCHRONIZED | ClockStatusBits.UNSYNC}, 0, False),
        ({"state": ClockState.OOP}, 0, False),
        ({"tai_offset_s": 38}, 0, False),
        ({"realtime_ns": None}, 0, False),
        ({}, NS, False),
        ({}, -NS, False),
        ({}, -1, False),
    ],
)
def test_reading_is_of_one_state(after: dict[str, Any], clock_off_ns: int, consistent: bool) -> None:
    """State, status and TAI offset stayed as they were, and the clock is where the kernel says it is."""
    before = timex()
    clock_ns = realtime_of(before) + 37 * NS + clock_off_ns
    measured = Reading(before, Pairing(0, clock_ns, 0), before._replace(**after))
    assert measured.is_consistent is consistent


# What the daemon wrote


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


# Leap seconds, played through


class PlayedTime:
    """CLOCK_REALTIME of a kernel that makes a leap at the year's end, by a counter of 2 GHz, 0 at 20 s before.

    Written from ``kernel/time/ntp.c``: an inserted second repeats 23:59:59 (TIME_OOP), a deleted one skips it;
    adjtimex is right at once, the clocks *late_ns* later.
    """

    def __init__(self, *, insert: bool, tai: int, late_ns: int) -> None:
        self.insert = insert
        self.tai = tai
        self.late_ns = late_ns
        self.leap_at_ns = (NEW_YEAR_S if insert else NEW_YEAR_S - 1) * NS

    def unleaped_ns(self, counter: int) -> int:
        return (NEW_YEAR_S - 20) * NS + counter // 2

    def leapt(self, at_ns: int) -> int:
        return 0 if at_ns < self.leap_at_ns else 1 if self.insert else -1

    def true_utc_ns(self, counter: int) -> int:
        unleaped_ns = self.unleaped_ns(counter)
        return unleaped_ns - self.leapt(unleaped_ns) * NS

    def timex(self, counter: int) -> Timex:
        unleaped_ns = self.unleaped_ns(counter)
        leapt = self.leapt(unleaped_ns)
        state = ClockState.INS if self.insert else ClockState.DEL
        if leapt:
            within = self.insert and unleaped_ns < self.leap_at_ns + NS
            state = ClockState.OOP if within else ClockState.WAIT
        return timex(
            state=state,
            status=SYNCHRONIZED | (ClockStatusBits.INS if self.insert else ClockStatusBits.DEL),
            tai_offset_s=self.tai + leapt,
            realtime_ns=unleaped_ns - leapt * NS,
        )

    def reading(self, counter: int) -> Reading:
        state = self.timex(counter)
        clock_ns = self.unleaped_ns(counter)
        if self.tai:
            clock_ns += self.tai * NS
        else:
            clock_ns -= self.leapt(clock_ns - self.late_ns) * NS
        return Reading(state, Pairing(counter, clock_ns, 0), state)


@pytest.mark.parametrize("tai", [37, 0], ids=["TAI", "UTC"])
@pytest.mark.parametrize("insert", [True, False], ids=["inserted", "deleted"])
@pytest.mark.parametrize("every_ms", [1000, 370, 7])
def test_true_time_is_inside_throughout_a_leap_second(insert: bool, tai: int, every_ms: int) -> None:
    """Before, in and after a leap second, at every moment until the next body, true UTC is in the interval."""
    played = PlayedTime(insert=insert, tai=tai, late_ns=8 * MS)
    steering = Steering()
    told: set[LeapIndicator | int | None] = set()
    update: BodyUpdate | None = None
    polls = 0
    for moment_ms in range(3 if every_ms == 7 else 0, 25_000, 7):
        if moment_ms < 17_000:
            continue
        counter = 2 * MS * moment_ms
        if moment_ms - 17_000 >= polls * every_ms:
            measured = played.reading(counter)
            if measured.is_consistent:
                polls += 1
                update = time_update(measured, steering.rate(measured, RAW), RAW, assumed_ns=0)
                told.add(update.leap_indicator)
        if update is not None:
            found, true_ns = bounds(update, counter), played.true_utc_ns(counter)
            assert found.earliest_ns <= true_ns <= found.latest_ns, (moment_ms, update.leap_indicator)
    during = {LeapIndicator.PRE_POS, LeapIndicator.POS, LeapIndicator.POST_POS}
    assert told == (during if insert else {LeapIndicator.PRE_NEG, LeapIndicator.POST_NEG})


# The loop


class PlayedMachine(Machine):
    """This machine, with a kernel state of the test's; a second goes by with each poll."""

    def __init__(self, **changes: Any) -> None:
        self.state = timex(**changes)
        self.later: list[dict[str, Any]] = []
        """Changes that come between the two looks of one reading, the first of them at the next reading."""
        self.polls = 0
        self.unfit: str | None = None
        self.chronyd = False
        self.refused = False

    def play(self, **changes: Any) -> None:
        """Let the kernel's state be another."""
        self.state = self.state._replace(**changes)

    def counter_unfit_because(self) -> str | None:
        return self.unfit

    def timex(self) -> Timex:
        if self.refused:
            return super().timex()
        return self.state._replace(realtime_ns=time.time_ns())

    def pair(self, clock_id: int) -> Pairing:
        pairing = pair(time.CLOCK_REALTIME)
        if self.later:
            self.play(**self.later.pop(0))
        tai_ns = self.state.tai_offset_s * NS if clock_id == time.CLOCK_TAI else 0
        return pairing._replace(clock_ns=pairing.clock_ns + tai_ns)

    def monotonic_ns(self) -> int:
        self.polls += 1
        if self.state.maxerror_ns is not None:
            self.play(maxerror_ns=self.state.maxerror_ns + STEP)
        return self.polls * NS

    def chronyd_runs(self, proc: Path = Path("/proc")) -> bool:
        return self.chronyd


class Notes:
    """An ``Emit`` that takes notes, in an epoch of the test's."""

    def __init__(self) -> None:
        self.epoch = 0
        self.updates: list[BodyUpdate] = []
        self.epochs: list[int | None] = []

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        self.updates.append(update)
        self.epochs.append(epoch)

    @property
    def last(self) -> BodyUpdate:
        return self.updates[-1]


async def until(true: Callable[[], bool]) -> None:
    """Return once *true* is."""
    with anyio.fail_after(BOUND_S):
        while not true():
            await anyio.sleep(0.001)


@asynccontextmanager
async def running(machine: Machine, notes: Notes, **options: object) -> AsyncIterator[KernelSource]:
    """A source that polls *machine* as fast as it can."""
    source = KernelSource(KernelSettings.model_validate({"poll_interval": 0.002, **options}), machine=machine)
    async with run_again(source, notes):
        yield source


@asynccontextmanager
async def run_again(source: KernelSource, notes: Notes) -> AsyncIterator[None]:
    """*source*, running."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, notes)
        yield
        tasks.cancel_scope.cancel()


def contains_realtime(update: BodyUpdate) -> bool:
    """Whether *update*'s interval contains this machine's own clock."""
    now = pair(time.CLOCK_REALTIME)
    found = bounds(update, now.counter_ticks)
    return found.earliest_ns <= now.clock_ns <= found.latest_ns


@pytest.mark.anyio
async def test_source_tells_the_kernels_time() -> None:
    """From poll to poll it is the kernel's clock, within its bound; each update is of the epoch it began in."""
    machine, notes = PlayedMachine(), Notes()
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 5)
    assert set(notes.epochs) == {0}
    for update in notes.updates:
        assert update.clock_status == ClockStatus.SYNCHRONIZED
        assert contains_realtime(update)
    counters = [update.counter_value or 0 for update in notes.updates]
    assert counters == sorted(set(counters))
    assert notes.last.time_maxerror_nanosec is not None
    assert 2001 * US + STEP <= notes.last.time_maxerror_nanosec


@pytest.mark.anyio
@pytest.mark.parametrize("bit", [ClockStatusBits.UNSYNC, ClockStatusBits.CLOCKERR])
async def test_lost_synchronization_is_told_once(bit: ClockStatusBits) -> None:
    """UNKNOWN when it is lost, once, and the time again when it is back."""
    machine, notes = PlayedMachine(status=SYNCHRONIZED | bit), Notes()
    async with running(machine, notes):
        await until(lambda: machine.polls >= 5)
        assert notes.updates == [BodyUpdate(clock_status=ClockStatus.UNKNOWN)]
        machine.play(status=SYNCHRONIZED)
        await until(lambda: len(notes.updates) > 1)
        assert notes.last.clock_status == ClockStatus.SYNCHRONIZED
        machine.play(status=SYNCHRONIZED | bit)
        await until(lambda: notes.last.clock_status == ClockStatus.UNKNOWN)
        told, polls = len(notes.updates), machine.polls
        await until(lambda: machine.polls >= polls + 5)
        assert len(notes.updates) == told


@pytest.mark.anyio
async def test_zero_is_no_bound(caplog: pytest.LogCaptureFixture) -> None:
    """A daemon that writes 0 (systemd-timesyncd): the time without a bound, and one warning that helps."""
    machine, notes = PlayedMachine(maxerror_ns=0), Notes()
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 5)
    assert all(update.time_maxerror_nanosec is None for update in notes.updates)
    assert notes.last.time_esterror_nanosec is not None
    with pytest.raises(ClockUnboundedError, match="time_maxerror_nanosec"):
        bounds(notes.last, notes.last.counter_value or 0)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.name for record in warnings] == ["vmclock_async.kernel"]
    assert "source chrony" in warnings[0].message
    assert "kernel.assumed_error" in warnings[0].message


@pytest.mark.anyio
async def test_assumed_error_makes_a_bound_of_zero(caplog: pytest.LogCaptureFixture) -> None:
    """With the setting there is a bound, and nothing to warn of."""
    machine, notes = PlayedMachine(maxerror_ns=0), Notes()
    async with running(machine, notes, assumed_error="0.25"):
        await until(lambda: len(notes.updates) >= 2)
    assert notes.updates[0].time_maxerror_nanosec is not None
    assert 250 * MS + STEP < notes.updates[0].time_maxerror_nanosec < 252 * MS
    assert contains_realtime(notes.last)
    assert not caplog.records


@pytest.mark.anyio
async def test_chronyd_is_allowed_10_ms() -> None:
    """Where chronyd runs, its maxerror leaves out what it is still slewing."""
    machine, notes = PlayedMachine(), Notes()
    machine.chronyd = True
    async with running(machine, notes):
        await until(lambda: bool(notes.updates))
    assert notes.updates[0].time_maxerror_nanosec is not None
    assert 12_501 * US < notes.updates[0].time_maxerror_nanosec < 13_002 * US


@pytest.mark.anyio
async def test_state_that_changed_meanwhile_is_asked_again() -> None:
    """A pairing between two states of the kernel's clock is of neither: nothing of it is published."""
    machine, notes = PlayedMachine(), Notes()
    machine.later = [{"tai_offset_s": 38}, {"tai_offset_s": 37}, {"status": SYNCHRONIZED | ClockStatusBits.INS}]
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 3)
    assert not machine.later
    assert {(u.tai_offset_sec, u.leap_indicator) for u in notes.updates} == {(-37, LeapIndicator.PRE_POS)}


@pytest.mark.anyio
async def test_no_time_after_a_disruption_until_the_daemon_writes() -> None:
    """What maxerror says of the clock is from before the disruption, until it falls; a new run does not forget."""
    machine, notes = PlayedMachine(maxerror_ns=30 * MS + US), Notes()
    async with running(machine, notes) as source:
        await until(lambda: len(notes.updates) >= 2)
        notes.epoch = 1
        polls = machine.polls
        await until(lambda: machine.polls >= polls + 3)
        told = notes.epochs.count(0)
    async with run_again(source, notes):
        polls = machine.polls
        await until(lambda: machine.polls >= polls + 3)
        assert notes.epochs == [0] * told
        machine.play(maxerror_ns=8 * MS + US)
        await until(lambda: len(notes.epochs) > told)
    assert set(notes.epochs[told:]) == {1}
    assert contains_realtime(notes.last)


@pytest.mark.anyio
async def test_source_that_begins_after_a_disruption_waits_too() -> None:
    """A publisher's first epoch is 0: in any other, what the daemon wrote may be of before."""
    machine, notes = PlayedMachine(maxerror_ns=30 * MS + US), Notes()
    notes.epoch = 3
    async with running(machine, notes):
        await until(lambda: machine.polls >= 3)
        assert notes.updates == []
        machine.play(maxerror_ns=US)
        await until(lambda: bool(notes.updates))
    assert notes.epochs[0] == 3


@pytest.mark.anyio
async def test_unfit_counter_is_told_and_named() -> None:
    """No time in terms of such a counter: counter_id INVALID, once, and the reason as an error."""
    machine, notes = PlayedMachine(), Notes()
    machine.unfit = "the TSC does not keep its rate"
    source = KernelSource(KernelSettings(), machine=machine)
    with pytest.raises(SourceUnavailableError, match="kernel: the TSC does not keep its rate"):
        await source.run(notes)
    assert notes.updates == [BodyUpdate(counter_id=CounterId.INVALID)]
    with pytest.raises(SourceUnavailableError, match="the TSC does not keep its rate"):
        source.probe()


@pytest.mark.anyio
async def test_counter_that_became_unfit_is_told() -> None:
    """The kernel turned to another clocksource, which is a disruption: the counter's fitness is asked again."""
    machine, notes = PlayedMachine(), Notes()
    source = KernelSource(KernelSettings(poll_interval=0.002), machine=machine)

    async def lose_it() -> None:
        await until(lambda: bool(notes.updates))
        machine.unfit = "the kernel does not trust the TSC"
        notes.epoch = 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lose_it)
        with pytest.raises(SourceUnavailableError, match="does not trust"):
            await source.run(notes)
    assert notes.last == BodyUpdate(counter_id=CounterId.INVALID)


@fit
def test_probe_says_what_there_is() -> None:
    """For ``publish auto``, in a few words."""
    machine = PlayedMachine()
    source = KernelSource(KernelSettings(), machine=machine)
    assert isinstance(source, Probes)
    assert source.probe() == "the kernel's clock in TAI (offset -37 s), synchronized, maxerror 2.001 ms"
    machine.play(tai_offset_s=0)
    assert "UTC (no TAI offset known)" in source.probe()
    machine.play(maxerror_ns=None, nonsense="maxerror -450")
    assert source.probe().endswith("synchronized, without a bound (out of range: maxerror -450)")


@fit
@pytest.mark.parametrize(
    ("chronyd", "frequency_ppb", "seen", "remedy"),
    [
        (True, 12_500, "though chronyd runs", "add rtcsync, or use the source chrony"),
        (False, 12_500, "though its rate is corrected by 12.5 ppm", "if that is chronyd, add rtcsync"),
        (False, 0, "no daemon is seen", "start one"),
        (False, None, "no daemon is seen", "start one"),
    ],
)
@pytest.mark.anyio
async def test_unsynchronized_clock_says_what_is_seen(
    chronyd: bool, frequency_ppb: int | None, seen: str, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A chronyd without rtcsync keeps the clock and does not say so to the kernel: nobody is told that none does."""
    machine, notes = PlayedMachine(status=ClockStatusBits.UNSYNC, frequency_ppb=frequency_ppb), Notes()
    machine.chronyd = chronyd
    caplog.set_level(logging.INFO)
    async with running(machine, notes) as source:
        await until(lambda: bool(notes.updates))
        for said in (source.probe(), caplog.messages[-1]):
            assert "STA_UNSYNC" in said
            assert seen in said
            assert remedy in said


def test_chronyd_is_not_seen_where_there_is_no_proc(tmp_path: Path) -> None:
    """In a container or chroot without /proc: not known, and no error."""
    assert not Machine().chronyd_runs(tmp_path / "proc")


# Settings and chronyd


@pytest.mark.parametrize(
    ("given", "expected"), [(0.25, 250 * MS), ("0.25", 250 * MS), ("1e-10", 1), (Decimal("0"), 0), (None, None)]
)
def test_assumed_error_is_exact(given: object, expected: int | None) -> None:
    """Seconds as TOML or the command line has them, to nanoseconds, rounded up."""
    assert KernelSettings.model_validate({"assumed_error": given}).assumed_error_ns == expected


@pytest.mark.parametrize(
    "options",
    [
        {"poll_interval": 0},
        {"poll_interval": "inf"},
        {"poll_interval": "nan"},
        {"assumed_error": "-0.1"},
        {"assumed_error": "Infinity"},
        {"assumed_error": "NaN"},
        {"poll": 1},
    ],
)
def test_bad_settings_are_named(options: dict[str, object]) -> None:
    """Out of range or unknown: the option is named, and those there are."""
    with pytest.raises(SourceSettingsError, match=rf"kernel: {next(iter(options))}.*its options: poll_interval"):
        build_source("kernel", options)


def test_chronyd_is_found_by_name(tmp_path: Path) -> None:
    """One that is gone, not waited for, called otherwise or told to leave the clock alone (-x) does not count."""
    (tmp_path / "chronyd").symlink_to("/bin/sleep")
    process = subprocess.Popen([tmp_path / "chronyd", "60"])
    try:
        give_up = time.monotonic() + BOUND_S
        while not Machine().chronyd_runs():  # its arguments are there a moment after it has begun
            assert time.monotonic() < give_up
    finally:
        process.kill()
        process.wait()
    assert not Machine().chronyd_runs(tmp_path / "none")  # else a zero that timesyncd wrote would get a bound
    for name, comm in (("1", "systemd\n"), ("22", "chronyd-helper\n"), ("self", "chronyd\n")):
        (tmp_path / "proc" / name).mkdir(parents=True)
        (tmp_path / "proc" / name / "comm").write_text(comm)
    (tmp_path / "proc" / "333").mkdir()
    assert not Machine().chronyd_runs(tmp_path / "proc")
    (tmp_path / "proc" / "333" / "comm").write_text("chronyd\n")
    assert not Machine().chronyd_runs(tmp_path / "proc")
    for arguments, steers in (("", False), ("chronyd\0-dx\0", False), ("chronyd\0-F\0002\0", True)):
        (tmp_path / "proc" / "333" / "cmdline").write_text(arguments)
        assert Machine().chronyd_runs(tmp_path / "proc") == steers


# Whole processes under a played kernel

PUBLISH = """
import anyio, anyio.to_thread
from vmclock_async._cli import main
main(["publish", "no-such-source"])  # imports what the command needs
anyio.run(anyio.to_thread.run_sync, json.loads, "0")
from vmclock_async.sources import build_source
build_source("kernel", {}).probe()
become_nobody()
sys.exit(main(["publish", "kernel", "--segment", *sys.argv[1:]]))
"""
OPTIONS = ("--set", "kernel.poll_interval=0.02", "--set", "kernel.assumed_error=0.001")
"""The latter so that it does not matter whether a chronyd runs on the machine that runs the tests."""


@pytest.fixture
def publishing(
    start_script: Callable[..., subprocess.Popen[str]], played_clock: AdjtimexStandIn, segment_path: Path
) -> Callable[..., subprocess.Popen[str]]:
    """Starts the command, as nobody, under the played clock."""
    segment_path.parent.chmod(0o777)

    def start() -> subprocess.Popen[str]:
        return start_script(
            PUBLISH, segment_path, *OPTIONS, unprivileged=True, environment=played_clock.environment
        )

    return start


def wait_for(path: Path, matches: Callable[[Snapshot], bool]) -> Snapshot:
    """The first snapshot of the segment at *path* that *matches*."""
    deadline = time.monotonic() + BOUND_S
    last: object = None
    while time.monotonic() < deadline:
        try:
            with SegmentReader(path) as reader:
                last = snapshot = reader.snapshot()
        except Exception as exc:  # not there yet
            last = exc
        else:
            if matches(snapshot):
                return snapshot
        time.sleep(0.005)
    pytest.fail(f"no such snapshot in {BOUND_S} s; last was {last!r}")


def has_status(status: ClockStatus) -> Callable[[Snapshot], bool]:
    return lambda snapshot: snapshot.body.clock_status == status


def assert_contains_realtime(snapshot: Snapshot) -> None:
    now = pair(time.CLOCK_REALTIME)
    found = bounds_at(snapshot, now.counter_ticks, counter_id=COUNTER_ID)
    assert found.earliest_ns <= now.clock_ns <= found.latest_ns
    assert found.error_ns < 100 * MS


@fit
def test_command_publishes_tai_and_follows_the_kernel(
    publishing: Callable[..., subprocess.Popen[str]], played_clock: AdjtimexStandIn, segment_path: Path
) -> None:
    """As nobody: TAI with offset -37 around CLOCK_REALTIME, leap seconds ahead, synchronization lost and back."""
    publishing()
    snapshot = wait_for(segment_path, has_status(ClockStatus.SYNCHRONIZED))
    assert segment_path.stat().st_uid != 0 or os.geteuid() != 0
    assert (snapshot.time_type, snapshot.body.tai_offset_sec) == (TimeType.TAI, -37)
    assert snapshot.body.flags & Flags.TAI_OFFSET_VALID
    assert_contains_realtime(snapshot)

    played_clock.play(status=STA_PLL | STA_NANO | STA_INS)
    snapshot = wait_for(segment_path, lambda snapshot: snapshot.body.leap_indicator == LeapIndicator.PRE_POS)
    assert_contains_realtime(snapshot)
    played_clock.play(status=STA_PLL | STA_NANO | STA_DEL)
    wait_for(segment_path, lambda snapshot: snapshot.body.leap_indicator == LeapIndicator.PRE_NEG)

    for lost in (STA_UNSYNC, STA_CLOCKERR):
        played_clock.play(status=STA_PLL | STA_NANO | lost)
        wait_for(segment_path, has_status(ClockStatus.UNKNOWN))
        played_clock.play(status=STA_PLL | STA_NANO)
        assert_contains_realtime(wait_for(segment_path, has_status(ClockStatus.SYNCHRONIZED)))


@fit
def test_command_publishes_utc_with_what_is_being_slewed(
    publishing: Callable[..., subprocess.Popen[str]], played_clock: AdjtimexStandIn, segment_path: Path
) -> None:
    """Without a TAI offset in UTC; the offset counts in microseconds, or in nanoseconds with STA_NANO."""
    played_clock.play(tai=0, status=STA_PLL, offset=-7000)
    publishing()
    snapshot = wait_for(segment_path, has_status(ClockStatus.SYNCHRONIZED))
    assert snapshot.time_type == TimeType.UTC
    assert not snapshot.body.flags & Flags.TAI_OFFSET_VALID
    assert_contains_realtime(snapshot)
    assert 10_501_000 < snapshot.body.time_maxerror_nanosec < 11_000_000
    played_clock.play(status=STA_PLL | STA_NANO)
    wait_for(segment_path, lambda snapshot: 3_508_000 < snapshot.body.time_maxerror_nanosec < 4_000_000)


UNBOUNDED = """
import anyio, json, logging, sys
from pathlib import Path
from vmclock_async import Publisher
from vmclock_kernel import KernelSettings, KernelSource
from vmclock_kernel.machine import Machine

class WithoutChronyd(Machine):
    def chronyd_runs(self, proc=None):
        return False

logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s", level=logging.WARNING)
source = KernelSource(KernelSettings(poll_interval=0.02), machine=WithoutChronyd())
anyio.run(Publisher(sys.argv[1], {"kernel": source}).run)
"""


@fit
def test_timesyncds_zero_is_published_without_a_bound(
    start_script: Callable[..., subprocess.Popen[str]], played_clock: AdjtimexStandIn, segment_path: Path
) -> None:
    """maxerror 0 and esterror 0: the time with its estimated error alone, which now() refuses, and a warning; with
    what others write, a bound again."""
    played_clock.play(maxerror=0, esterror=0)
    process = start_script(UNBOUNDED, segment_path, environment=played_clock.environment)
    snapshot = wait_for(segment_path, has_status(ClockStatus.SYNCHRONIZED))
    assert snapshot.body.flags & Flags.TIME_ESTERROR_VALID
    assert not snapshot.body.flags & Flags.TIME_MAXERROR_VALID
    with pytest.raises(ClockUnboundedError, match="time_maxerror_nanosec is not valid"):
        assert_contains_realtime(snapshot)
    assert process.stdout is not None
    assert process.stdout.readline().startswith(
        "vmclock_async.kernel WARNING the daemon that keeps the clock writes"
    )
    # As chronyd's: without the kernel's own loop, what is being slewed is not told. A larger bound would take its
    # time: it agrees with what was promised before.
    played_clock.play(maxerror=1234, status=STA_NANO)
    wait_for(segment_path, lambda snapshot: 11_734_000 < snapshot.body.time_maxerror_nanosec < 12_000_000)
    played_clock.play(status=STA_PLL | STA_NANO)
    wait_for(segment_path, lambda snapshot: 1_734_000 < snapshot.body.time_maxerror_nanosec < 2_000_000)


@fit
def test_nonsense_of_the_kernel_ends_nothing(
    start_script: Callable[..., subprocess.Popen[str]], played_clock: AdjtimexStandIn, segment_path: Path
) -> None:
    """Whatever somebody wrote into the kernel's clock state, the publisher goes on with what is known, and the log
    names the rest."""
    process = start_script(UNBOUNDED, segment_path, environment=played_clock.environment)
    bound, estimate = Flags.TIME_MAXERROR_VALID, Flags.TIME_ESTERROR_VALID
    usual: dict[str, int] = {"maxerror": 2001, "esterror": 300, "offset": 0, "freq": 0, "tick": 10_000}
    has_bound = {"esterror", "freq", "tick"}
    for played in (
        {"freq": 2**62},
        {"tick": -7},
        {"esterror": -1},
        {"esterror": 2**62},
        {"offset": 2**62},
        {"maxerror": -450},
        {"maxerror": -600},
        {"maxerror": 2**62},
    ):
        played_clock.play(**{**usual, **played})
        (name,) = played
        flags = (bound if name in has_bound else 0) | (0 if name in ("esterror", "offset") else estimate)
        counter = pair(time.CLOCK_MONOTONIC).counter_ticks
        wait_for(
            segment_path,
            lambda snapshot: (
                snapshot.body.counter_value > counter  # noqa: B023 - not after this turn
                and snapshot.body.flags & (bound | estimate) == flags  # noqa: B023
            ),
        )
    assert process.stdout is not None
    assert "out of range (offset 4611686018427387904)" in process.stdout.readline()
    assert process.poll() is None


@fit
def test_tai_offset_out_of_range_is_none(
    start_script: Callable[..., subprocess.Popen[str]], played_clock: AdjtimexStandIn, segment_path: Path
) -> None:
    """A kernel that was told 40,000 s knows no TAI: the time is in UTC."""
    played_clock.play(tai=40_000)
    start_script(UNBOUNDED, segment_path, environment=played_clock.environment)
    snapshot = wait_for(segment_path, has_status(ClockStatus.SYNCHRONIZED))
    assert snapshot.time_type == TimeType.UTC
    assert_contains_realtime(snapshot)


CONTRADICTED = """
import anyio
from vmclock_async import SourceError
from vmclock_kernel import KernelSettings, KernelSource

class Emit:
    epoch = 0

try:
    anyio.run(KernelSource(KernelSettings()).run, Emit())
except SourceError as error:
    print(type(error).__name__, error)
"""


@fit
def test_kernel_that_contradicts_itself_is_unavailable(
    run_script: Callable[..., str], played_clock: AdjtimexStandIn
) -> None:
    """A time that adjtimex cannot mean: an error that shows both clocks, instead of silence for ever."""
    played_clock.play_realtime(-500 * NS)
    said = run_script(CONTRADICTED, environment=played_clock.environment)
    assert said.startswith("SourceUnavailableError kernel: adjtimex and CLOCK_REALTIME contradict each other")
    assert "adjtimex says time -49" in said or "adjtimex says time -500" in said


REFUSED = """
import anyio
from vmclock_async import SourceError
from vmclock_kernel import KernelSettings, KernelSource

class Emit:
    epoch = 0

source = KernelSource(KernelSettings())
for use in (source.probe, lambda: anyio.run(source.run, Emit())):
    try:
        use()
    except SourceError as error:
        print(type(error).__name__, error)
"""


@fit
def test_refused_adjtimex_is_named(run_script: Callable[..., str], played_clock: AdjtimexStandIn) -> None:
    """A seccomp filter that forbids the call: unavailable for now, with what to do."""
    played_clock.play(refused=errno.EPERM)
    lines = run_script(REFUSED, environment=played_clock.environment).splitlines()
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("SourceUnavailableError kernel: [Errno 1] adjtimex: Operation not permitted")
        assert line.endswith("allow the system call adjtimex there, or use the source chrony")


LEAP = """
import json, sys, anyio
from vmclock_async import CounterId, LeapIndicator, TimeType, VMClockBody
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import COUNTER_ID, adjtimex, counter_ticks
from vmclock_kernel import KernelSettings, KernelSource

class Segment:
    epoch = 0
    contents = None
    async def __call__(self, update, *, epoch=None):
        await anyio.lowlevel.checkpoint()
        before = self.contents or Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC)
        self.contents = before.updated(update)

async def main(until_ns):
    segment, told, looks, outside, past, back = Segment(), [], 0, [], 0, []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(KernelSource(KernelSettings(poll_interval=0.15, assumed_error=0)).run, segment)
        while adjtimex().realtime_ns < until_ns:
            await anyio.sleep(0.002)
            if segment.contents is None:
                continue
            before, counter, after = adjtimex(), counter_ticks(), adjtimex()
            if before.state != after.state:
                continue
            found = bounds_at(segment.contents, counter, counter_id=COUNTER_ID)
            looks += 1
            name = LeapIndicator(segment.contents.body.leap_indicator).name
            if name not in told:
                told.append(name)
            if not (found.earliest_ns <= after.realtime_ns and before.realtime_ns <= found.latest_ns):
                outside.append([name, found.earliest_ns, before.realtime_ns, found.latest_ns])
            if found.latest_ns < past:
                back.append([name, found.latest_ns, past])
            past = max(past, found.earliest_ns)
        tasks.cancel_scope.cancel()
    print(json.dumps({"time_type": TimeType(segment.contents.time_type).name, "told": told, "looks": looks,
        "outside": outside[:3], "back": back[:3], "tai_offset_sec": segment.contents.body.tai_offset_sec}))

print("ready", flush=True)
sys.stdin.readline()
anyio.run(main, int(sys.argv[1]))
"""


@fit
def test_real_readings_contain_true_time_across_a_leap_second(
    start_script: Callable[..., subprocess.Popen[str]], adjtimex_library: Path, tmp_path: Path
) -> None:
    """The same with real polls of a real clock, in TAI and in UTC, for a second inserted and one deleted.

    And no reading is before an earlier one, though UTC itself goes back.
    """
    processes: dict[tuple[int, int], subprocess.Popen[str]] = {}
    clocks: dict[tuple[int, int], AdjtimexStandIn] = {}
    leap_s = {STA_INS: NEW_YEAR_S, STA_DEL: NEW_YEAR_S - 1}
    for bit, tai in itertools.product(leap_s, (37, 0)):
        clock = clocks[bit, tai] = AdjtimexStandIn(adjtimex_library, tmp_path / f"clock-{bit}-{tai}")
        clock.play(
            status=STA_PLL | STA_NANO | bit, tai=tai, maxerror=1, late_ns=10 * MS, leap_at_ns=leap_s[bit] * NS
        )
        processes[bit, tai] = start_script(LEAP, NEW_YEAR_S * NS + NS // 3, environment=clock.environment)
    for (bit, tai), process in processes.items():
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"  # not before: to start may take longer than is played
        clocks[bit, tai].play_realtime(leap_s[bit] * NS - 5 * NS // 2)
        process.stdin.write("\n")
        process.stdin.flush()
    for (bit, tai), process in processes.items():
        output, _ = process.communicate(timeout=BOUND_S)
        found = json.loads(output)
        told = ["PRE_POS", "POS", "POST_POS"] if bit == STA_INS else ["PRE_NEG", "POST_NEG"]
        assert (found["outside"], found["back"], found["told"]) == ([], [], told)
        assert found["looks"] > 20
        assert found["time_type"] == ("TAI" if tai else "UTC")
        if tai:
            assert found["tai_offset_sec"] == (-38 if bit == STA_INS else -36)
    for clock in clocks.values():
        clock.close()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they hold on every loop alike, and take seconds
async def test_promises_are_kept() -> None:
    """Every promise of ``Source``, with a daemon that keeps the clock."""
    settings = KernelSettings(poll_interval=0.005)
    updates = await check_source(lambda: KernelSource(settings, machine=PlayedMachine()))
    assert len(updates) > 1
    assert all(update.measures for update in updates)
