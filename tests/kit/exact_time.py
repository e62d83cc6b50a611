"""The time that a page tells, in exact fractions: an oracle for tests, from the ABI's formulas.

It shares nothing with the package: it packs pages by its own table, knows no fixed point, and says only whether
there is a bound, not why there is none.
"""

import calendar
import math
import struct
import time
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import NamedTuple

_PAGE = struct.Struct("<IIHBBIQQ2xBBhBB9Q")
TAI_OFFSET_VALID, PERIOD_MAXERROR_VALID, TIME_MAXERROR_VALID = 1, 1 << 4, 1 << 6
BOUNDED = PERIOD_MAXERROR_VALID | TIME_MAXERROR_VALID
GHZ_PERIOD, GHZ_SHIFT = 0x89705F4136B4A597, 29
_PRE_POS, _PRE_NEG, _POS, _POST_POS, _POST_NEG = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Page:
    """The fields of a page, in their order; by default a clock of 1 GHz that was right in 2026."""

    magic: int = 0x4B4C4356
    size: int = 112
    version: int = 1
    counter_id: int = 1
    time_type: int = 0
    seq_count: int = 2
    disruption_marker: int = 0
    flags: int = BOUNDED
    clock_status: int = 2
    leap_second_smearing_hint: int = 0
    tai_offset_sec: int = 0
    leap_indicator: int = 0
    counter_period_shift: int = GHZ_SHIFT
    counter_value: int = 10**12
    counter_period_frac_sec: int = GHZ_PERIOD
    counter_period_esterror_rate_frac_sec: int = 0
    counter_period_maxerror_rate_frac_sec: int = 0
    time_sec: int = 1_767_225_600
    time_frac_sec: int = 0
    time_esterror_nanosec: int = 0
    time_maxerror_nanosec: int = 1000
    vm_generation_counter: int = 0

    def pack(self) -> bytes:
        """The page's 112 bytes."""
        return _PAGE.pack(*(getattr(self, field.name) for field in fields(self)))

    @property
    def tick_s(self) -> Fraction:
        """How long a tick takes."""
        return Fraction(self.counter_period_frac_sec, 2 ** (64 + self.counter_period_shift))


class Limits(NamedTuple):
    """What a reader allows."""

    before_s: Fraction = Fraction(1)
    after_s: Fraction = Fraction(1000)
    drift_ppb: int = 0
    counter_id: int = 1


USUAL = Limits()


def elapsed_s(page: Page, counter: int) -> Fraction:
    """Seconds from the reference to *counter*, by the nearer way around 2**64; 2**63 ticks are before it."""
    ticks = (counter - page.counter_value) % 2**64
    return (ticks if ticks < 2**63 else ticks - 2**64) * page.tick_s


def growth(page: Page, counter: int, limits: Limits) -> Fraction:
    """By how much the error has grown since the reference, in units of 2**-shift ns."""
    rate = page.counter_period_maxerror_rate_frac_sec
    if not page.flags & PERIOD_MAXERROR_VALID:
        rate = math.ceil(Fraction(page.counter_period_frac_sec * limits.drift_ppb, 10**9))
    ticks = (counter - page.counter_value) % 2**64
    return Fraction(min(ticks, 2**64 - ticks) * rate * 10**9, 2**64)


def exact_bounds(page: Page, counter: int, limits: Limits = USUAL) -> tuple[int, int] | None:
    """earliest_ns and latest_ns, nanoseconds of UTC since 1970; None where nothing can be promised."""
    is_tai = page.time_type == 1
    known = page.time_type == 0 or (is_tai and page.flags & TAI_OFFSET_VALID and page.tai_offset_sec < 0)
    usable = (
        page.version == 1
        and page.clock_status in (2, 3)
        and page.counter_id == limits.counter_id
        and page.counter_period_shift <= 63
        and page.counter_period_frac_sec > 0
    )
    if not known or not usable or not page.flags & TIME_MAXERROR_VALID:
        return None
    if not page.flags & PERIOD_MAXERROR_VALID and not limits.drift_ppb:
        return None
    elapsed = elapsed_s(page, counter)
    if (
        math.floor(elapsed * 2**64) < -limits.before_s * 2**64
        or math.ceil(elapsed * 2**64) > limits.after_s * 2**64
    ):
        return None
    grown_ns = growth(page, counter, limits) / 2**page.counter_period_shift
    error_ns = page.time_maxerror_nanosec + math.ceil(grown_ns)
    offset_s = page.tai_offset_sec if is_tai else 0
    utc_s = page.time_sec + Fraction(page.time_frac_sec, 2**64) + offset_s + elapsed
    # Rounded to the page's own unit first, as a reader without fractions has to.
    earliest_ns = math.floor(Fraction(math.floor(utc_s * 2**64), 2**64) * 10**9) - error_ns
    latest_ns = math.ceil(Fraction(math.ceil(utc_s * 2**64), 2**64) * 10**9) + error_ns
    if 0 <= earliest_ns and latest_ns < 2**63:
        before_s, after_s = _leap_s(page, earliest_ns, latest_ns, page.time_sec + offset_s)
        earliest_ns, latest_ns = earliest_ns - before_s * 10**9, latest_ns + after_s * 10**9
    return (earliest_ns, latest_ns) if 0 <= earliest_ns and latest_ns < 2**63 else None


def _leap_s(page: Page, earliest_ns: int, latest_ns: int, reference_s: int) -> tuple[int, int]:
    """How many seconds earlier and later UTC may be, for a leap second."""
    if page.leap_indicator == _POS:
        return 1, 1
    if page.leap_indicator not in (_PRE_POS, _PRE_NEG, _POST_POS, _POST_NEG):
        return 0, 0
    year, month = time.gmtime(reference_s)[:2]
    is_before = int(earliest_ns < calendar.timegm((year, month, 1, 0, 0, 0)) * 10**9)
    if page.leap_indicator == _POST_POS:
        return 0, is_before
    if page.leap_indicator == _POST_NEG:
        return is_before, 0
    end_s = calendar.timegm((year + month // 12, month % 12 + 1, 1, 0, 0, 0))
    if page.leap_indicator == _PRE_POS:
        return int(latest_ns >= end_s * 10**9), int(latest_ns >= (end_s - 1) * 10**9)
    return 0, int(latest_ns >= (end_s - 1) * 10**9)
