"""Bodies that contain a time: of this machine, or of a counter and a time that a test makes up."""

import time
from fractions import Fraction
from functools import cache
from typing import Any, Final

from vmclock_async.models import BodyUpdate, VMClockBody
from vmclock_async.timebase import Calibration, Rate, pair

__all__ = ("MAX_ERROR_NS", "applied", "make_body", "measured", "measured_here")

MAX_ERROR_NS: Final = 1_000_000
_DRIFT: Final = Fraction(500, 10**6)
"""The most by which CLOCK_REALTIME may be slewed (kernel/time/ntp.c), so that a test may compare with it."""
_CALIBRATION_NS: Final = 10_000_000

_calibration: Final = Calibration()
_imported_ns: Final = time.monotonic_ns()


@cache
def _rate() -> Rate:
    """The counter's rate, from the import of this module until now, but over at least 10 ms."""
    time.sleep(max(0, _imported_ns + _CALIBRATION_NS - time.monotonic_ns()) / 1e9)
    return _calibration.rate()


def measured(
    counter_ticks: int, utc_ns: int, *, rate: Rate, drift: Fraction, max_error_ns: int = MAX_ERROR_NS
) -> dict[str, Any]:
    """Fields of a synchronized time: UTC was *utc_ns* at *counter_ticks*, give or take *max_error_ns*."""
    update = BodyUpdate.measured(
        counter_ticks=counter_ticks, utc_ns=utc_ns, error_ns=max_error_ns, rate=rate, drift=drift
    )
    return update.model_dump(exclude={"counter_id", "time_type"}, exclude_none=True)


def measured_here(shift_ns: int = 0) -> dict[str, Any]:
    """Fields of a synchronized time: this machine's counter and CLOCK_REALTIME, *shift_ns* later."""
    rate, now = _rate(), pair(time.CLOCK_REALTIME)
    return measured(now.counter_ticks, now.clock_ns + shift_ns, rate=rate, drift=_DRIFT)


def applied(body: VMClockBody, fields: dict[str, Any]) -> VMClockBody:
    """*body* with *fields*: a value raises its validity flag, None clears it; ``flags`` are taken as they are."""
    if unknown := fields.keys() - VMClockBody.model_fields.keys():
        raise TypeError(f"a body has no {', '.join(sorted(unknown))}")
    body = BodyUpdate(**fields).applied_to(body)
    return VMClockBody(**{**dict(body), "flags": fields["flags"]}) if "flags" in fields else body


def make_body(**overrides: Any) -> VMClockBody:
    """A synchronized body of this machine: its counter and CLOCK_REALTIME as they are now.

    It promises UTC to within a millisecond, and a period to within 500 ppm, the most by which a daemon may slew the
    clock; its marker and its generation counter are 1. The page has to say that this is UTC in this machine's counter,
    and needs room for the generation: ``SegmentWriter(path, size=112).write(make_body(), counter_id=COUNTER_ID)``. The
    first call takes 10 ms, to measure the period.

    Args:
        overrides: fields of ``VMClockBody`` with other values. A value raises its validity flag, and None clears it
            (``time_maxerror_nanosec=None``: no bound). ``flags`` themselves are taken as they are.

    Raises:
        TypeError: a body has no such field.
        pydantic.ValidationError: a value is out of the field's range.
    """
    first = {"disruption_marker": 1, "vm_generation_counter": 1}
    return applied(VMClockBody(), {**first, **measured_here(), **overrides})
