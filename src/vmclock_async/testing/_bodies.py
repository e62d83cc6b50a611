"""Bodies with a time in them: of this machine, or of a counter and a time that a test makes up."""

import math
import time
from fractions import Fraction
from functools import cache
from typing import Any, Final

from vmclock_async.abi import ClockStatus
from vmclock_async.models import BodyUpdate, VMClockBody
from vmclock_async.timebase import Calibration, Rate, fixed_point_period, pair

__all__ = ("MAX_ERROR_NS", "applied", "make_body", "measured", "measured_here")

MAX_ERROR_NS: Final = 1_000_000
_DRIFT: Final = Fraction(500, 10**6)
"""By how much CLOCK_REALTIME may be slewed (kernel/time/ntp.c), so that what a test compares with it holds."""
_CALIBRATION_NS: Final = 10_000_000

_calibration: Final = Calibration()
_imported_ns: Final = time.monotonic_ns()


@cache
def _rate() -> Rate:
    """The counter's rate, from the import of this module until now, for 10 ms at least."""
    time.sleep(max(0, _imported_ns + _CALIBRATION_NS - time.monotonic_ns()) / 1e9)
    return _calibration.rate()


def measured(
    counter_ticks: int, utc_ns: int, *, ns_per_tick: Fraction, drift: Fraction, max_error_ns: int = MAX_ERROR_NS
) -> dict[str, Any]:
    """Fields of a synchronised time: UTC was *utc_ns* at *counter_ticks*, give or take *max_error_ns*.

    Args:
        drift: how far off the period may be, as a part of it.
    """
    period = fixed_point_period(ns_per_tick.numerator, ns_per_tick.denominator)
    seconds, ns = divmod(utc_ns, 10**9)
    return {
        "clock_status": ClockStatus.SYNCHRONIZED,
        "counter_value": counter_ticks,
        "counter_period_shift": period.shift,
        "counter_period_frac_sec": period.frac_sec,
        "counter_period_maxerror_rate_frac_sec": math.ceil(period.frac_sec * drift),
        "time_sec": seconds,
        "time_frac_sec": (ns << 64) // 10**9,
        "time_maxerror_nanosec": max_error_ns,
    }


def measured_here(shift_ns: int = 0) -> dict[str, Any]:
    """Fields of a synchronised time: this machine's counter and CLOCK_REALTIME, *shift_ns* later."""
    rate, now = _rate(), pair(time.CLOCK_REALTIME)
    drift = _DRIFT + rate.error / rate.ns_per_tick
    return measured(now.counter_ticks, now.clock_ns + shift_ns, ns_per_tick=rate.ns_per_tick, drift=drift)


def applied(body: VMClockBody, fields: dict[str, Any]) -> VMClockBody:
    """*body* with *fields*: a value raises its validity flag, None clears it; ``flags`` are taken as they are."""
    if unknown := fields.keys() - VMClockBody.model_fields.keys():
        raise TypeError(f"a body has no {', '.join(sorted(unknown))}")
    body = BodyUpdate(**fields).applied_to(body)
    return VMClockBody(**{**dict(body), "flags": fields["flags"]}) if "flags" in fields else body


def make_body(**overrides: Any) -> VMClockBody:
    """A synchronised body of this machine: its counter and CLOCK_REALTIME as they are now.

    It promises UTC to within a millisecond, and a period to within 500 ppm, as far as a daemon may slew the clock;
    its marker and its generation counter are 1. It is UTC in this machine's counter, so that is what the page has
    to say, in a segment with room for the generation: ``SegmentWriter(path, size=112).write(make_body(),
    counter_id=COUNTER_ID)``. The first call takes 10 ms, to measure the period.

    Args:
        overrides: fields of ``VMClockBody`` in other values. A value raises its validity flag, and None clears it
            (``time_maxerror_nanosec=None``: no bound), but for ``flags`` themselves, which are taken as they are.

    Raises:
        TypeError: a body has no such field.
        pydantic.ValidationError: a value is out of the field's range.
    """
    first = {"disruption_marker": 1, "vm_generation_counter": 1}
    return applied(VMClockBody(), {**first, **measured_here(), **overrides})
