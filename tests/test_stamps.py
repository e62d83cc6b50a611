"""at() and at_monotonic() in the core: what Python gives for the same page and stamp, or nothing; and unchanged().

``reckoning.bounds_at`` is the oracle of at(), itself held against exact fractions elsewhere.
"""

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings, strategies as st

from kit.exact_time import Page
from vmclock_async import (
    Clock,
    ClockDisruptedError,
    ClockError,
    CounterId,
    LeaseLostError,
    SegmentReader,
    Snapshot,
    TimeInterval,
    _core,
)
from vmclock_async.reckoning import bounds_at, reference_month_ns
from vmclock_async.testing import ManualClock, PlayedSegment

COUNTER_ID = _core.COUNTER_ID
IDENTITY = 112 << 32 | 0x4B4C4356
GHZ = 2**64 // 10**9
"""Of a counter that makes a tick a nanosecond, counter_period_frac_sec at shift 0."""
DAY_S = 86_400
JULY_2026 = 1_782_864_000


class Quick(_core.Clock):
    """A clock that has nothing but the core: what it leaves to Python is None."""

    def __init__(self, page: _core.Page, *, max_age_s: int, marker: int = 7, since: int = 0) -> None:
        until = (_core.counter() + 2**62) % 2**64
        self._limit(COUNTER_ID, max_age_s, 0, 0)
        self._attach(page, None, IDENTITY, marker, since, 0, until)

    def _at_slowly(self, counter_ticks: int, max_error_ns: int | None) -> None:
        return None

    _at_monotonic_slowly = _at_slowly


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A file of a page, that has a name as segments have; its descriptor."""
    path = tmp_path_factory.mktemp("pages") / "page"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.ftruncate(fd, 4096)
    yield fd
    os.close(fd)


def in_python(page: Page, stamp: int, counter: int, max_age_s: int) -> tuple[int, int] | None:
    """What Readings.at() makes of it, where that is plain."""
    snapshot = Snapshot.unpack(page.pack(), inode=1)
    if (counter - stamp) * page.tick_s > max_age_s:
        return None
    try:
        bounds = bounds_at(
            snapshot, stamp, counter_id=CounterId(COUNTER_ID), max_age_s=max_age_s, max_past_s=max_age_s
        )
    except ClockError:
        return None
    if bounds.earliest_ns < reference_month_ns(snapshot):
        return None
    return bounds.earliest_ns, bounds.latest_ns


@pytest.mark.long
@given(
    reference_ago=st.integers(-(10**13), 10**13),
    stamp_ago=st.integers(0, 10**13) | st.integers(0, 2 * 10**12),
    time_sec=st.integers(0, 9 * 10**9) | st.integers(-3000, 3000).map(lambda off: JULY_2026 + off),
    tai=st.booleans(),
    leap=st.sampled_from([0, 0, 0, 1, 4, 6]),
    max_error_ns=st.integers(0, 10**6),
)
@settings(max_examples=300)
def test_core_gives_what_python_gives_at_a_stamp(
    named: int, reference_ago: int, stamp_ago: int, time_sec: int, tai: bool, leap: int, max_error_ns: int
) -> None:
    """To the nanosecond where it answers; and it answers wherever the page is plain and the stamp is of its month."""
    counter = _core.counter()
    stamp = (counter - stamp_ago) % 2**64
    page = Page(
        counter_id=COUNTER_ID,
        counter_value=(counter - reference_ago) % 2**64,
        disruption_marker=7,
        counter_period_frac_sec=GHZ,
        counter_period_maxerror_rate_frac_sec=GHZ // 20_000,
        time_sec=time_sec,
        leap_indicator=leap,
        time_maxerror_nanosec=max_error_ns,
        **({"time_type": 1, "flags": Page().flags | 1, "tai_offset_sec": -37} if tai else {}),
    )
    os.pwrite(named, page.pack(), 0)
    clock = Quick(_core.Page(os.dup(named)), max_age_s=2000, since=(counter - 2**62) % 2**64)
    found = clock.at(stamp)
    expected = in_python(page, stamp, _core.counter(), 2000)
    announced = leap in range(1, 6)
    event("announced" if announced else "plain" if expected else "refused")
    if announced:
        assert found is None
    elif found is not None or stamp_ago < 1999 * 10**9:  # at the very edge the counter has gone on meanwhile
        assert (found and (found.earliest_ns, found.latest_ns)) == expected


@given(day=st.integers(0, 106_000), second=st.integers(0, DAY_S - 1), off=st.integers(-2, 2))
@settings(max_examples=300)
def test_core_knows_where_each_month_begins(named: int, day: int, second: int, off: int) -> None:
    """From 1970 to 2260: a stamp before the month of the reference is left to Python, one within is not."""
    counter = _core.counter()
    page = Page(
        counter_id=COUNTER_ID,
        counter_value=counter,
        disruption_marker=7,
        counter_period_frac_sec=GHZ,
        time_sec=day * DAY_S + second,
        time_maxerror_nanosec=0,
    )
    month_ns = reference_month_ns(Snapshot.unpack(page.pack(), inode=1))
    # A counter of one tick a second, so that a month is soon gone back.
    slow = replace(page, counter_period_frac_sec=2**63, counter_period_shift=0, counter_value=counter)
    os.pwrite(named, slow.pack(), 0)
    back_s = (page.time_sec * 10**9 - month_ns) // 10**9 + off
    stamp = counter - 2 * back_s
    if back_s < 0 or back_s > page.time_sec:
        return
    clock = Quick(_core.Page(os.dup(named)), max_age_s=2**33 - 1, since=(counter - 2**62) % 2**64)
    found = clock.at(stamp % 2**64)
    assert (found is not None) == (page.time_sec - back_s >= month_ns // 10**9)


def test_stamps_from_before_the_marker_or_ahead_are_left_to_python(named: int) -> None:
    """Python says what is wrong with them."""
    counter = _core.counter()
    page = Page(
        counter_id=COUNTER_ID,
        counter_value=counter,
        disruption_marker=7,
        counter_period_frac_sec=2**60,
        time_sec=JULY_2026 + DAY_S,
    )
    os.pwrite(named, page.pack(), 0)
    clock = Quick(_core.Page(os.dup(named)), max_age_s=2**33 - 1, since=counter - 5)
    assert clock.at(counter - 5) is not None
    assert clock.at(counter - 6) is None
    assert clock.at(counter + 2**61) is None
    for stamp in (None, 1.5, "x"):
        assert clock.at(stamp) is None  # type: ignore[arg-type]


def test_monotonic_stamps_in_the_core_are_as_wide_as_the_slew_allows(segment: PlayedSegment) -> None:
    """A stamp's age divided by 0.899 and 1.101 is taken from the ends of now(), rounded outward."""
    with Clock(segment.path, fence=segment.device) as clock:
        clock.now()
        stamps = [time.monotonic_ns()]
        time.sleep(0.05)
        stamps.append(time.monotonic_ns())
        for stamp in stamps:
            before_ns, before = time.monotonic_ns(), clock.now()
            interval = clock.at_monotonic(stamp)
            after, after_ns = clock.now(), time.monotonic_ns()
            slowest, fastest = Fraction(899, 1000), Fraction(1101, 1000)
            assert interval.earliest_ns >= before.earliest_ns - (after_ns - stamp) / slowest - 1
            assert interval.earliest_ns <= after.earliest_ns - (before_ns - stamp) / slowest
            assert interval.latest_ns <= after.latest_ns - (before_ns - stamp) / fastest + 1
            assert interval.latest_ns >= before.latest_ns - (after_ns - stamp) / fastest


def test_limits_that_are_no_integers_are_refused_by_name(segment: PlayedSegment) -> None:
    """In the core as in Python, for each kind of reading."""
    with Clock(segment.path, fence=segment.device) as clock:
        stamp = clock.counter_ticks()
        calls: list[Callable[[Any], object]] = [
            lambda limit: clock.now(max_error_ns=limit),
            lambda limit: clock.at(stamp, max_error_ns=limit),
            lambda limit: clock.at_monotonic(time.monotonic_ns(), max_error_ns=limit),
        ]
        clock.now()
        for call in calls:
            for wrong in (1.5, "1ms", b""):
                with pytest.raises(TypeError, match="max_error_ns must be an integer, nanoseconds, not"):
                    call(wrong)
            with pytest.raises(ValueError, match="max_error_ns must be from 0"):
                call(-1)


@pytest.mark.long
def test_fence_that_is_replaced_is_followed(segment: PlayedSegment) -> None:
    """A fence in another file counts from the first slow reading on, which comes within a second."""
    with Clock(segment.path, fence=segment.device) as clock:
        clock.now()
        moved = segment.device.with_name("moved")
        page = bytearray(segment.device.read_bytes())
        page[0x10] ^= 0x40  # the marker
        moved.write_bytes(page)
        moved.chmod(0o644)
        moved.rename(segment.device)
        give_up = time.monotonic() + 20
        with pytest.raises(ClockDisruptedError):  # noqa: PT012
            while time.monotonic() < give_up:
                clock.now()


class Counting(Clock):
    """A clock that counts what the core leaves to Python."""

    left = 0

    def _at_slowly(self, counter_ticks: int, max_error_ns: int | None) -> TimeInterval:
        self.left += 1
        return super()._at_slowly(counter_ticks, max_error_ns)

    def _at_monotonic_slowly(self, ns: int, max_error_ns: int | None) -> TimeInterval:
        self.left += 1
        return super()._at_monotonic_slowly(ns, max_error_ns)


def test_stamps_alone_attach_the_page(segment: PlayedSegment) -> None:
    """A program that never calls now() gets the core's speed too, after the first stamp."""
    with Counting(segment.path, fence=segment.device) as clock:
        segment.change(counter_period_esterror_rate_frac_sec=1)
        for _ in range(3):
            clock.at(clock.counter_ticks())
            clock.at_monotonic(time.monotonic_ns())
        assert clock.left == 1
        segment.migrate()
        clock.snapshot()  # which shows the new marker
        clock.at(clock.counter_ticks())
        assert clock.left == 2


def test_derived_clock_keeps_methods_of_its_own(segment: PlayedSegment) -> None:
    """A program may wrap now(), to count or to log; what it does not define is as quick as in Clock."""

    class Wrapped(Clock):
        calls = 0

        def now(self, *, max_error_ns: int | None = None) -> TimeInterval:
            self.calls += 1
            return super().now(max_error_ns=max_error_ns)

    with Wrapped(segment.path, fence=segment.device) as clock:
        for _ in range(3):
            clock.now()
        assert clock.calls == 3
        assert clock.at(clock.counter_ticks()).error_ns > 0
        assert "at" in vars(Wrapped)


Change = Callable[[PlayedSegment, SegmentReader], object]


def unlink(segment: PlayedSegment, page: SegmentReader) -> None:
    """Remove the segment's file."""
    segment.path.unlink()


def move_device_marker_alone(segment: PlayedSegment, page: SegmentReader) -> None:
    """A device that does not count its updates."""
    with Path(segment.device).open("r+b") as file:
        file.seek(0x10)
        file.write(b"\x63")


@pytest.mark.parametrize(
    ("change", "is_unchanged"),
    [
        pytest.param(lambda segment, page: None, True, id="nothing"),
        pytest.param(lambda segment, page: segment.regain_sync(), False, id="a-commit"),
        pytest.param(lambda segment, page: segment.die_mid_commit(), False, id="half-a-commit"),
        pytest.param(lambda segment, page: (segment.freeze(), segment.migrate()), False, id="the-device"),
        pytest.param(move_device_marker_alone, False, id="the-device's-marker"),
        pytest.param(lambda segment, page: page._page.leave(), False, id="left"),
        pytest.param(lambda segment, page: page.close(), False, id="closed"),
        pytest.param(unlink, False, id="no-name"),
    ],
)
def test_unchanged_notices_each_change(segment: PlayedSegment, change: Change, is_unchanged: bool) -> None:
    """Of the page, of its fence, and of the file's name."""
    with SegmentReader(segment.path) as page, SegmentReader(segment.device) as fence:
        witness = (
            page._page,
            page._page.control_word,
            fence._page,
            fence._page.control_word,
            fence.disruption_marker,
        )
        counter = _core.counter()
        change(segment, page)
        seen = _core.unchanged(*witness, counter, (counter + 2**62) % 2**64)
        assert (seen is not None) == is_unchanged
        assert seen is None or seen >= counter
        assert _core.unchanged(*witness, (counter + 2**61) % 2**64, (counter + 2**62) % 2**64) is None
        assert _core.unchanged(*witness, (counter - 5) % 2**64, counter) is None


@pytest.mark.anyio
async def test_lease_and_incarnation_see_a_change_at_once_after_quick_answers(segment: PlayedSegment) -> None:
    """However often they were asked before, and by the device alone too."""
    with Clock(segment.path, fence=segment.device) as clock:
        first = clock.incarnation
        with pytest.raises(LeaseLostError, match="its publisher has not published that yet"):  # noqa: PT012
            async with clock.lease(100) as lease:
                for _ in range(5):
                    lease.check()
                    assert clock.incarnation == first
                segment.freeze()
                segment.restore()
                lease.check()
        with pytest.raises(ClockDisruptedError):
            _ = clock.incarnation
        segment.thaw()
        assert clock.incarnation != first


def test_played_clock_leaves_nothing_to_the_core() -> None:
    """It has no page that the core could read: at() and at_monotonic() go the slow way, and are right."""
    with ManualClock() as clock:
        stamp = clock.counter_ticks()
        clock.advance(5)
        truth = clock.utc_ns - 5 * 10**9
        for interval in (clock.at(stamp), clock.at_monotonic(stamp)):
            assert interval.earliest_ns <= truth <= interval.latest_ns
