"""The kernel source's figures by hand, and leap seconds played through."""

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, strategies as st

from kit.kernel_readings import MS, NEW_YEAR_S, NS, PPM, RAW, STEP, SYNCHRONIZED, US, reading, realtime_of, timex
from kit.notes import bounds
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    ClockUnboundedError,
    LeapIndicator,
    TimeType,
)
from vmclock_async.timebase import (
    COUNTER_ID,
    ClockState,
    ClockStatusBits,
    Pairing,
    Rate,
    Steering,
    Timex,
    fixed_point_period,
)
from vmclock_kernel.measure import (
    Reading,
    assumed_error_ns,
    drift,
    explanation,
    max_error_ns,
    time_update,
)

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


def test_terms_are_explained_one_by_one() -> None:
    """Each of them by its name; their sum is the bound that is published, raised to the estimated error too."""
    for esterror_us, raised_ns in ((300, 0), (4000, 4_000_000 - 3_001_902)):
        measured = reading(7, window=2001, offset_ns=-31_000, esterror_ns=esterror_us * US)
        explained = explanation(measured, RAW, RAW, assumed_ns=500_900)
        assert explained is not None
        assert explained.counter_value == 7
        terms = {term.name: term.ns for term in explained.terms}
        assert terms.pop("estimated error", 0) == raised_ns
        assert terms == {
            "maxerror": 2001 * US,
            "maxerror's step": STEP,
            "offset": 31_000,
            "pairing": 502,  # 1002 ticks of half a ns and 500 ppm
            "assumed error": 500_900,
            "clock": 2,
        }
        update = time_update(measured, RAW, RAW, assumed_ns=500_900)
        assert update.time_maxerror_nanosec == sum(terms.values()) + raised_ns
    assert explanation(reading(offset_ns=None), RAW, RAW, assumed_ns=0) is None
    assert explanation(reading(), RAW, RAW, assumed_ns=None) is None


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


@pytest.mark.long
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


@pytest.mark.long
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
