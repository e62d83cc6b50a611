"""What one source has told so far: its time, its calendar, its marker, and what of that still counts.

In every body the bound is at least the estimated error: a bound below it is not a bound. What a source says is raised
to that where it is heard, before anything is made of it.
"""

from enum import Enum, auto
from typing import Final, final

from vmclock_async._publishing.disruptions import is_own
from vmclock_async._publishing.draft import Draft
from vmclock_async.abi import TELLS_TIME, CounterId, Flags, LeapIndicator, TimeType
from vmclock_async.models import BodyUpdate, Contents, VMClockBody
from vmclock_async.timebase import COUNTER_ID

__all__ = ("CALENDAR", "NOTICES", "TIME", "Testimony", "TimeState")

TIME: Final = BodyUpdate.MEASURED_FIELDS | {"clock_status"}
"""Fields of the body in the group of the time."""
CALENDAR: Final = frozenset({"tai_offset_sec", "leap_indicator", "leap_second_smearing_hint"})
NOTICES: Final = BodyUpdate.SPOKEN_FLAGS.value & ~Flags.TIME_MONOTONIC.value
"""DISRUPTION_SOON, DISRUPTION_IMMINENT, and bits without a name."""
_INVALID: Final = CounterId.INVALID
_TAI_OFFSET_VALID: Final = Flags.TAI_OFFSET_VALID.value
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


class TimeState(Enum):
    """What a source has measured, and what became of that."""

    NONE = auto()
    """Nothing that counts."""
    FRESH = auto()
    """A time of this epoch that is not published yet."""
    PUBLISHED = auto()
    """A time of this epoch that is published, or was passed over."""
    VOID = auto()
    """A time of an epoch that has ended, and none since."""


_COUNTS: Final = (TimeState.FRESH, TimeState.PUBLISHED)


@final
class Testimony:
    """What one source has told so far."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.contents = Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC)
        self.has_marker = self.has_generation = self.has_notices = self.has_calendar = False
        self.has_time = False
        """Whether it has said anything of the time, if only a status."""
        self.state = TimeState.NONE
        self.expressed: Contents | None = None
        """That time with its calendar, in the segment's constants; None where it cannot be, or is yet to be made."""
        self.expressed_of: Contents | None = None
        """The ``contents`` that ``expressed`` was made of."""
        self.expressed_with: tuple[object, ...] = ()
        """The calendar and the segment's timescale with which it was."""
        self._void_measured: tuple[int, ...] = ()
        self._is_heard = False
        """Whether it has told anything before."""

    @property
    def has_measured(self) -> bool:
        """Whether it has a measurement of this epoch."""
        return self.state in _COUNTS

    @property
    def is_usable(self) -> bool:
        """Whether it has a time that holds, of whatever age."""
        return self.state in _COUNTS and self.contents.body.clock_status in TELLS_TIME

    def hear(self, update: BodyUpdate, header: Contents) -> bool:
        """Take *update*; constants that this source never spoke of are those of *header*. Whether it measured."""
        contents, spoken, measures = self.contents, update.__pydantic_fields_set__, update.measures
        if contents.counter_id == _INVALID:
            counter_id = header.counter_id
            if counter_id == _INVALID and measures:
                counter_id = COUNTER_ID  # to measure is to say that the counter is fit
            contents = Contents(
                contents.body, counter_id, contents.time_type if self._is_heard else header.time_type
            )
        contents = _with_honest_bound(contents.updated(update))
        if contents != self.contents:  # else what was made of them still holds
            self.contents = contents
        measured = False
        if update.counter_id == _INVALID:
            self.has_time = False
            if self.state is not TimeState.VOID:
                self.state = TimeState.NONE
        elif not _TIME_GROUP.isdisjoint(spoken):
            self.has_time = True
            if update.verbatim and self._is_said_again(header):
                self._become_void()
            elif measures:
                measured = True
                self.state = TimeState.FRESH
        self._note_groups(update, spoken)
        self._is_heard = True
        return measured

    def _note_groups(self, update: BodyUpdate, spoken: set[str]) -> None:
        body = self.contents.body
        if update.verbatim:
            self.has_marker = self.has_notices = True
            self.has_generation = body.vm_generation_counter is not None
            self.has_calendar = _tells_calendar(body)
        else:
            self.has_marker |= "disruption_marker" in spoken
            self.has_generation |= "vm_generation_counter" in spoken
            self.has_notices |= int(body.flags) & NOTICES != 0
            self.has_calendar |= not CALENDAR.isdisjoint(spoken)

    def _is_said_again(self, published: Contents) -> bool:
        """Whether this page tells what is void, or may be: at first where *published* has more to its marker."""
        body = self.contents.body
        if self._is_heard:
            return self.state is TimeState.VOID and _measured(body) == self._void_measured
        return is_own(published.body.disruption_marker - body.disruption_marker)

    def end_epoch(self) -> None:
        """Let what it measured be void."""
        if self.has_measured:
            self._become_void()

    def _become_void(self) -> None:
        self.state = TimeState.VOID
        self._void_measured = _measured(self.contents.body)


def _measured(body: VMClockBody) -> tuple[int, ...]:
    return tuple(getattr(body, name) for name in sorted(BodyUpdate.MEASURED_FIELDS))


def _tells_calendar(body: VMClockBody) -> bool:
    tells_time = body.clock_status in TELLS_TIME and body.counter_period_frac_sec != 0
    return tells_time or bool(int(body.flags) & _TAI_OFFSET_VALID) or body.leap_indicator != LeapIndicator.NONE


def _with_honest_bound(contents: Contents) -> Contents:
    """*contents*, whose bounds are at least their estimated errors."""
    values = contents.body.__dict__
    flags = int(values["flags"])
    for most, estimated, needed in _BOUNDS:
        if flags & needed == needed and values[most] < values[estimated]:
            draft = Draft(contents)
            draft.values[most] = values[estimated]
            contents = draft.freeze()
    return contents
