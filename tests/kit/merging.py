"""What tests of merging share: measurements of a counter at 1 GHz, pages, and what becomes of them."""

from typing import ClassVar

from pydantic import BaseModel

from vmclock_async import BodyUpdate, ClockStatus, CounterId, Emit, Flags, TimeType, VMClockBody
from vmclock_async._publishing.merger import Merger, Observed
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import COUNTER_ID, fixed_point_period

SECOND = 10**9
"""Ticks and nanoseconds: the counter here runs at 1 GHz."""
NOW_NS = 1_790_000_000 * SECOND
BOUNDS = (
    Flags.TIME_MAXERROR_VALID
    | Flags.TIME_ESTERROR_VALID
    | Flags.PERIOD_MAXERROR_VALID
    | Flags.PERIOD_ESTERROR_VALID
)
COLD = Contents(VMClockBody(), CounterId.ARM_VCNT, TimeType.UTC)


class Silent:
    """A source that says nothing by itself."""

    settings_type: ClassVar[type[BaseModel]] = BaseModel

    async def run(self, emit: Emit) -> None:
        """Nothing to emit."""


def measurement(
    counter: int, *, error_ns: int = 100, off_ns: int = 0, ppm: int = 50, **more: int | None
) -> BodyUpdate:
    """True time at *counter*, which is as many nanoseconds after NOW_NS, plus *off_ns*."""
    period = fixed_point_period(1, 1)
    sec, ns = divmod(NOW_NS + counter + off_ns, SECOND)
    values: dict[str, int | None] = {
        "counter_id": COUNTER_ID,
        "time_type": TimeType.UTC,
        "clock_status": ClockStatus.SYNCHRONIZED,
        "counter_value": counter,
        "counter_period_shift": period.shift,
        "counter_period_frac_sec": period.frac_sec,
        "counter_period_maxerror_rate_frac_sec": -(-period.frac_sec * ppm // 10**6),
        "time_sec": sec,
        "time_frac_sec": (ns << 64) // SECOND,
        "time_esterror_nanosec": 10,
        "time_maxerror_nanosec": error_ns,
    }
    return BodyUpdate.model_validate(values | more)


def page(**fields: object) -> BodyUpdate:
    """A whole body, as that of a device which tells no time."""
    body = VMClockBody.model_validate(fields)
    return BodyUpdate.from_body(body, counter_id=CounterId.INVALID, time_type=TimeType.UTC)


def time_page(update: BodyUpdate, **fields: object) -> BodyUpdate:
    """The page of a device that tells the time of *update*."""
    body = update.applied_to(VMClockBody.model_validate(fields))
    return BodyUpdate.from_body(body, counter_id=COUNTER_ID, time_type=TimeType.UTC)


def merger(*names: str, contents: Contents = COLD) -> Merger:
    """A merger of the sources *names*, cold unless it is given contents."""
    return Merger(names, contents, cold=contents is COLD)


def told(merger: Merger, name: str, update: BodyUpdate, at: int) -> Contents:
    """What is published when *name* has told *update*, at the counter value *at*.

    As in the publisher, a measurement from before a disruption that is only now noticed is dropped; a page is not.
    """
    epoch = merger.epoch
    merger.notice(Observed(at))
    if merger.epoch == epoch or "disruption_marker" in update.model_fields_set:
        merger.hear(name, update)
    return committed(merger)


def composed(merger: Merger, at: int) -> Contents:
    """What is published at the counter value *at*, when nobody says anything."""
    merger.notice(Observed(at))
    return committed(merger)


def committed(merger: Merger) -> Contents:
    """What *merger* composes, committed."""
    contents = merger.compose()
    merger.committed()
    return contents


def assert_given(contents: Contents, at: int, earliest_ns: int, latest_ns: int) -> None:
    """What readers are given at *at*, from NOW_NS, is that interval, rounded outward by 4 ns at most."""
    given = bounds_at(contents, at, counter_id=COUNTER_ID)
    assert 0 <= earliest_ns - (given.earliest_ns - NOW_NS) <= 4
    assert 0 <= given.latest_ns - NOW_NS - latest_ns <= 4
