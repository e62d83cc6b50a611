"""Periods, rates and their errors against exact fractions; the counter, the kernel's clocks and its discipline."""

import json
import platform
import re
import subprocess
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from kit.adjtimex import STA_CLOCKERR, STA_INS, STA_NANO, STA_PLL, AdjtimexStandIn
from vmclock_async import LeapIndicator, TimeType, _core
from vmclock_async._continuity import Between, Continuity, RecentClocksource, asleep, tsc_unfit_because
from vmclock_async.timebase import (
    COUNTER_ID,
    Calibration,
    ClockState,
    ClockStatusBits,
    Pairing,
    Slope,
    Timex,
    _rate_between,
    adjtimex,
    counter_ticks,
    counter_unfit_because,
    fixed_point_period,
    leap_indicator,
    pair,
    timescale,
)

NS = 10**9
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


@pytest.mark.parametrize("windows", [(100, 300), (300, 100)])
def test_both_windows_count_in_a_rate(windows: tuple[int, int]) -> None:
    """Half of each and a tick of rounding at each end, and each clock's last nanosecond, over what is left."""
    rate = _rate_between(Pairing(0, 0, windows[0]), Pairing(2 * 10**9, 10**9, windows[1]))
    assert rate.ns_per_tick == Fraction(1, 2)
    assert rate.error == (Fraction(202, 2) + 2) / (2 * 10**9 - 202)


def test_calibration_is_the_rate_against_raw() -> None:
    """It lies within its own error of the rate over a baseline around it, and grows better with time."""
    calibration = Calibration()
    first = pair(time.CLOCK_MONOTONIC_RAW)
    deadline = time.monotonic_ns() + 5_000_000
    early = calibration.rate()
    while time.monotonic_ns() < deadline:
        pass
    late = calibration.rate()
    last = pair(time.CLOCK_MONOTONIC_RAW)
    reference = Fraction(last.clock_ns - first.clock_ns, last.counter_ticks - first.counter_ticks)
    assert abs(early.ns_per_tick - late.ns_per_tick) <= early.error + late.error
    assert abs(late.ns_per_tick - reference) <= 4 * late.error
    assert late.error < early.error


def test_rate_as_the_abi_has_it() -> None:
    """The period is rounded down, an error up, and by one more for that; an error that does not fit is none."""
    rate = slope_of([Pairing(0, 0, 0), Pairing(3 * 10**6, 10**6, 0)]).rate()
    period = rate.period()
    unit_ns = Fraction(10**9, 2 ** (64 + period.shift))
    assert 0 <= rate.ns_per_tick - period.frac_sec * unit_ns < unit_ns
    assert period.error_frac_sec(Fraction(0)) == 1
    assert period.error_frac_sec(unit_ns * 5) == 6
    assert period.error_frac_sec(unit_ns * 5 + unit_ns / 9) == 7
    assert period.error_frac_sec(rate.ns_per_tick * 2) is None


def slope_of(samples: list[Pairing]) -> Slope:
    """The slope through *samples*."""
    slope = Slope()
    for sample in samples:
        slope.add(sample)
    return slope


@pytest.mark.parametrize("to_the_end", [5 * 10**5, 15 * 10**5, 10**6])
def test_slope_goes_on_past_the_counters_end(to_the_end: int) -> None:
    """Counter values are modulo 2**64: the slope across their end is that of any other place."""
    rates = [
        slope_of([Pairing((first + i * 10**6) % 2**64, i * 500_000 + i % 2, 10) for i in range(4)]).rate()
        for first in (10**6, 2**64 - to_the_end)
    ]
    assert rates[0] == rates[1]


TRUE_RATES = st.fractions(Fraction(1, 20), 20, max_denominator=10**6)


@pytest.mark.long
@given(
    true=TRUE_RATES,
    origin_ns=st.fractions(0, 10**19, max_denominator=1000),
    steps=st.lists(
        st.tuples(st.integers(1, 10**9), st.integers(0, 10**5), st.fractions(0, 1)), min_size=2, max_size=20
    ),
)
def test_slope_is_off_by_no_more_than_its_error(
    true: Fraction, origin_ns: Fraction, steps: list[tuple[int, int, Fraction]]
) -> None:
    """Wherever in its window each clock was read: the true rate is within the error, or it says it cannot tell."""
    slope = Slope()
    counter = 2**62
    for gap, window, part in steps:
        counter += gap + window
        # Read between two reads of the counter, each of which shows whole ticks.
        read_at = counter + part * (window + 1)
        slope.add(Pairing(counter + window // 2, int(origin_ns + read_at * true), window))
        counter += window
    try:
        rate = slope.rate()
    except ValueError:
        return
    assert abs(rate.ns_per_tick - true) <= rate.error


def test_slope_is_least_squares_over_the_last_sixteen() -> None:
    """The line of least squares, with what the farthest sample leaves open; what came before has left."""
    samples = [Pairing(0, 5 * 10**9, 0)] + [Pairing(n * 2000, n * 1000 + n % 2, 0) for n in range(100, 116)]
    rate = slope_of(samples).rate()
    assert len(slope_of(samples)) == 16
    x = [Fraction(sample.counter_ticks) for sample in samples[1:]]
    y = [Fraction(sample.clock_ns) for sample in samples[1:]]
    none = Fraction(0)
    mean_x, mean_y = sum(x, none) / 16, sum(y, none) / 16
    points = [(a - mean_x, b - mean_y) for a, b in zip(x, y, strict=True)]
    expected = sum((a * b for a, b in points), none) / sum((a * a for a, _ in points), none)
    farthest = max(abs(b - expected * a) for a, b in points)
    assert rate.ns_per_tick == expected
    assert rate.error == (2 * expected + 4 * farthest + 2) / (30_000 - 2)


def test_jump_widens_the_error_until_it_has_left() -> None:
    """A millisecond all at once is no rate: while it is among the samples, the error covers the true rate."""
    slope = Slope()
    true = Fraction(1, 2)
    errors = []
    for second in range(40):
        jumped = 10**6 if second >= 10 else 0
        slope.add(Pairing(second * 2 * 10**9, second * 10**9 + jumped, 100))
        if second:
            rate = slope.rate()
            assert abs(rate.ns_per_tick - true) <= rate.error
            errors.append(rate.error / true)
    assert errors[8] < Fraction(1, 10**7)
    assert all(error > Fraction(1, 10**6) for error in errors[9:24])
    assert errors[25] < Fraction(1, 10**7)


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [Pairing(1, 1, 0)],
        [Pairing(1000, 1, 0), Pairing(1000, 2, 0)],
        [Pairing(1000, 2, 0), Pairing(2000, 1, 0)],
        [Pairing(1000, 1, 300), Pairing(1300, 2, 300)],
    ],
    ids=["none", "one", "no ticks", "backwards", "within the windows"],
)
def test_slope_of_too_little(samples: list[Pairing]) -> None:
    """No rate where there is none to be told; the error says why."""
    with pytest.raises(ValueError, match=r"two measurements|go forward|more ticks"):
        slope_of(samples).rate()


def timex(**changes: int) -> Timex:
    """A synchronized kernel that knows TAI."""
    values: dict[str, Any] = {
        "state": 0,
        "offset_ns": 0,
        "frequency_ppb": 0,
        "maxerror_ns": 0,
        "esterror_ns": 0,
        "realtime_ns": 0,
    }
    status = ClockStatusBits(changes.pop("status", 0))
    return Timex(**{"tai_offset_s": 37, **values, **changes}, status=status)


@pytest.mark.parametrize(
    ("tai_offset_s", "expected"),
    [
        (37, (time.CLOCK_TAI, TimeType.TAI, -37)),
        (10, (time.CLOCK_TAI, TimeType.TAI, -10)),
        (0, (time.CLOCK_REALTIME, TimeType.UTC, None)),
        (1, (time.CLOCK_REALTIME, TimeType.UTC, None)),
        (-1, (time.CLOCK_REALTIME, TimeType.UTC, None)),
    ],
)
def test_timescale_is_tai_where_its_offset_is_known(
    tai_offset_s: int, expected: tuple[int, TimeType, int | None]
) -> None:
    """TAI with the offset to UTC; UTC where the kernel has none, which a leap second makes 1 or -1."""
    assert timescale(timex(tai_offset_s=tai_offset_s)) == expected


INS, DEL, UNSYNC = ClockStatusBits.INS, ClockStatusBits.DEL, ClockStatusBits.UNSYNC


@pytest.mark.parametrize(
    ("state", "status", "expected"),
    [
        (ClockState.OK, 0, LeapIndicator.NONE),
        (ClockState.OK, INS, LeapIndicator.PRE_POS),
        (ClockState.INS, INS, LeapIndicator.PRE_POS),
        (ClockState.INS, 0, LeapIndicator.NONE),
        (ClockState.DEL, DEL, LeapIndicator.PRE_NEG),
        (ClockState.OOP, INS, LeapIndicator.POS),
        (ClockState.WAIT, INS, LeapIndicator.POST_POS),
        (ClockState.WAIT, DEL, LeapIndicator.POST_NEG),
        (ClockState.WAIT, 0, LeapIndicator.POST_POS),
        (ClockState.ERROR, INS | UNSYNC, LeapIndicator.PRE_POS),
        (9, 0, LeapIndicator.NONE),
    ],
)
def test_leap_indicator(state: int, status: int, expected: LeapIndicator) -> None:
    """The kernel's state, and what it was told to do at the end of the day."""
    assert leap_indicator(timex(state=state, status=status)) == expected


def test_adjtimex_reads_what_the_kernel_wrote(
    run_script: Callable[..., str], played_clock: AdjtimexStandIn
) -> None:
    """Each field of the C library's own struct timex arrives, in nanoseconds; a tick of 10001 us is 100 ppm."""
    realtime_ns = 1_800_000_000_123_456_789
    played_clock.play_realtime(realtime_ns, rate_ppb=-(10**9))  # stands still
    values = {"offset": -5, "maxerror": 7, "esterror": 8, "tick": 10_001, "tai": 36, "leap_at_ns": 2 * realtime_ns}

    def seen(status: int, freq: int) -> object:
        played_clock.play(status=status, freq=freq, **values)
        return json.loads(run_script("adjtimex_once", environment=played_clock.environment))

    expected = {
        "state": ClockState.INS,
        "status": STA_NANO | STA_INS | STA_PLL,
        "offset_ns": -5,
        "frequency_ppb": 100_000 + 1500,
        "maxerror_ns": 7000,
        "esterror_ns": 8000,
        "tai_offset_s": 36,
        "realtime_ns": realtime_ns,
        "nonsense": "",
        "unsynchronized": False,
    }
    assert seen(STA_NANO | STA_INS | STA_PLL, 3 << 15) == expected
    assert seen(STA_CLOCKERR | 0x0100, -1) == {
        **expected,
        "state": ClockState.ERROR,
        "status": STA_CLOCKERR | 0x0100,
        "offset_ns": -5000,
        "frequency_ppb": 100_000 - 1,
        "realtime_ns": realtime_ns // 1000 * 1000,
        "unsynchronized": True,
    }


IN_RANGE: list[tuple[dict[str, int], dict[str, object]]] = [
    ({"maxerror": 16_000_000}, {"maxerror_ns": 16 * NS}),
    ({"maxerror": 0}, {"maxerror_ns": 0}),
    ({"esterror": 16_000_000}, {"esterror_ns": 16 * NS}),
    ({"tai": 100}, {"tai_offset_s": 100}),
    ({"tai": -2}, {"tai_offset_s": -2}),
    ({"offset": -500_000_000}, {"offset_ns": -NS // 2}),
    ({"status": STA_PLL, "offset": -500_000}, {"offset_ns": -NS // 2}),
    ({"status": STA_PLL, "offset": (2**32 - 31_000) // 1000}, {"offset_ns": -31_296}),
    ({"freq": -500 << 16}, {"frequency_ppb": -500_000}),
    ({"tick": 9000}, {"frequency_ppb": -(10**8)}),
    ({"status": STA_PLL | STA_NANO | 1 << 20}, {"status": STA_PLL | STA_NANO}),
]
OUT_OF_RANGE: list[tuple[dict[str, int], dict[str, object], str]] = [
    ({"maxerror": -450}, {"maxerror_ns": None}, "maxerror -450"),
    ({"maxerror": 16_000_001}, {"maxerror_ns": None}, "maxerror 16000001"),
    ({"maxerror": 2**62}, {"maxerror_ns": None}, f"maxerror {2**62}"),
    ({"maxerror": -(2**63)}, {"maxerror_ns": None}, f"maxerror {-(2**63)}"),
    ({"esterror": -1}, {"esterror_ns": None}, "esterror -1"),
    ({"esterror": 2**62}, {"esterror_ns": None}, f"esterror {2**62}"),
    ({"tai": 101}, {"tai_offset_s": 0}, "tai 101"),
    ({"tai": 40_000}, {"tai_offset_s": 0}, "tai 40000"),
    ({"offset": 500_002_000}, {"offset_ns": None}, "offset 500002000"),
    ({"offset": -(2**63)}, {"offset_ns": None}, f"offset {-(2**63)}"),
    ({"status": STA_PLL, "offset": 600_000}, {"offset_ns": None}, "offset 600000"),
    ({"freq": (500 << 16) + 1}, {"frequency_ppb": None}, f"freq {(500 << 16) + 1}"),
    ({"freq": 2**62}, {"frequency_ppb": None}, f"freq {2**62}"),
    ({"tick": 0}, {"frequency_ppb": None}, "tick 0"),
    ({"tick": 11_001}, {"frequency_ppb": None}, "tick 11001"),
    ({"base_ns": -5 * NS}, {"realtime_ns": None}, "time -5, fraction 0"),
    ({"maxerror": -1, "esterror": -2}, {"maxerror_ns": None, "esterror_ns": None}, "maxerror -1, esterror -2"),
]


def test_adjtimex_believes_only_what_a_kernel_can_say(
    start_script: Callable[..., subprocess.Popen[str]], played_clock: AdjtimexStandIn
) -> None:
    """A value at the end of its range counts; one beyond it is not known, is named, and spoils no other field."""
    played_clock.play_realtime(10**9 * NS, rate_ppb=-(10**9))  # stands still
    usual = {
        name: played_clock.played(name) for name in ("status", "offset", "freq", "maxerror", "esterror", "tick")
    }
    usual |= {"tai": 37, "base_ns": 10**9 * NS}
    process = start_script("adjtimex_on_demand", environment=played_clock.environment)
    assert process.stdin is not None
    assert process.stdout is not None

    def seen(**played: int) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        played_clock.play(**{**usual, **played})
        process.stdin.write("\n")
        process.stdin.flush()
        read: dict[str, Any] = json.loads(process.stdout.readline())
        return read

    ordinary = seen()
    assert ordinary["nonsense"] == ""
    for played, expected in IN_RANGE:
        assert seen(**played) == {**ordinary, "status": played.get("status", ordinary["status"]), **expected}, (
            played
        )
    for played, expected_out, nonsense in OUT_OF_RANGE:
        status = {"status": played.get("status", ordinary["status"])}
        assert seen(**played) == {**ordinary, **status, **expected_out, "nonsense": nonsense}, played


def test_counter_that_stands_still_has_no_rate() -> None:
    """A tick that takes a second or more fits no page: it is an answer that there is no rate, as for one set back."""
    slope = slope_of([Pairing(0, 0, 0), Pairing(8, 8 * NS, 0)])
    with pytest.raises(ValueError, match="stands still"):
        slope.rate()


def test_adjtimex_needs_no_privilege(run_script: Callable[..., str]) -> None:
    """Nobody may read the kernel's own; its clock is CLOCK_REALTIME."""
    before_ns = time.time_ns() // 1000 * 1000
    timex = json.loads(run_script("adjtimex_as_nobody"))
    assert before_ns <= timex["realtime_ns"] <= time.time_ns()
    assert (timex["tai_offset_s"], timex["status"]) == (adjtimex().tai_offset_s, adjtimex().status)


FIT_FLAGS = frozenset({"constant_tsc", "nonstop_tsc", "tsc"})
UNREADABLE: frozenset[str] = frozenset()


@pytest.mark.parametrize(
    ("flags", "clocksource", "invariant", "reason"),
    [
        (FIT_FLAGS, "tsc", True, None),
        (FIT_FLAGS, "kvm-clock", True, None),
        (FIT_FLAGS, "hyperv_clocksource_tsc_page", True, None),
        (FIT_FLAGS, "hyperv_clocksource_msr", True, "does not trust the TSC.*is hyperv_clocksource_msr, not tsc"),
        (FIT_FLAGS, "tsc-early", True, "is tsc-early"),
        (FIT_FLAGS, "hpet", True, "is hpet"),
        (
            FIT_FLAGS - {"nonstop_tsc"},
            "tsc",
            False,
            "cpuinfo lacks nonstop_tsc, and the processor says.*CPUID.*needs a",
        ),
        (FIT_FLAGS - {"nonstop_tsc"}, "tsc", None, "cpuinfo lacks nonstop_tsc; a virtual machine needs"),
        (FIT_FLAGS - {"constant_tsc"}, "kvm-clock", None, "lacks constant_tsc"),
        (FIT_FLAGS - {"constant_tsc", "nonstop_tsc"}, "", None, "lacks constant_tsc and nonstop_tsc"),
        # A sandbox that plays the files without what the kernel makes of the processor's word.
        (FIT_FLAGS - {"constant_tsc", "nonstop_tsc"}, "", True, None),
        # A kernel that knows better than the processor: of a hypervisor that hides it, for one.
        (FIT_FLAGS, "tsc", False, None),
        (FIT_FLAGS, "", None, None),
        (UNREADABLE, "", True, None),
        (UNREADABLE, "", None, None),
        (UNREADABLE, "tsc", None, None),
        (UNREADABLE, "hpet", True, "is hpet"),
        (
            UNREADABLE,
            "",
            False,
            "^the TSC does not keep its rate: the processor says that its TSC is not invariant",
        ),
    ],
)
def test_fitness_of_a_tsc(
    flags: frozenset[str], clocksource: str, invariant: bool | None, reason: str | None
) -> None:
    """Unfit is what shows that it is, and the reason names what was seen; what cannot be read shows nothing."""
    found = tsc_unfit_because(flags, clocksource, invariant=invariant)
    if reason is None:
        assert found is None
    else:
        assert re.search(reason, found or "")


def test_fitness_of_this_machines_counter() -> None:
    """It is what the files and the processor say of it; an Arm counter is always fit."""
    found = counter_unfit_because()
    if COUNTER_ID == 0:
        assert found is None
        return
    flags = frozenset(re.findall(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split())
    clocksource = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    assert found == tsc_unfit_because(flags, clocksource, invariant=_core.tsc_is_invariant())


@pytest.mark.skipif(COUNTER_ID != 1, reason="it is about x86")
def test_processor_says_what_the_kernel_makes_of_it() -> None:
    """The kernel lists nonstop_tsc where CPUID says that the TSC is invariant."""
    flags = re.findall(r"^flags\s*:(.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split()
    assert _core.tsc_is_invariant() is ("nonstop_tsc" in flags)


@pytest.mark.skipif(COUNTER_ID != 1, reason="it is about x86")
def test_processor_that_may_not_be_asked_says_nothing(run_script: Callable[..., str]) -> None:
    """Where CPUID is forbidden it is not executed, which would be a SIGSEGV: nothing is known."""
    assert run_script("forbidden_cpuid") in ("None\n", "the processor has no such thing\n")


class PlayedWorld:
    """How long a machine slept, as it is to be seen at one look after the other, and its clocksource."""

    def __init__(self, *asleep_ns: tuple[int, int]) -> None:
        self.looks = [Between(*look) for look in asleep_ns]
        self.clocksource = "tsc"
        self.continuity = Continuity(asleep=lambda: self.looks.pop(0), clocksource=lambda: self.clocksource)


def test_suspend_breaks_continuity_once() -> None:
    """A second between CLOCK_BOOTTIME and CLOCK_MONOTONIC that was not there before is a suspend."""
    world = PlayedWorld((0, 300), (100, 900), (1_000_000_000, 1_000_000_400), (1_000_000_100, 1_000_000_300))
    assert world.continuity.break_seen() is None
    assert world.continuity.break_seen() == (
        "the machine was suspended (CLOCK_BOOTTIME - CLOCK_MONOTONIC moved by 1.000000 s)"
    )
    assert world.continuity.break_seen() is None


def test_slow_look_hides_no_suspend() -> None:
    """A look that was itself interrupted for a second says little; what was known before still holds."""
    world = PlayedWorld((0, 300), (-(10**9), 300), (-100, 10**9), (400, 600))
    assert world.continuity.break_seen() is None
    assert world.continuity.break_seen() is None
    assert "moved by 0.000000" in (world.continuity.break_seen() or "")


def test_clock_that_lost_its_sleep_breaks_continuity() -> None:
    """Less sleep than before: a process restored into another time namespace, or another boot."""
    world = PlayedWorld((5 * 10**9, 5 * 10**9), (-300, 0))
    assert "moved by -5.000000 s" in (world.continuity.break_seen() or "")


def test_another_clocksource_breaks_continuity_once() -> None:
    """The kernel turned away from the counter, or to it: named, once; with a suspend, one after the other."""
    world = PlayedWorld((0, 300), (0, 300), (0, 300), (10**9, 10**9), (10**9, 10**9), (10**9, 10**9))
    assert world.continuity.break_seen() is None
    world.clocksource = "hpet"
    assert world.continuity.break_seen() == "the kernel's clocksource changed from tsc to hpet"
    world.clocksource = "tsc"
    assert "suspended" in (world.continuity.break_seen() or "")
    assert world.continuity.break_seen() == "the kernel's clocksource changed from hpet to tsc"
    assert world.continuity.break_seen() is None


def test_this_machine_goes_on() -> None:
    """Nothing breaks here while the test runs; sleep is known to within what reading it takes."""
    continuity = Continuity()
    assert [continuity.break_seen() for _ in range(100)] == [None] * 100
    look = asleep()
    assert look.low_ns <= look.high_ns


def test_recent_clocksource_is_read_ten_times_a_second() -> None:
    """Who asks before each commit is not made to open a file each time, and sees a change a tenth of a second later."""
    answers = iter(["tsc", "hpet"])
    now_ns = 5
    clocksource = RecentClocksource(read=lambda: next(answers), now_ns=lambda: now_ns)
    assert [clocksource() for _ in range(3)] == ["tsc"] * 3
    now_ns += 10**8
    assert clocksource() == "tsc"
    now_ns += 1
    assert [clocksource() for _ in range(3)] == ["hpet"] * 3
