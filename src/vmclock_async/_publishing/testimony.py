"""What one source has told so far: its time, its calendar, its marker, and what of that still counts.

In every body the bound is at least the estimated error: a bound below it is not a bound. What a source says is raised
to that where it is heard, before anything is made of it.
"""

from typing import Final, final

from vmclock_async._publishing.disruptions import is_own
from vmclock_async.abi import TELLS_TIME, CounterId, Flags, LeapIndicator, TimeType
from vmclock_async.models import BodyUpdate, Contents, VMClockBody
from vmclock_async.timebase import COUNTER_ID

__all__ = ("CALENDAR", "NOTICES", "TIME", "Testimony")

TIME: Final = BodyUpdate.MEASURED_FIELDS | {"clock_status"}
"""Fields of the body in the group of the time."""
CALENDAR: Final = frozenset({"tai_offset_sec", "leap_indicator", "leap_second_smearing_hint"})
NOTICES: Final = Flags(BodyUpdate.SPOKEN_FLAGS & ~Flags.TIME_MONOTONIC.value)
"""DISRUPTION_SOON, DISRUPTION_IMMINENT, and bits without a name."""
_TIME_GROUP: Final = TIME | {"counter_id", "time_type"}

_BOUNDS: Final = (
    (
        "time_maxerror_nanosec",
        "time_esterror_nanosec",
        (Flags.TIME_MAXERROR_VALID | Flags.TIME_ESTERROR_VALID).value,
    ),
    (
        "counter_period_maxerror_rate_frac_sec",
        "counter_period_esterror_rate_frac_sec",
        (Flags.PERIOD_MAXERROR_VALID | Flags.PERIOD_ESTERROR_VALID).value,
    ),
)
"""Each bound, the estimate that it is not to be below, and the flags without which there is none to compare."""


@final
class Testimony:
    """What one source has told so far."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.contents = Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC)
        self.has_marker = self.has_generation = self.has_notices = self.has_calendar = False
        self.has_time = False
        """Whether it has said anything of the time, if only a status."""
        self.measured = False
        """Whether it has a measurement of this epoch."""
        self.void = False
        """Whether it had one of an epoch that has ended, and none since."""
        self.unpublished = False
        """Whether that measurement is yet to be published."""
        self.expressed: Contents | None = None
        """That time with its calendar, in the segment's constants; None where it cannot be, or is yet to be made."""
        self.expressed_from: tuple[object, ...] = ()
        """What ``expressed`` was made from: ``contents``, the calendar, the segment's timescale."""
        self._void_measured: tuple[int, ...] = ()
        self._heard = False
        """Whether it has told anything before."""

    def hear(self, update: BodyUpdate, header: Contents) -> bool:
        """Take *update*; constants that this source never spoke of are those of *header*. Whether it measured."""
        spoken = update.model_fields_set
        if self.contents.counter_id == CounterId.INVALID:
            counter_id = header.counter_id
            if counter_id == CounterId.INVALID and update.measures:
                counter_id = COUNTER_ID  # to measure is to say that the counter is fit
            time_type = self.contents.time_type if self._heard else header.time_type
            self.contents = self.contents._replace(counter_id=counter_id, time_type=time_type)
        self.contents = _with_honest_bound(self.contents.updated(update))
        body = self.contents.body
        measured = False
        if update.counter_id == CounterId.INVALID:
            self.has_time = self.measured = self.unpublished = False
        elif spoken & _TIME_GROUP:
            self.has_time = True
            if update.verbatim and self._is_said_again(header):
                self._become_void()
            elif measured := update.measures:
                self.measured = self.unpublished = True
                self.void = False
        if update.verbatim:
            self.has_marker = self.has_notices = True
            self.has_generation = body.vm_generation_counter is not None
            self.has_calendar = _tells_calendar(body)
        else:
            self.has_marker |= "disruption_marker" in spoken
            self.has_generation |= "vm_generation_counter" in spoken
            self.has_notices |= bool(body.flags & NOTICES)
            self.has_calendar |= bool(spoken & CALENDAR)
        self._heard = True
        return measured

    def _is_said_again(self, published: Contents) -> bool:
        """Whether this page tells what is void, or may be: at first where *published* has more to its marker."""
        body = self.contents.body
        if self._heard:
            return self.void and _measured(body) == self._void_measured
        return is_own(published.body.disruption_marker - body.disruption_marker)

    def end_epoch(self) -> None:
        """What it measured is void."""
        if self.measured:
            self._become_void()
        self.measured = self.unpublished = False

    def _become_void(self) -> None:
        self.void = True
        self._void_measured = _measured(self.contents.body)

    def is_usable(self) -> bool:
        """Whether it has a time that holds, of whatever age."""
        return self.measured and self.contents.body.clock_status in TELLS_TIME


def _measured(body: VMClockBody) -> tuple[int, ...]:
    return tuple(getattr(body, name) for name in sorted(BodyUpdate.MEASURED_FIELDS))


def _tells_calendar(body: VMClockBody) -> bool:
    tells_time = body.clock_status in TELLS_TIME and body.counter_period_frac_sec != 0
    return tells_time or bool(body.flags & Flags.TAI_OFFSET_VALID) or body.leap_indicator != LeapIndicator.NONE


def _with_honest_bound(contents: Contents) -> Contents:
    """*contents*, whose bounds are at least their estimated errors."""
    body = contents.body
    values = {
        most: getattr(body, estimated)
        for most, estimated, flags in _BOUNDS
        if int(body.flags) & flags == flags and getattr(body, most) < getattr(body, estimated)
    }
    return contents.with_values(**values) if values else contents
