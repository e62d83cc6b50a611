"""The arithmetic of now() in the core, and a real clock's readings, against exact fractions.

The oracle is ``exact_time``: it knows neither the core's words of 64 bits nor ``reckoning``'s integers. Both give an
interval exactly where it does, and the same one, over the whole range of every field; the core leaves rare cases to
Python.
"""

import math
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import event, example, given, settings, strategies as st

from kit import exact_time
from kit.exact_time import (
    BOUNDED,
    PERIOD_MAXERROR_VALID,
    TAI_OFFSET_VALID,
    Limits,
    Page,
    elapsed_s,
    exact_bounds,
    growth,
)
from vmclock_async import Clock, ClockError, CounterId, Snapshot, TimeInterval, _core
from vmclock_async.reckoning import bounds_at

GROWING = Page(counter_period_maxerror_rate_frac_sec=10**15)
COARSE = Page(counter_value=0, counter_period_shift=0, counter_period_frac_sec=2**54)
"""A tick is 2**-10 s, so that an age may be exactly the limit."""
FINE = Page(
    counter_value=0,
    counter_period_shift=63,
    counter_period_frac_sec=2**63,
    counter_period_maxerror_rate_frac_sec=2**64 - 1,
)
"""A tick is 2**-64 s, and the error grows by nearly 10**9 units of 2**-63 ns in each."""
U64 = st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 2**32, 2**63 - 1, 2**63, 2**63 + 1, 2**64 - 1])
BYTE = st.integers(0, 255)
UNIT = Fraction(1, 2**64)
YEAR_2026 = 1_767_225_600
YEAR_2262 = (2**63 - 1) // 10**9
COUNTER_ID = _core.COUNTER_ID


def in_core(page: Page, counter: int, limits: Limits) -> tuple[int, int] | None:
    """What now() makes of it, in the core."""
    before, after = (divmod(limit // UNIT, 2**64) for limit in (limits.before_s, limits.after_s))
    found = _core.reckon(page.pack(), counter, limits.counter_id, before, after, limits.drift_ppb)
    if found is None:
        return None
    assert found[2] == page.clock_status
    return found[:2]


def in_python(page: Page, counter: int, limits: Limits) -> tuple[int, int] | None:
    """What bounds_at makes of it."""
    try:
        return bounds_at(
            Snapshot.unpack(page.pack(), inode=1),
            counter,
            counter_id=CounterId(limits.counter_id),
            max_age_s=limits.after_s,
            max_past_s=limits.before_s,
            max_drift_ppb=limits.drift_ppb,
        )
    except ClockError:
        return None


def mostly(draw: st.DrawFn, usual: st.SearchStrategy[int], otherwise: st.SearchStrategy[int]) -> int:
    """One of *usual* most often: were every field free, hardly any page would have a bound."""
    return draw(otherwise if draw(st.integers(0, 59)) == 0 else usual)


def ticks_in(page: Page, seconds: Fraction) -> int:
    """How many ticks make *seconds*, rounded; at most 2**64."""
    return min(round(seconds / page.tick_s), 2**64) if page.counter_period_frac_sec else 0


@st.composite
def pages(draw: st.DrawFn) -> Page:
    """Most often of a sound clock; with times from 1970 to 2262 and beyond, and about the end of 2025."""
    period = draw(st.integers(2**63, 2**64 - 1) | U64)
    return Page(
        version=mostly(draw, st.just(1), st.integers(0, 3)),
        counter_id=mostly(draw, st.just(1), BYTE),
        time_type=mostly(draw, st.sampled_from([0, 1]), BYTE),
        flags=mostly(draw, st.sampled_from([BOUNDED, BOUNDED & ~PERIOD_MAXERROR_VALID]), U64)
        | mostly(draw, st.just(TAI_OFFSET_VALID), st.just(0)),
        clock_status=mostly(draw, st.sampled_from([2, 3]), BYTE),
        tai_offset_sec=mostly(draw, st.sampled_from([-37, 0, -(2**15)]), st.integers(-(2**15), 2**15 - 1)),
        leap_indicator=mostly(draw, st.sampled_from([0, 0, 0, 1, 2, 3, 4, 5]), BYTE),
        counter_period_shift=mostly(draw, st.integers(0, 63), BYTE),
        counter_value=draw(U64),
        counter_period_frac_sec=period,
        counter_period_maxerror_rate_frac_sec=draw(st.integers(0, period // 1000) | U64),
        time_sec=mostly(
            draw,
            st.integers(0, YEAR_2262 + 2000)
            | st.integers(YEAR_2026 - 1100, YEAR_2026 + 40)
            | st.integers(0, 40_000)
            | st.integers(YEAR_2262 - 2000, YEAR_2262 + 2),
            U64,
        ),
        time_frac_sec=draw(U64),
        time_maxerror_nanosec=mostly(draw, st.integers(0, 10**10), U64),
    )


SECONDS = st.fractions(0, 2**34 - 1, max_denominator=1000)


@st.composite
def readings(draw: st.DrawFn) -> tuple[Page, int, Limits]:
    """A page, what a reader allows, and a counter value most often near one of the limits or in between."""
    page = draw(pages())
    limits = Limits(
        before_s=draw(st.just(Fraction(1)) | SECONDS) // UNIT * UNIT,
        after_s=draw(st.just(Fraction(1000)) | SECONDS) // UNIT * UNIT,
        drift_ppb=draw(st.just(0) | st.integers(1, 10**9)),
        counter_id=mostly(draw, st.just(1), st.just(0)),
    )
    edge = draw(st.sampled_from([-limits.before_s, Fraction(0), limits.after_s]))
    between = ticks_in(page, draw(st.fractions(0, 1, max_denominator=1000)) * limits.after_s)
    ticks = draw(st.just(between) | st.integers(-3, 3).map(lambda off: ticks_in(page, edge) + off) | U64)
    return page, (page.counter_value + ticks) % 2**64, limits


def is_left_to_python(page: Page, counter: int, limits: Limits) -> bool:
    """Whether the core gives no interval because the case is rare, though there may be one."""
    elapsed = elapsed_s(page, counter)
    grown = math.ceil(growth(page, counter, limits)) + 2 ** (page.counter_period_shift % 64) - 1
    return (
        page.leap_indicator in range(1, 6)
        or page.time_sec >= 2**34  # a limit of centuries may bring it back into range
        or elapsed == (limits.after_s if elapsed >= 0 else -limits.before_s)
        or grown >= 2**64
    )


def both_ways(page: Page, counter: int, limits: Limits) -> str:
    """The core and Python give what the fractions give; says what that is."""
    expected = exact_bounds(page, counter, limits)
    # An unknown version is found out by the reader, before anything is reckoned.
    assert in_python(page, counter, limits) == exact_bounds(replace(page, version=1), counter, limits)
    found = in_core(page, counter, limits)
    assert found == (None if is_left_to_python(page, counter, limits) else expected)
    announced = page.leap_indicator in range(1, 6)
    return "refused" if expected is None else "leap second" if announced else "bounded"


@pytest.mark.long
@given(readings())
@settings(max_examples=350)
@example((Page(counter_value=2**64 - 5), 10**9, Limits()))
@example((Page(counter_value=5), 2**64 - 10**9 + 6, Limits()))
@example((Page(counter_value=0, counter_period_shift=0, counter_period_frac_sec=1), 2**63, Limits()))
@example((Page(leap_indicator=6), 10**12, Limits()))
@example((Page(time_sec=2**64 - 1, time_maxerror_nanosec=0), 10**12 + 3 * 10**9, Limits()))
@example((Page(time_sec=2**34 - 1), 2 * 10**18, Limits(after_s=Fraction(2**34 - 1))))
@example((replace(GROWING, time_maxerror_nanosec=2**64 - 1), 10**12 + 10**9, Limits()))
@example((COARSE, 1000 * 2**10 - 1, Limits()))
@example((COARSE, 1000 * 2**10, Limits()))
@example((replace(COARSE, counter_value=2**10), 0, Limits()))
@example((replace(COARSE, counter_value=2**10), 1, Limits()))
@example((FINE, 2**63 // 10**9, Limits()))
@example((FINE, 2**63 // 10**9 + 1, Limits()))
@example((replace(FINE, counter_period_maxerror_rate_frac_sec=2**128 // 10**20 + 1), 10**11, Limits()))
@example((Page(time_frac_sec=2**64 - 1), 10**12 + 10**8, Limits()))
@example((Page(time_frac_sec=0), 10**12 - 10**8, Limits()))
@example((Page(time_type=1, flags=BOUNDED | TAI_OFFSET_VALID, tai_offset_sec=-37), 10**12, Limits()))
@example((Page(time_type=1, flags=BOUNDED | TAI_OFFSET_VALID, tai_offset_sec=0), 10**12, Limits()))
@example((Page(time_type=1, tai_offset_sec=-37), 10**12, Limits()))
@example((Page(time_type=2, flags=BOUNDED | TAI_OFFSET_VALID, tai_offset_sec=-37), 10**12, Limits()))
def test_core_and_python_give_what_fractions_give(reading: tuple[Page, int, Limits]) -> None:
    """An interval exactly where every condition holds, to the nanosecond; never one where bounds_at raises."""
    event(both_ways(*reading))


@given(shift=BYTE, counter=U64, counter_value=U64, period=U64, rate=U64)
def test_every_shift(shift: int, counter: int, counter_value: int, period: int, rate: int) -> None:
    """0 to 63 are reckoned with, 64 to 255 refused; with centuries allowed, whatever the ticks come to."""
    page = Page(
        counter_period_shift=shift,
        counter_value=counter_value,
        counter_period_frac_sec=period,
        counter_period_maxerror_rate_frac_sec=rate,
    )
    both_ways(page, counter, Limits(before_s=Fraction(2**34 - 1), after_s=Fraction(2**34 - 1)))


@pytest.mark.parametrize("difference", [-(10**9), -1, 0, 1, 10**9, 10**12])
@pytest.mark.parametrize("counter_value", [0, 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_counter_that_wraps_goes_on(counter_value: int, difference: int) -> None:
    """The same interval at the same distance from the reference, wherever in 64 bits that is."""
    page = replace(Page(), counter_value=counter_value)
    counter = (counter_value + difference) % 2**64
    expected = exact_bounds(Page(counter_value=2**40), 2**40 + difference)
    assert in_core(page, counter, Limits()) == in_python(page, counter, Limits()) == expected
    assert expected is not None


@pytest.mark.parametrize(
    ("edge", "fits"),
    [
        pytest.param(Page(time_sec=0, time_maxerror_nanosec=0), True, id="1970-exactly"),
        pytest.param(Page(time_sec=0, time_maxerror_nanosec=1), False, id="before-1970"),
        pytest.param(Page(time_sec=1, time_maxerror_nanosec=10**9), True, id="1970-at-the-earliest"),
        pytest.param(
            Page(time_sec=36, time_type=1, flags=BOUNDED | 1, tai_offset_sec=-37, time_maxerror_nanosec=0),
            False,
            id="before-1970-by-the-offset",
        ),
        pytest.param(Page(time_sec=2**63 // 10**9, time_maxerror_nanosec=854775807), True, id="2262-exactly"),
        pytest.param(Page(time_sec=2**63 // 10**9, time_maxerror_nanosec=854775808), False, id="past-2262"),
        pytest.param(Page(time_sec=2**64 - 1), False, id="last-second"),
        pytest.param(Page(time_sec=2**34), False, id="2514"),
        pytest.param(Page(time_maxerror_nanosec=2**64 - 1), False, id="largest-error"),
        pytest.param(
            Page(time_sec=2**64 // 10**9 + 1_767_225_600 + 1), False, id="what-64-bits-would-wrap-to-2026"
        ),
    ],
)
def test_times_before_1970_and_past_2262_are_refused_not_wrapped(edge: Page, fits: bool) -> None:
    """Nanoseconds since 1970 in 63 bits: to the last of them, and nothing beyond."""
    both_ways(edge, edge.counter_value, Limits())
    assert (in_core(edge, edge.counter_value, Limits()) is not None) == fits


@pytest.mark.parametrize("offset", [1, 37, 2**15 - 1])
def test_positive_tai_offset_is_refused(offset: int) -> None:
    """It is the old convention's sign: off by more than a minute."""
    page = Page(time_type=1, flags=BOUNDED | TAI_OFFSET_VALID, tai_offset_sec=offset)
    assert in_core(page, page.counter_value, Limits()) is None
    assert in_core(replace(page, tai_offset_sec=-offset), page.counter_value, Limits()) is not None


def test_maximum_period_error_of_the_page_comes_before_the_readers() -> None:
    """drift_ppb stands in for what the page does not say, and for nothing else."""
    rate = exact_time.GHZ_PERIOD // 10_000  # a little less than 100 ppm, rounded up to 100,000 ns in a second
    page = Page(counter_period_maxerror_rate_frac_sec=rate)
    silent = replace(page, flags=BOUNDED & ~PERIOD_MAXERROR_VALID)
    counter = page.counter_value + 10**9
    (earliest, latest), drifting = in_core(page, counter, Limits()) or (0, 0), Limits(drift_ppb=50_000)
    assert latest - earliest == 2 * (1000 + 100_000) + 1
    assert in_core(page, counter, drifting) == (earliest, latest)
    assert in_core(silent, counter, drifting) == (earliest + 49_999, latest - 49_999)
    assert in_core(silent, counter, Limits()) is None


def test_reckon_refuses_what_would_overflow() -> None:
    """Limits of 2**34 s, a drift of more than 10**9 ppb and pages of another size are ValueErrors."""
    page = Page().pack()
    for arguments in (
        (page[:104], 0, 1, (1, 0), (1, 0), 0),
        (page, 0, 1, (2**34, 0), (1, 0), 0),
        (page, 0, 1, (1, 0), (2**34, 0), 0),
        (page, 0, 1, (1, 0), (1, 0), 10**9 + 1),
    ):
        with pytest.raises(ValueError, match="112 bytes"):
            _core.reckon(*arguments)


# now() in the core, by itself.


class Quick(_core.Clock):
    """A clock that has nothing but the core: what it leaves to others is None."""

    def __init__(self, page: _core.Page, fence: _core.Page | None, *, until: int | None = None) -> None:
        if until is None:
            until = (_core.counter() + 2**62) % 2**64
        self._limit(COUNTER_ID, 1000, 0, 0)
        self._attach(page, fence, 112 << 32 | 0x4B4C4356, 7, 0, 0, until)

    def _now_slowly(self, max_error_ns: int | None) -> None:
        return None


def page_of(page: Page) -> _core.Page:
    """*page* in memory, mapped."""
    fd = os.memfd_create("page", os.MFD_CLOEXEC)
    os.write(fd, page.pack().ljust(4096, b"\0"))
    return _core.Page(fd, writable=True)


def test_core_waits_for_a_commit_to_end() -> None:
    """It reads a page that is within a commit again and again, for READ_LIMIT_NS, and then leaves it to Python."""
    clock = Quick(page_of(Page(disruption_marker=7, seq_count=3)), None)
    taken_ns = []
    for _ in range(50):
        start = time.perf_counter_ns()
        assert clock.now() is None
        taken_ns.append(time.perf_counter_ns() - start)
    # The least of many: what is longer than that, other processes took.
    assert _core.READ_LIMIT_NS * 0.9 <= min(taken_ns) < _core.READ_LIMIT_NS * 2


@pytest.mark.parametrize(
    ("changes", "quick"),
    [
        pytest.param({}, True, id="plain"),
        pytest.param({"disruption_marker": 8}, False, id="marker-moved"),
        pytest.param({"magic": 7}, False, id="magic"),
        pytest.param({"size": 104}, False, id="size"),
        pytest.param({"version": 0}, False, id="version"),
        pytest.param({"seq_count": 3}, False, id="odd"),
        pytest.param({"leap_indicator": 1}, False, id="leap-second"),
        pytest.param({"clock_status": 4}, False, id="status"),
    ],
)
def test_core_answers_what_is_plain_and_nothing_else(changes: dict[str, int], quick: bool) -> None:
    """Every change of what it was attached to is left to who knows of it."""
    sound = Page(
        counter_id=COUNTER_ID, counter_value=_core.counter(), disruption_marker=7, counter_period_frac_sec=2**60
    )
    page = page_of(replace(sound, **changes))
    clock = Quick(page, None)
    assert (clock.now() is not None) == quick
    page.leave()
    assert clock.now() is None


@pytest.mark.parametrize(
    ("device", "quick"), [(7, True), (7 + 2**32, True), (8, False), (7 + 2**31, False), (0, False)]
)
def test_core_compares_the_low_halves_of_the_markers(device: int, quick: bool) -> None:
    """The device's is 32 bits of what is published."""
    sound = Page(
        counter_id=COUNTER_ID, counter_value=_core.counter(), disruption_marker=7, counter_period_frac_sec=2**60
    )
    assert (Quick(page_of(sound), page_of(Page(disruption_marker=device))).now() is not None) == quick


def test_core_answers_until_it_is_to_ask_again() -> None:
    """Up to a counter value that it was given; after that each reading is left to who looks where the path leads."""
    sound = Page(
        counter_id=COUNTER_ID, counter_value=_core.counter(), disruption_marker=7, counter_period_frac_sec=2**60
    )
    page = page_of(sound)
    assert Quick(page, None, until=(_core.counter() + 2**40) % 2**64).now() is not None
    assert Quick(page, None, until=(_core.counter() - 1) % 2**64).now() is None


def test_core_answers_up_to_the_error_that_is_allowed() -> None:
    """Exactly that will do; a nanosecond less is left to who words the error."""
    slow = {"counter_period_frac_sec": 1, "counter_period_shift": 63, "time_maxerror_nanosec": 500}
    sound = Page(counter_id=COUNTER_ID, counter_value=_core.counter(), disruption_marker=7, **slow)
    clock = Quick(page_of(sound), None)
    error_ns = clock.now().error_ns
    assert clock.now(max_error_ns=error_ns) is not None
    assert clock.now(max_error_ns=error_ns - 1) is None


def test_core_takes_no_bool_for_an_error() -> None:
    """True is not 1 here, as in Python, even where an error of 1 ns would do."""
    slow = {"counter_period_frac_sec": 1, "counter_period_shift": 63, "time_maxerror_nanosec": 0}
    sound = Page(counter_id=COUNTER_ID, counter_value=_core.counter(), disruption_marker=7, **slow)
    clock = Quick(page_of(sound), None)
    assert clock.now(max_error_ns=1) is not None
    assert clock.now(max_error_ns=True) is None


# A real clock on a real counter.


class Told:
    """A segment in memory, and a clock that reads it."""

    def __init__(self) -> None:
        fd = os.memfd_create("segment", os.MFD_CLOEXEC)
        os.fchmod(fd, 0o644)  # 0777 at first: what others may write is refused
        os.write(fd, Page(counter_id=COUNTER_ID).pack())
        self._page = _core.Page(fd, writable=True)
        self.clock = Clock(f"/proc/self/fd/{fd}", fence=None)
        self.drifting = Clock(f"/proc/self/fd/{fd}", fence=None, max_age=10, max_drift_ppm=50)

    def tell(self, page: Page) -> None:
        """Commit *page*."""
        self._page.commit(page.pack()[16:], page.counter_id, page.time_type)

    def close(self) -> None:
        """Close the clocks and the segment."""
        self.clock.close()
        self.drifting.close()
        self._page.close()


@pytest.fixture(scope="module")
def told() -> Iterator[Told]:
    """A segment to tell pages by."""
    segment = Told()
    yield segment
    segment.close()


def reading_of(clock: Clock) -> TimeInterval | None:
    """A reading; None where there is no bound."""
    try:
        return clock.now()
    except ClockError:
        return None


@pytest.mark.long
@given(page=pages(), ago_s=st.fractions(-2, 1100, max_denominator=1000), marker=st.integers(0, 2))
@settings(max_examples=250)
def test_clock_gives_what_fractions_give(told: Told, page: Page, ago_s: Fraction, marker: int) -> None:
    """now() is the exact interval of a counter value from while it ran: the first and, by the core alone, the next."""
    counter_id = COUNTER_ID if page.counter_id == 1 else 1 - COUNTER_ID
    counter_value = (_core.counter() - ticks_in(page, ago_s)) % 2**64
    page = replace(
        page, version=1, counter_id=counter_id, counter_value=counter_value, disruption_marker=marker, size=112
    )
    told.tell(page)
    for clock, limits in (
        (told.clock, Limits(counter_id=COUNTER_ID)),
        (told.drifting, Limits(after_s=Fraction(10), drift_ppb=50_000, counter_id=COUNTER_ID)),
    ):
        for _ in range(2):
            before = _core.counter()
            reading = reading_of(clock)
            after = _core.counter()
            first, last = exact_bounds(page, before, limits), exact_bounds(page, after, limits)
            event("bounded" if reading else "refused")
            if reading is None:
                assert first is None or last is None
            else:
                assert first is not None or last is not None
                assert reading._status == page.clock_status
                if first and last:  # else a limit was passed meanwhile
                    # In between both go in a straight line, but for what each rounds by.
                    for read, *ends in zip((reading.earliest_ns, reading.latest_ns), first, last, strict=True):
                        assert min(ends) - 2 <= read <= max(ends) + 2


@pytest.mark.parametrize(("indicator", "earlier_s", "later_s"), [(1, 1, 1), (2, 0, 1), (3, 1, 1), (4, 0, 0)])
def test_leap_second_is_left_to_python_and_makes_the_hull(
    told: Told, indicator: int, earlier_s: int, later_s: int
) -> None:
    """The core gives none while one is announced or in progress; the clock gives both of what UTC may be."""
    page = Page(
        counter_id=COUNTER_ID,
        counter_value=_core.counter(),
        leap_indicator=indicator,
        time_sec=YEAR_2026 - 1,
        time_frac_sec=2**64 - 1,
        # So slow that it does not matter when it is read.
        counter_period_frac_sec=1,
        counter_period_shift=63,
        time_maxerror_nanosec=10,
    )
    told.tell(page)
    found = in_core(page, page.counter_value, Limits(counter_id=COUNTER_ID))
    assert found is None
    reading = told.clock.now()
    end_ns = YEAR_2026 * 10**9
    assert reading.earliest_ns == end_ns - 1 - 10 - earlier_s * 10**9
    assert reading.latest_ns == end_ns + 10 + later_s * 10**9
