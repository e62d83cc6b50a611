"""The testimony of one source: its time, its calendar, its marker, and which of these still count.

In every body the bound is at least the estimated error, because a bound below it is not a bound. A smaller bound is
raised to the estimated error as soon as an update comes in, before anything uses it.
"""

from enum import Enum, auto
from typing import Final, final

from vmclock_async._publishing.disruptions import is_own
from vmclock_async._publishing.draft import TAI_OFFSET_VALID, Draft
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
"""Each bound, the estimate that it must not be below, and the flags that both must have for a comparison."""
_ESTIMATES: Final = (Flags.TIME_ESTERROR_VALID | Flags.PERIOD_ESTERROR_VALID).value


class TimeState(Enum):
    """The state of a source's measurement."""

    NONE = auto()
    """There is no measurement that counts."""
    FRESH = auto()
    """A time of this epoch that is not published yet."""
    PUBLISHED = auto()
    """A time of this epoch that is published, or was passed over."""
    VOID = auto()
    """A time of an epoch that has ended; there is none since."""


_FRESH: Final = TimeState.FRESH
_COUNTS: Final = (_FRESH, TimeState.PUBLISHED)


@final
class Testimony:
    """The fields that one source has given so far, and their state."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.contents = Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC)
        self.has_marker = self.has_generation = self.has_notices = self.has_calendar = False
        self.has_time = False
        """Whether it has given a field of the time, if only a status."""
        self.state = TimeState.NONE
        self.expressed: Contents | None = None
        """The time with its calendar, in the segment's constants; None where that is impossible, or not made yet."""
        self.expressed_of: tuple[Contents, VMClockBody, int | None] = self.contents, self.contents.body, None
        """The ``contents``, the body with the calendar and the segment's timescale of which ``expressed`` was made."""
        self._void_measured: tuple[int, ...] = ()
        self._is_heard = False
        """Whether an update has come before."""

    @property
    def has_measured(self) -> bool:
        """Whether it has a measurement of this epoch."""
        return self.state in _COUNTS

    @property
    def is_usable(self) -> bool:
        """Whether it has a time that holds, however old."""
        return self.state in _COUNTS and self.contents.body.clock_status in TELLS_TIME

    def hear(self, update: BodyUpdate, header: Contents) -> bool:
        """Take *update*; constants that the source never gave are those of *header*. Returns whether it measured."""
        contents, spoken, measures = self.contents, update.__pydantic_fields_set__, update.measures
        if contents.counter_id == _INVALID:
            counter_id = header.counter_id
            if counter_id == _INVALID and measures:
                counter_id = COUNTER_ID  # to measure is to say that the counter is fit
            contents = Contents(
                contents.body, counter_id, contents.time_type if self._is_heard else header.time_type
            )
        contents = _with_honest_bound(contents.updated(update))
        # A page is often said again, and then the results made from it still hold; a measurement never is.
        if not update.verbatim or contents != self.contents:
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
                self.state = _FRESH
        if not spoken <= _TIME_GROUP:  # most updates are of the time alone
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
        """Whether this page repeats a void time. A first page may, if *published* adds disruptions to its marker."""
        body = self.contents.body
        if self._is_heard:
            return self.state is TimeState.VOID and _measured(body) == self._void_measured
        return is_own(published.body.disruption_marker - body.disruption_marker)

    def end_epoch(self) -> None:
        """Void its measurement."""
        if self.has_measured:
            self._become_void()

    def _become_void(self) -> None:
        self.state = TimeState.VOID
        self._void_measured = _measured(self.contents.body)


def _measured(body: VMClockBody) -> tuple[int, ...]:
    return tuple(getattr(body, name) for name in sorted(BodyUpdate.MEASURED_FIELDS))


def _tells_calendar(body: VMClockBody) -> bool:
    tells_time = body.clock_status in TELLS_TIME and body.counter_period_frac_sec != 0
    return tells_time or bool(int(body.flags) & TAI_OFFSET_VALID) or body.leap_indicator != LeapIndicator.NONE


def _with_honest_bound(contents: Contents) -> Contents:
    """*contents*, whose bounds are at least their estimated errors."""
    values = contents.body.__dict__
    flags = int(values["flags"])
    if not flags & _ESTIMATES:
        return contents
    for most, estimated, needed in _BOUNDS:
        if flags & needed == needed and values[most] < values[estimated]:
            draft = Draft(contents)
            draft.values[most] = values[estimated]
            contents = draft.freeze()
    return contents
