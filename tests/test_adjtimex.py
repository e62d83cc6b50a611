"""adjtimex(2): what the kernel says of its clock, field by field, and what it can mean."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from kit.adjtimex import STA_CLOCKERR, STA_INS, STA_NANO, STA_PLL, AdjtimexStandIn
from kit.forks import Started
from vmclock_async import LeapIndicator, TimeType
from vmclock_async.timebase import ClockState, ClockStatusBits, Timex, adjtimex, leap_indicator, timescale

NS = 10**9


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


INS, DEL, UNSYNC = ClockStatusBits.INS, ClockStatusBits.DEL, ClockStatusBits.UNSYNC
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


def test_adjtimex_believes_only_what_a_kernel_can_say(
    start_script: Callable[..., Started], played_clock: AdjtimexStandIn
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


def test_adjtimex_needs_no_privilege(run_script: Callable[..., str]) -> None:
    """Nobody may read the kernel's own; its clock is CLOCK_REALTIME."""
    before_ns = time.time_ns() // 1000 * 1000
    timex = json.loads(run_script("adjtimex_as_nobody"))
    assert before_ns <= timex["realtime_ns"] <= time.time_ns()
    assert (timex["tai_offset_s"], timex["status"]) == (adjtimex().tai_offset_s, adjtimex().status)
