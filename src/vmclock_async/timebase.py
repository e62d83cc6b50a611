"""Tools for a source of time: the counter paired with a clock of the kernel, rates, and periods in fixed point.

Everything is in integers and exact fractions, because a float of epoch seconds resolves only 240 ns.

A source pairs the counter with the clock of ``timescale``, which is CLOCK_TAI where the kernel knows the TAI
offset: UAPI.13 recommends TAI, because it has no leap seconds. The rate comes from a ``Calibration`` against
CLOCK_MONOTONIC_RAW, which nothing steers, or from a ``Slope`` through the source's own measurements.
"""

import math
import time
from collections import deque
from fractions import Fraction
from typing import Any, Final, NamedTuple, Protocol, final

from vmclock_async import _core
from vmclock_async._timebase.adjtimex import LARGEST_CORRECTION_PPB, ClockState, ClockStatusBits, Timex, adjtimex
from vmclock_async._timebase.continuity import Continuity, counter_unfit_because
from vmclock_async._timebase.smear import is_near_leap
from vmclock_async.abi import CounterId, LeapIndicator, TimeType

__all__ = (
    "COUNTER_ID",
    "LARGEST_CORRECTION_PPB",
    "Calibration",
    "ClockState",
    "ClockStatusBits",
    "Continuity",
    "Pairing",
    "Period",
    "Rate",
    "Slope",
    "Steered",
    "Steering",
    "Timescale",
    "Timex",
    "adjtimex",
    "counter_ticks",
    "counter_unfit_because",
    "fixed_point_period",
    "is_near_leap",
    "leap_indicator",
    "measured_fields",
    "pair",
    "ticks_between",
    "timescale",
)

COUNTER_ID: Final = CounterId(_core.COUNTER_ID)
"""This machine's counter, as the ABI numbers it: X86_TSC or ARM_VCNT."""

counter_ticks = _core.counter
"""The raw counter, 0 to 2**64 - 1, read in order with the loads around it."""

_PPB: Final = Fraction(1, 10**9)
_TRIES: Final = 10


def ticks_between(earlier: int, later: int) -> int:
    """*later* minus *earlier*, counter values modulo 2**64, as a signed 64-bit difference."""
    return (later - earlier + 2**63) % 2**64 - 2**63


class Pairing(NamedTuple):
    """A counter value and the reading of a clock at that value."""

    counter_ticks: int
    clock_ns: int
    window_ticks: int
    """Width of the window in which the clock was read, centered on `counter_ticks`; the error is half of it."""


def pair(clock_id: int) -> Pairing:
    """The counter paired with *clock_id* (``time.CLOCK_*``): the tightest of ten tries."""
    best: Pairing | None = None
    for _ in range(_TRIES):
        before = counter_ticks()
        clock_ns = time.clock_gettime_ns(clock_id)
        after = counter_ticks()
        window = ticks_between(before, after)
        if best is None or window < best.window_ticks:
            best = Pairing((before + window // 2) % 2**64, clock_ns, window)
    assert best is not None
    return best


class Rate(NamedTuple):
    """Length of a tick and its possible error, both in nanoseconds a tick, exact."""

    ns_per_tick: Fraction
    error: Fraction
    """Bound on the error of the measurement itself. What the oscillator does later comes on top."""

    def period(self) -> "Period":
        """The rate in the ABI's form, rounded down to the unit.

        Raises:
            ValueError: a tick takes a second or more.
        """
        return fixed_point_period(self.ns_per_tick.numerator, self.ns_per_tick.denominator)


@final
class Calibration:
    """The counter's rate against CLOCK_MONOTONIC_RAW, over a baseline that grows from the start of the calibration.

    Nothing steers that clock, so the rate improves with the baseline. Make another calibration after a disruption.
    """

    def __init__(self) -> None:
        self._first = pair(time.CLOCK_MONOTONIC_RAW)

    def rate(self) -> Rate:
        """The rate since the calibration began; its error is the windows of the pairings over that time.

        Raises:
            ValueError: the counter or the clock has not moved since, or by less than the windows.
        """
        return _rate_between(self._first, pair(time.CLOCK_MONOTONIC_RAW))


def _rate_between(first: Pairing, last: Pairing) -> Rate:
    ticks, elapsed_ns = ticks_between(first.counter_ticks, last.counter_ticks), last.clock_ns - first.clock_ns
    ticks_off = Fraction(first.window_ticks + last.window_ticks, 2)
    if ticks <= 0 or elapsed_ns <= 0:
        raise ValueError(f"a rate needs time that passed, not {ticks} ticks in {elapsed_ns} ns")
    return _rate(Fraction(elapsed_ns, ticks), ticks, ticks_off, 0)


def _rate(ns_per_tick: Fraction, ticks: int, ticks_off: Fraction, ns_off: Fraction | int) -> Rate:
    """*ns_per_tick*, measured over *ticks*, of which at most *ticks_off* may be wrong, and *ns_off* of the time.

    The error also holds a tick of rounding at each end, and the last nanosecond of each clock. The wrong ticks pass at
    the true rate, which is unknown, so they are taken from the baseline too.
    """
    ticks_off += 2
    if ns_per_tick >= 10**9:  # the ABI could not hold its period either
        raise ValueError(f"a counter of {ticks} ticks makes less than one a second: it stands still")
    if ticks <= ticks_off:
        raise ValueError(f"a rate needs more ticks than the {float(ticks_off)} that may be wrong, not {ticks}")
    return Rate(ns_per_tick, (ticks_off * ns_per_tick + ns_off + 2) / (ticks - ticks_off))


@final
class Slope:
    """The counter's rate as the line through a source's last measurements, by least squares.

    Its error is what the measurements leave open. At the first and at the last measurement, the true line is half a
    window away from it, and the line through all of them is at most as far away as from the farthest one. So the two
    lines differ by at most twice that distance and a window, over the baseline. The distance is doubled: if all
    measurements from one on jumped (a correction all at once), the line tilts by up to three times the distance.
    """

    LENGTH: Final = 16
    """Number of measurements that count."""

    def __init__(self) -> None:
        self._samples: Final[deque[Pairing]] = deque(maxlen=self.LENGTH)

    def __len__(self) -> int:
        return len(self._samples)

    def add(self, measurement: Pairing) -> None:
        """Add *measurement*, whose counter value is later than all before it."""
        self._samples.append(measurement)

    def rate(self) -> Rate:
        """The rate of the measurements, of which there must be at least two.

        Raises:
            ValueError: there are fewer, or they do not go forward, or by less than their windows.
        """
        if len(self._samples) < 2:
            raise ValueError(f"a slope needs two measurements, not {len(self._samples)}")
        first, last = self._samples[0], self._samples[-1]
        ticks = [ticks_between(first.counter_ticks, sample.counter_ticks) for sample in self._samples]
        times = [sample.clock_ns - first.clock_ns for sample in self._samples]
        n, sum_x, sum_y = len(ticks), sum(ticks), sum(times)
        above = n * sum(x * y for x, y in zip(ticks, times, strict=True)) - sum_x * sum_y
        below = n * sum(x * x for x in ticks) - sum_x**2
        if above <= 0 or below <= 0 or ticks[-1] <= 0:
            raise ValueError(f"measurements that do not go forward: {ticks} ticks, {times} ns")
        slope = Fraction(above, below)
        # Distances from the line, times n, so that they stay integers as far as possible.
        farthest = max(abs(n * y - sum_y - slope * (n * x - sum_x)) for x, y in zip(ticks, times, strict=True)) / n
        return _rate(slope, ticks[-1], Fraction(first.window_ticks + last.window_ticks, 2), 4 * farthest)


class Timescale(NamedTuple):
    """The clock to pair the counter with."""

    clock_id: int
    """CLOCK_TAI or CLOCK_REALTIME."""
    time_type: TimeType
    tai_offset_s: int | None
    """Seconds to add to TAI for UTC, -37 since 2017 (the ABI's tai_offset_sec); None if the kernel knows none."""


_LEAST_TAI_OFFSET_S: Final = 10
"""TAI minus UTC in 1972, when leap seconds began. A kernel without the offset has 0, or 1 after a leap second."""


def timescale(timex: Timex) -> Timescale:
    """TAI if the kernel knows its offset (``adjtimex``: ``tai`` is 10 or more), else UTC."""
    if timex.tai_offset_s >= _LEAST_TAI_OFFSET_S:
        return Timescale(time.CLOCK_TAI, TimeType.TAI, -timex.tai_offset_s)
    return Timescale(time.CLOCK_REALTIME, TimeType.UTC, None)


class Steered(Protocol):
    """A reading of a clock of the kernel that a daemon may steer."""

    @property
    def pairing(self) -> Pairing:
        """The counter paired with that clock."""

    @property
    def timescale(self) -> Timescale:
        """The timescale that the counter is paired with."""

    @property
    def after(self) -> Timex:
        """The kernel's clock discipline, read after the pairing."""


@final
class Steering:
    """Rate of a clock of the kernel against the counter, from one reading after the other."""

    def __init__(self) -> None:
        self._slope = Slope()
        self._last: Steered | None = None

    def rate(self, reading: Steered, raw: Rate) -> Rate:
        """The rate at *reading*, which is later than all before; *raw* is that of CLOCK_MONOTONIC_RAW.

        A step, another timescale or a leap second starts the measurement over. A clock was stepped if it moved by more
        than the kernel lets a daemon correct it (``LARGEST_CORRECTION_PPB``).
        """
        if not self._continues(reading, raw):
            self._slope = Slope()
        self._last = reading
        self._slope.add(reading.pairing)
        if len(self._slope) > 1:
            try:
                return self._slope.rate()
            except ValueError:
                pass  # too close together for an answer
        return _steered(raw, reading.after.frequency_ppb)

    def _continues(self, reading: Steered, raw: Rate) -> bool:
        last = self._last
        if last is None or (last.timescale, last.after.state) != (reading.timescale, reading.after.state):
            return False
        ticks = ticks_between(last.pairing.counter_ticks, reading.pairing.counter_ticks)
        passed_ns = reading.pairing.clock_ns - last.pairing.clock_ns
        windows = reading.pairing.window_ticks + last.pairing.window_ticks
        expected_ns = ticks * raw.ns_per_tick
        allowed_ns = expected_ns * LARGEST_CORRECTION_PPB * _PPB + windows * raw.ns_per_tick
        return ticks > 0 and abs(passed_ns - expected_ns) <= allowed_ns


def _steered(raw: Rate, frequency_ppb: int | None) -> Rate:
    if frequency_ppb is None:
        return raw._replace(error=raw.error + raw.ns_per_tick * LARGEST_CORRECTION_PPB * _PPB)
    faster = 1 + frequency_ppb * _PPB
    # A part in 10**9, because the frequency is rounded.
    return Rate(raw.ns_per_tick * faster, raw.error * faster + raw.ns_per_tick * _PPB)


def leap_indicator(timex: Timex) -> LeapIndicator:
    """The kernel's announcement of leap seconds (``adjtimex``: its state, and STA_INS and STA_DEL)."""
    match timex.state:
        case ClockState.OOP:
            return LeapIndicator.POS
        case ClockState.WAIT:
            return LeapIndicator.POST_NEG if timex.status & ClockStatusBits.DEL else LeapIndicator.POST_POS
    if timex.status & ClockStatusBits.INS:
        return LeapIndicator.PRE_POS
    if timex.status & ClockStatusBits.DEL:
        return LeapIndicator.PRE_NEG
    return LeapIndicator.NONE


class Period(NamedTuple):
    """Seconds a tick in the ABI's form: ``frac_sec`` in units of 2**-(64 + shift) s."""

    frac_sec: int
    shift: int

    def error_frac_sec(self, ns_per_tick: Fraction) -> int | None:
        """An error of the period, *ns_per_tick*, in its unit: rounded up, plus one for the period's own rounding.

        None if the ABI cannot hold it: then there is no bound.
        """
        units = math.ceil(ns_per_tick * 2 ** (64 + self.shift) / 10**9) + 1
        return units if units < 2**64 else None


def fixed_point_period(duration_ns: int, ticks: int) -> Period:
    """The period of a counter that made *ticks* ticks in *duration_ns*, with the top bit of ``frac_sec`` set.

    At 1 GHz: shift 29, frac_sec 0x89705F4136B4A597. Rounded down to the unit.

    Raises:
        ValueError: either is not positive, or the counter is slower than 1 Hz.
    """
    if duration_ns <= 0 or ticks <= 0:
        raise ValueError(f"a period needs a positive duration and tick count, not {duration_ns} ns and {ticks}")
    denominator = ticks * 10**9
    # frac_sec / 2**(64 + shift) = duration_ns / denominator, with 2**63 <= frac_sec < 2**64.
    shift = denominator.bit_length() - duration_ns.bit_length()
    if (duration_ns << 64 + max(shift, 0)) // denominator >= 2**64:
        shift -= 1
    elif shift >= 0 and (duration_ns << 64 + shift) // denominator < 2**63:
        shift += 1
    if shift < 0:
        raise ValueError(f"{ticks} ticks in {duration_ns} ns: a period of a second or more does not fit the ABI")
    return Period((duration_ns << 64 + shift) // denominator, shift)


def measured_fields(
    *,
    counter_ticks: int,
    utc_ns: int | Fraction,
    error_ns: int | Fraction | None,
    rate: Rate,
    drift: int | Fraction,
    est_error_ns: int | Fraction | None,
    est_error_ns_per_tick: int | Fraction | None,
    tai_offset_sec: int | None,
) -> dict[str, Any]:
    """The ABI's fields of a measurement in nanoseconds; arguments and errors are those of ``BodyUpdate.measured``.

    Each rounding makes the bound larger, never smaller::

        time_sec, time_frac_sec               = the time, rounded down to 2**-64 s
        time_maxerror_nanosec                 = the error and what that rounding took, rounded up
        counter_period_frac_sec, _shift       = the period, rounded down to 2**-(64 + shift) s
        counter_period_maxerror_rate_frac_sec = the rate's own error and the drift, rounded up, and 1 for that rounding

    An error that its field cannot hold is None, which says that there is no bound. Source: ``vmclock-abi.h``.
    """
    for name, integer in {"counter_ticks": counter_ticks, "tai_offset_sec": tai_offset_sec or 0}.items():
        if isinstance(integer, bool) or not isinstance(integer, int):
            raise TypeError(f"{name} must be an int, not {integer!r}")
    if not 0 <= counter_ticks < 2**64:
        raise ValueError(f"counter_ticks must be from 0 to 2**64 - 1, not {counter_ticks}")
    if not isinstance(rate, Rate):
        raise TypeError(f"rate must be a timebase.Rate, not {rate!r}")
    errors = {"rate.error": rate.error, "drift": drift}
    maybe = {"error_ns": error_ns, "est_error_ns": est_error_ns, "est_error_ns_per_tick": est_error_ns_per_tick}
    errors |= {name: error for name, error in maybe.items() if error is not None}
    for name, number in {"utc_ns": utc_ns, "rate.ns_per_tick": rate.ns_per_tick, **errors}.items():
        if isinstance(number, bool) or not isinstance(number, int | Fraction):
            raise TypeError(f"{name} must be an int or a Fraction, not {number!r}: a float is not exact")
    for name, error in errors.items():
        if error < 0:
            raise ValueError(f"{name} must not be negative: {error}")
    if not 0 < rate.ns_per_tick < 10**9:
        raise ValueError(
            f"rate.ns_per_tick must be from 0 to 10**9, not {rate.ns_per_tick}: the ABI holds no other"
        )
    period = rate.period()
    time_ns = Fraction(utc_ns if tai_offset_sec is None else utc_ns - tai_offset_sec * 10**9)
    reference = math.floor(time_ns * 2**64 / 10**9)
    if not 0 <= reference < 2**128:
        raise ValueError(f"utc_ns must be a time from 1970 on that 64 bits of seconds hold, not {utc_ns} ns")
    cut_ns = time_ns - Fraction(reference * 10**9, 2**64)
    return {
        "counter_id": COUNTER_ID,
        **(
            {"time_type": TimeType.UTC}
            if tai_offset_sec is None
            else {"time_type": TimeType.TAI, "tai_offset_sec": tai_offset_sec}
        ),
        "counter_value": counter_ticks,
        "counter_period_shift": period.shift,
        "counter_period_frac_sec": period.frac_sec,
        "counter_period_esterror_rate_frac_sec": (
            None if est_error_ns_per_tick is None else period.error_frac_sec(Fraction(est_error_ns_per_tick))
        ),
        "counter_period_maxerror_rate_frac_sec": period.error_frac_sec(rate.error + rate.ns_per_tick * drift),
        "time_sec": reference >> 64,
        "time_frac_sec": reference % 2**64,
        "time_esterror_nanosec": _nanoseconds(est_error_ns),
        "time_maxerror_nanosec": None if error_ns is None else _nanoseconds(error_ns + cut_ns),
    }


def _nanoseconds(error_ns: int | Fraction | None) -> int | None:
    """*error_ns* rounded up; None where it is unknown, or more than 64 bits hold."""
    if error_ns is None:
        return None
    rounded = math.ceil(error_ns)
    return rounded if rounded < 2**64 else None
