"""From a measurement in nanoseconds to the ABI's fixed point. Each rounding makes the bound larger, never smaller.

    time_sec, time_frac_sec               = the time, rounded down to 2**-64 s
    time_maxerror_nanosec                 = the error and what that rounding took, rounded up
    counter_period_frac_sec, _shift       = the period, rounded down to 2**-(64 + shift) s
    counter_period_maxerror_rate_frac_sec = the rate's own error and the drift, rounded up, and 1 for that rounding

An error that its field cannot hold is None, which says that there is no bound. Source: ``vmclock-abi.h``.
"""

import math
from fractions import Fraction
from typing import Any

from vmclock_async.abi import TimeType
from vmclock_async.timebase import COUNTER_ID, Rate

__all__ = ("measured_fields",)


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
    """The fields of ``BodyUpdate.measured`` that follow from these; arguments and errors are its own."""
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
