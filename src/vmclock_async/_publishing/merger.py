"""Merging: one body from what several sources say.

A ``BodyUpdate`` speaks only for the fields it sets, and a whole body for what its page has: a page whose
counter_id is INVALID tells no time, one without a valid TAI offset, leap announcement or time has no calendar. The
fields fall into three groups, each taken from the first listed source that has it:

* disruption: disruption_marker, vm_generation_counter, and the notices in flags. Here each of the three has its
  own first source: one that only announces maintenance must not hide the marker of the device.
* time: counter_*, time_*, clock_status, their validity flags, TIME_MONOTONIC, and counter_id and time_type.
* calendar: tai_offset_sec, leap_indicator, leap_second_smearing_hint. A time brings its own, where its source has
  one: the offset is that of the reference time, and another's would be a second off around a leap.

Disruption and calendar are held when their source is gone. The time is that of the first source whose measurement
is not quiet, and gives readers on this machine an interval; where there is none, the last one is held, and ages. What
nobody here can use (no bound, another counter, a timescale that is not the segment's and cannot be turned into it)
displaces nothing that gives an interval, and is published only where nothing does. A source that has nothing measured
yet (INITIALIZING: a chronyd that has just started) displaces nothing that still holds, its own included; so a restart
is no outage.

In every body the bound is at least the estimated error: a source that states less has no bound to state.

A new measurement is nested into what was published; between measurements only status and flags change. What was
published before this publisher began is held like any other time. If there were disruptions that the device does
not know of, the page that is read first may be from before them, and waits for its next change.

The rules for disruptions, nesting, quiet sources and the segment's constants are in the modules of these names. Nothing
here waits or looks at a clock: the counter is an argument. Whatever values a valid update has, nothing here raises.
"""

import logging
from collections.abc import Iterable
from typing import Final, final

from vmclock_async._publishing.ageing import BOUND_FLAGS, aged, closed, is_ahead, is_quiet, void
from vmclock_async._publishing.complaints import Complaints
from vmclock_async._publishing.constants import Constants
from vmclock_async._publishing.disruptions import Disruptions
from vmclock_async._publishing.nesting import nested
from vmclock_async._publishing.relaying import relayed
from vmclock_async._publishing.testimony import CALENDAR, NOTICES, TIME, Testimony
from vmclock_async.abi import TELLS_TIME, ClockStatus, CounterId, Flags, TimeType
from vmclock_async.models import BodyUpdate, Contents, VMClockBody
from vmclock_async.reckoning import gives_interval, went_back
from vmclock_async.timebase import COUNTER_ID

__all__ = ("Merger",)

_TIME_FLAGS: Final = BOUND_FLAGS | Flags.TIME_MONOTONIC
_HELD: Final = (*TELLS_TIME, ClockStatus.INITIALIZING)
"""Statuses of a source that takes nothing back of what it measured."""

_log: Final = logging.getLogger("vmclock_async.publisher")


def _is_promise(contents: Contents) -> bool:
    body = contents.body
    bounds = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
    return body.clock_status in TELLS_TIME and body.flags & bounds == bounds


@final
class Merger:
    """The contents to publish, from what the sources called *names* say, in order of rank.

    Args:
        names: of the sources.
        contents: those of the segment.
        cold: whether nobody can have read them.
        epoch: number of the first epoch.
        device_marker: the device's marker that was last seen; None: it is not known.
    """

    def __init__(
        self,
        names: Iterable[str],
        contents: Contents,
        *,
        cold: bool,
        epoch: int = 0,
        device_marker: int | None = None,
    ) -> None:
        self.contents = contents._replace(counter_id=COUNTER_ID) if cold else contents
        """Last composed."""
        self.complaints: Final = Complaints(_log)
        """What to say of the sources in the log."""
        self._promise: Contents | None = None
        """The last contents that gave readers a bounded time, unless a disruption has ended it."""
        self._looked: tuple[int, int] | None = None
        """The counter and the epoch at the last look."""
        self.disruptions: Final = Disruptions(
            contents.body.disruption_marker, cold=cold, epoch=epoch, device_marker=device_marker
        )
        self._constants: Final = Constants(contents, cold=cold)
        self._told: Final = {name: Testimony(name) for name in names}
        self._time: Testimony | None = None
        """Whose time is published; None: what was there before, or none."""

    @property
    def groups(self) -> dict[str, str | None]:
        """Which source each group comes from; None where it is held from before, or nobody has it."""
        calendar = self._calendar_source()
        return {
            "disruption": self.marker_source,
            "time": self._time.name if self._time else None,
            "calendar": calendar.name if calendar else None,
        }

    @property
    def marker_source(self) -> str | None:
        """The source whose marker is published."""
        told = self._first("has_marker")
        return told.name if told else None

    def marker_is(self, name: str, marker: int) -> None:
        """The marker of the source *name* was looked at, and is *marker*: a new one voids every time."""
        told = self._told[name]
        told.has_marker = True
        if told is self._first("has_marker"):
            self._device_says(name, marker)

    def look(self, counter: int) -> None:
        """Take note of a counter that went back: what it measured before means nothing now."""
        if self._looked is None:
            is_reset = self._holds_time() and is_ahead(self.contents, counter)
        else:
            before, epoch = self._looked
            # In a new epoch that is known already, along with what was the cause.
            is_reset = went_back(before, counter) and epoch == self.disruptions.epoch
        if is_reset:
            self.interrupted("the counter went back")
        self._looked = counter, self.disruptions.epoch

    def interrupted(self, reason: str) -> None:
        """The counter was disrupted on this machine's own account: every time is void."""
        self.disruptions.interrupted()
        self._end_epoch(reason)

    def hear(self, name: str, update: BodyUpdate, *, looked_at: int | None = None) -> None:
        """Take *update* of the source *name*; *looked_at* is its marker at this moment, where it can be asked."""
        told = self._told[name]
        measured = told.hear(update, self.contents)
        if update.counter_id == CounterId.INVALID and (told is self._time or not self._holds_time()):
            self.contents = void(self.contents)
            if not update.verbatim:  # a page that tells no time says nothing of this machine's counter
                self.contents = self.contents._replace(counter_id=CounterId.INVALID)
            self._time = None
        if "disruption_marker" not in update.model_fields_set or told is not self._first("has_marker"):
            return
        marker = told.contents.body.disruption_marker
        if looked_at is not None and marker != looked_at:
            told.end_epoch()  # overtaken: it has changed again since, and the change was seen
        elif self._device_says(name, marker):
            # The time that came along with the new marker is the one that is not void.
            told.measured = told.unpublished = measured

    def _device_says(self, name: str, marker: int) -> bool:
        """Take the published *marker*, of the source *name*; whether that voids every time."""
        if self.disruptions.device_says(marker):
            self._end_epoch(f"the disruption marker of {name} is now {marker}")
            return True
        if self.disruptions.cold:
            # No event for readers, who know of nothing yet. But what was measured may be from before it.
            self._void_all_but(self._told[name])
        return False

    def relay(self, update: BodyUpdate) -> Contents:
        """The contents to publish where *update* is copied verbatim."""
        self.contents = relayed(self.contents, update)
        self._constants.found(self.contents)
        (told,) = self._told.values()
        told.hear(update, self.contents)
        told.unpublished = False
        self._time = told if told.has_time else None
        self.disruptions.relayed(self.contents.body.disruption_marker)
        return self.contents

    def compose(self, counter: int) -> Contents:
        """The contents to publish when the counter is at *counter*."""
        self.look(counter)
        before, earlier = self._time, self.contents
        if _is_promise(earlier):
            self._promise = earlier
        told = self._time = self._choose(counter)
        if told is None:
            contents = aged(self._with_calendar(earlier), earlier, counter)
        elif not told.measured:
            contents = self._unmeasured(self._with_calendar(earlier), told)
        elif (time := self._expressed(told, counter)) is None:
            contents = void(earlier)
            told.unpublished = True
            self.complaints.add(told.name, "time in other constants", self._constants.refusal(told.contents))
        else:
            if told.unpublished or told is not before:
                contents = self._nested(told, time, earlier, counter)
            else:
                contents = _with_status(self._with_calendar(earlier), told.contents.body)
            contents = aged(contents, told.contents, counter)
        self.contents = self._with_disruption(contents)
        return self.contents

    def close(self) -> Contents:
        """The contents to leave behind. A status that came without a time has nothing that could run free."""
        if self._time is None or self._time.measured:
            self.contents = closed(self.contents)
        return self.contents

    def _first(self, has: str) -> Testimony | None:
        return next((told for told in self._told.values() if getattr(told, has)), None)

    def _holds_time(self) -> bool:
        """Whether a time is published that readers would lose."""
        body = self.contents.body
        return body.clock_status in TELLS_TIME and bool(body.flags & BOUND_FLAGS)

    def _choose(self, counter: int) -> Testimony | None:
        """Whose time to publish; None for what was there before."""
        usable = [told for told in self._told.values() if told.is_usable()]
        quiet = [told for told in usable if is_quiet(told.contents, counter)]
        fresh = [told for told in usable if told not in quiet]
        if readable := next((told for told in fresh if self._is_readable(told, counter)), None):
            return readable
        if self._is_still_readable(counter):
            return self._time
        if readable := next((told for told in quiet if self._is_readable(told, counter)), None):
            return readable
        if fresh:
            return next((told for told in fresh if self._counts_here(told, counter)), fresh[0])
        return self._time if self._time or self._holds_time() else self._first("has_time")

    def _is_readable(self, told: Testimony, counter: int) -> bool:
        """Whether readers on this machine would get an interval from what *told* measured."""
        time = self._expressed(told, counter)
        return time is not None and gives_interval(time, counter, counter_id=COUNTER_ID)

    def _counts_here(self, told: Testimony, counter: int) -> bool:
        """Whether what *told* measured is at least a time in this machine's counter, if without a bound."""
        time = self._expressed(told, counter)
        return time is not None and time.counter_id == COUNTER_ID and time.body.counter_period_frac_sec > 0

    def _is_still_readable(self, counter: int) -> bool:
        """Whether readers get an interval from what is published, and its source takes nothing of it back."""
        told = self._time
        if told is not None and (told.unpublished or told.contents.body.clock_status not in _HELD):
            return False
        return gives_interval(self.contents, counter, counter_id=COUNTER_ID)

    def _expressed(self, told: Testimony, counter: int) -> Contents | None:
        """What *told* measured, with the calendar that goes with it, in the segment's constants; None: it cannot be."""
        source = told if told.has_calendar else self._first("has_calendar")
        calendar = source.contents.body if source else self.contents.body
        dated = (
            calendar.tai_offset_sec,
            calendar.leap_indicator,
            calendar.leap_second_smearing_hint,
            calendar.flags,
        )
        made_from = (told.contents, dated, self._constants.time_type)
        if told.expressed is None or told.expressed_from != made_from:
            time = told.contents
            if source is not told:
                time = time.with_values(**{name: getattr(calendar, name) for name in CALENDAR})
                time = time.with_flags(calendar, Flags.TAI_OFFSET_VALID)
            told.expressed = self._constants.expressed(time, self.contents, counter)
            told.expressed_from = made_from
        return told.expressed

    def _nested(self, told: Testimony, time: Contents, earlier: Contents, counter: int) -> Contents:
        """*time*, which *told* measured, nested into *earlier*."""
        told.unpublished = False
        fresh = earlier.with_values(**{name: getattr(time.body, name) for name in TIME | CALENDAR})
        fresh = fresh.with_flags(time.body, _TIME_FLAGS | Flags.TAI_OFFSET_VALID)
        fresh = fresh._replace(counter_id=time.counter_id, time_type=time.time_type)
        contents, contradiction = nested(fresh, self._promise or earlier, counter)
        if contradiction:
            # Whose fault it was cannot be told: perhaps the counter jumped, and others measured before.
            self.disruptions.promise_broken()
            self._void_all_but(told)
            self.complaints.add(
                told.name,
                "contradiction",
                f"contradicts what was published: {contradiction}; it is published under a new disruption marker",
            )
        body = contents.body
        if contents.counter_id == COUNTER_ID and body.clock_status in TELLS_TIME and body.counter_period_frac_sec:
            self._constants.keep(contents)
        return contents

    def _unmeasured(self, contents: Contents, told: Testimony) -> Contents:
        """*contents* where *told*, without a measurement, has but a status to tell."""
        contents = void(contents)._replace(counter_id=told.contents.counter_id)
        if self._constants.time_type is None:
            contents = contents._replace(time_type=told.contents.time_type)
        elif told.contents.counter_id != CounterId.INVALID:
            contents = contents._replace(counter_id=COUNTER_ID)
        status = told.contents.body.clock_status
        # A void time must not keep the status SYNCHRONIZED.
        return contents if told.void and status in TELLS_TIME else contents.with_values(clock_status=status)

    def _calendar_source(self) -> Testimony | None:
        if self._time is not None and self._time.has_calendar:
            return self._time
        return self._first("has_calendar")

    def _with_calendar(self, contents: Contents) -> Contents:
        """*contents*, measured before, with the calendar as it is now."""
        told = self._calendar_source()
        if told is None or (self._time is None and self._holds_time()):
            return contents
        body = told.contents.body
        names = CALENDAR
        if contents.time_type == TimeType.TAI and told.contents.time_type != TimeType.TAI:
            names = CALENDAR - {"tai_offset_sec"}  # with another the time would be another
        else:
            contents = contents.with_flags(body, Flags.TAI_OFFSET_VALID)
        return contents.with_values(**{name: getattr(body, name) for name in names})

    def _with_disruption(self, contents: Contents) -> Contents:
        contents = contents.with_values(disruption_marker=self.disruptions.marker)
        if told := self._first("has_generation"):
            generation = told.contents.body.vm_generation_counter
            contents = contents.with_values(vm_generation_counter=generation)
            contents = contents.with_flags(told.contents.body, Flags.VM_GEN_COUNTER_PRESENT)
        if told := self._first("has_notices"):
            contents = contents.with_flags(told.contents.body, NOTICES)
        # Of a device's page: there is no descriptor of this one that could be waited on.
        return contents.with_flags(VMClockBody(), Flags.NOTIFICATION_PRESENT)

    def _end_epoch(self, reason: str) -> None:
        _log.info("%s: the time is void until it is measured again", reason)
        self._void_all_but(None)
        self.contents = void(self.contents)
        self._promise = self._time = None

    def _void_all_but(self, measuring: Testimony | None) -> None:
        for told in self._told.values():
            if told is not measuring:
                told.end_epoch()


def _with_status(contents: Contents, body: VMClockBody) -> Contents:
    """*contents*, measured before, with the status and the flags of the time that *body* has now."""
    if body.clock_status == ClockStatus.INITIALIZING and contents.body.clock_status in TELLS_TIME:
        return closed(contents)  # its source begins again: what it measured before holds, and runs free
    return contents.with_flags(body, _TIME_FLAGS).with_values(clock_status=body.clock_status)
