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
is not quiet; where all are, the last one is held, and ages. A source that has nothing measured yet (INITIALIZING:
a chronyd that has just started) displaces nothing that still holds, its own included; so a restart is no outage.

A new measurement is nested into what was published; between measurements only status and flags change. What was
published before this publisher began is held like any other time. If there were disruptions that the device does
not know of, the page that is read first may be from before them, and waits for its next change.

The rules for disruptions, nesting and quiet sources are in the modules of these names. Nothing here waits or looks
at a clock: the counter is an argument.
"""

import logging
from collections.abc import Iterable
from typing import Final, final

from vmclock_async._disruption import Disruptions, is_own
from vmclock_async._nesting import nested
from vmclock_async._quiet import BOUND_FLAGS, aged, closed, is_ahead, is_quiet, void
from vmclock_async._relaying import relayed
from vmclock_async.abi import ClockStatus, CounterId, Flags, LeapIndicator, TimeType
from vmclock_async.models import BodyUpdate, Contents, VMClockBody
from vmclock_async.reckoning import went_back
from vmclock_async.timebase import COUNTER_ID

__all__ = ("Merger",)

_TIME: Final = BodyUpdate.MEASURED_FIELDS | {"clock_status"}
_TIME_GROUP: Final = _TIME | {"counter_id", "time_type"}
_CALENDAR: Final = frozenset({"tai_offset_sec", "leap_indicator", "leap_second_smearing_hint"})
_TIME_FLAGS: Final = BOUND_FLAGS | Flags.TIME_MONOTONIC
_NOTICES: Final = Flags(BodyUpdate.SPOKEN_FLAGS & ~Flags.TIME_MONOTONIC.value)
"""DISRUPTION_SOON, DISRUPTION_IMMINENT, and bits without a name."""
_USABLE: Final = (ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING)

_log: Final = logging.getLogger("vmclock_async.publisher")


@final
class _Told:
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
        self._void_measured: tuple[int, ...] = ()
        self._heard = False
        """Whether it has told anything before."""

    def hear(self, update: BodyUpdate, header: Contents) -> bool:
        """Take *update*; constants that this source never spoke of are those of *header*. Whether it measured."""
        spoken = update.model_fields_set
        if self.contents.counter_id == CounterId.INVALID:
            self.contents = self.contents._replace(counter_id=header.counter_id, time_type=header.time_type)
        self.contents = self.contents.updated(update)
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
            self.has_notices |= bool(body.flags & _NOTICES)
            self.has_calendar |= bool(spoken & _CALENDAR)
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
        return self.measured and self.contents.body.clock_status in _USABLE

    def is_readable(self) -> bool:
        """Whether that time is one that readers on this machine can make use of."""
        body = self.contents.body
        return self.contents.counter_id == COUNTER_ID and body.counter_period_frac_sec > 0


def _measured(body: VMClockBody) -> tuple[int, ...]:
    return tuple(getattr(body, name) for name in sorted(BodyUpdate.MEASURED_FIELDS))


def _is_promise(contents: Contents) -> bool:
    body = contents.body
    bounds = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
    return body.clock_status in _USABLE and body.flags & bounds == bounds


def _tells_calendar(body: VMClockBody) -> bool:
    tells_time = body.clock_status in _USABLE and body.counter_period_frac_sec != 0
    return tells_time or bool(body.flags & Flags.TAI_OFFSET_VALID) or body.leap_indicator != LeapIndicator.NONE


@final
class Merger:
    """The contents to publish, from what the sources called *names* say, in order of rank.

    Args:
        names: of the sources.
        contents: those of the segment.
        cold: whether nobody can have read them.
        epoch: number of the first epoch.
    """

    def __init__(self, names: Iterable[str], contents: Contents, *, cold: bool, epoch: int = 0) -> None:
        self.contents = contents._replace(counter_id=COUNTER_ID) if cold else contents
        """Last composed."""
        self._promise: Contents | None = None
        """The last contents that gave readers a bounded time, unless a disruption has ended it."""
        self._looked: tuple[int, int] | None = None
        """The counter and the epoch at the last look."""
        self.disruptions: Final = Disruptions(contents.body.disruption_marker, cold=cold, epoch=epoch)
        self._told: Final = {name: _Told(name) for name in names}
        self._time: _Told | None = None
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
            self.contents = void(self.contents)._replace(counter_id=CounterId.INVALID)
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
            contents = _unmeasured(self._with_calendar(earlier), told)
        else:
            if told.unpublished or told is not before:
                contents = self._nested(told, earlier, counter)
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

    def _first(self, has: str) -> _Told | None:
        return next((told for told in self._told.values() if getattr(told, has)), None)

    def _holds_time(self) -> bool:
        """Whether a time is published that readers would lose."""
        body = self.contents.body
        return body.clock_status in _USABLE and bool(body.flags & BOUND_FLAGS)

    def _choose(self, counter: int) -> _Told | None:
        """Whose time to publish; None for what was there before."""
        fresh = [t for t in self._told.values() if t.is_usable() and not is_quiet(t.contents, counter)]
        if fresh:
            return next((told for told in fresh if told.is_readable()), fresh[0])
        return self._time if self._time or self._holds_time() else self._first("has_time")

    def _nested(self, told: _Told, earlier: Contents, counter: int) -> Contents:
        told.unpublished = False
        body = told.contents.body
        fresh = _with(earlier, **{name: getattr(body, name) for name in _TIME})
        fresh = _with_flags(fresh, body, _TIME_FLAGS)._replace(
            counter_id=told.contents.counter_id, time_type=told.contents.time_type
        )
        contents, contradiction = nested(self._with_calendar(fresh), self._promise or earlier, counter)
        if contradiction:
            # Whose fault it was cannot be told: perhaps the counter jumped, and others measured before.
            self.disruptions.promise_broken()
            self._void_all_but(told)
            _log.warning(
                "%s contradicts what was published: %s; it is published under a new disruption marker",
                told.name,
                contradiction,
            )
        return contents

    def _calendar_source(self) -> _Told | None:
        if self._time is not None and self._time.has_calendar:
            return self._time
        return self._first("has_calendar")

    def _with_calendar(self, contents: Contents) -> Contents:
        told = self._calendar_source()
        if told is None or (self._time is None and self._holds_time()):
            return contents
        body = told.contents.body
        contents = _with(contents, **{name: getattr(body, name) for name in _CALENDAR})
        return _with_flags(contents, body, Flags.TAI_OFFSET_VALID)

    def _with_disruption(self, contents: Contents) -> Contents:
        contents = _with(contents, disruption_marker=self.disruptions.marker)
        if told := self._first("has_generation"):
            generation = told.contents.body.vm_generation_counter
            contents = _with(contents, vm_generation_counter=generation)
            contents = _with_flags(contents, told.contents.body, Flags.VM_GEN_COUNTER_PRESENT)
        if told := self._first("has_notices"):
            contents = _with_flags(contents, told.contents.body, _NOTICES)
        # Of a device's page: there is no descriptor of this one that could be waited on.
        return _with_flags(contents, VMClockBody(), Flags.NOTIFICATION_PRESENT)

    def _end_epoch(self, reason: str) -> None:
        _log.info("%s: the time is void until it is measured anew", reason)
        self._void_all_but(None)
        self.contents = void(self.contents)
        self._promise = self._time = None

    def _void_all_but(self, measuring: _Told | None) -> None:
        for told in self._told.values():
            if told is not measuring:
                told.end_epoch()


def _with_status(contents: Contents, body: VMClockBody) -> Contents:
    """*contents*, measured before, with the status and the flags of the time that *body* has now."""
    if body.clock_status == ClockStatus.INITIALIZING and contents.body.clock_status in _USABLE:
        return closed(contents)  # its source begins again: what it measured before holds, and runs free
    return _with(_with_flags(contents, body, _TIME_FLAGS), clock_status=body.clock_status)


def _unmeasured(contents: Contents, told: _Told) -> Contents:
    """*contents* where *told*, without a measurement, has but a status to tell."""
    contents = void(contents)._replace(counter_id=told.contents.counter_id, time_type=told.contents.time_type)
    status = told.contents.body.clock_status
    # Of a time that is void it does not count that it was synchronised.
    return contents if told.void and status in _USABLE else _with(contents, clock_status=status)


def _with(contents: Contents, **values: int | None) -> Contents:
    return contents._replace(body=contents.body.model_copy(update=values))


def _with_flags(contents: Contents, body: VMClockBody, mask: Flags) -> Contents:
    """*contents* with the flags *mask* as *body* has them."""
    return _with(contents, flags=Flags(contents.body.flags & ~mask.value | body.flags & mask))
