"""Merging: one body from what several sources say.

A ``BodyUpdate`` speaks only for the fields it sets, and a whole body for what its page has: a page whose
counter_id is INVALID tells no time; a page without a valid TAI offset, leap announcement or time has no calendar.
The fields fall into three groups, each taken from the first listed source that has it:

* disruption: disruption_marker, vm_generation_counter, and the notices in flags. Here each of the three has its
  own first source, because a source that only announces maintenance must not hide the device's marker.
* time: counter_*, time_*, clock_status, their validity flags, TIME_MONOTONIC, and counter_id and time_type.
* calendar: tai_offset_sec, leap_indicator, leap_second_smearing_hint. A time brings its source's calendar if there is
  one: the offset belongs to the reference time, and another source's could be a second off around a leap.

Disruption and calendar are held when their source is gone. The published time comes from the first source whose
measurement is not quiet and gives readers on this machine an interval; where there is none, the last time is held,
and ages. A time that nobody here can use (no bound, another counter, a timescale that cannot be converted to the
segment's) displaces nothing that gives an interval, and is published only where nothing does. A source that has
measured nothing yet (INITIALIZING: a chronyd that has just started) displaces nothing that still holds, its own time
included; so a restart is no outage.

In every body the bound is at least the estimated error: a source that states less has no bound to state.

A new measurement is nested into what was published; between measurements only status and flags change. The time
that was published before this publisher began is held like any other. If there were disruptions that the device does
not know of, the page that is read first may be from before them, so its time waits for the next change.

The rules for disruptions, nesting, quiet sources and the segment's constants are in the modules of these names. Nothing
here waits or looks at a clock: the counter is an argument. Whatever values a valid update has, nothing here raises.
"""

import logging
from collections.abc import Iterable
from typing import Final, NamedTuple, final

from vmclock_async._publishing.ageing import age, is_ahead
from vmclock_async._publishing.choice import Choice, Claim, holds_time
from vmclock_async._publishing.complaints import Complaints
from vmclock_async._publishing.constants import Constants
from vmclock_async._publishing.disruptions import Disruptions
from vmclock_async._publishing.draft import BOUND_FLAGS, TAI_OFFSET_VALID, Draft, as_freerunning, voided
from vmclock_async._publishing.generation import OwnGeneration
from vmclock_async._publishing.nesting import nest
from vmclock_async._publishing.report import Report
from vmclock_async._publishing.testimony import CALENDAR, NOTICES, Testimony, TimeState
from vmclock_async.abi import BOTH_BOUNDS, TELLS_TIME, ClockStatus, CounterId, Flags, TimeType
from vmclock_async.models import BodyUpdate, Contents
from vmclock_async.reckoning import went_back
from vmclock_async.timebase import COUNTER_ID

__all__ = ("Merger", "Observed")

_INVALID: Final = CounterId.INVALID
_FRESH: Final = TimeState.FRESH
_PUBLISHED: Final = TimeState.PUBLISHED
_TIME_FLAGS: Final = BOUND_FLAGS | Flags.TIME_MONOTONIC.value
_TIME_AND_CALENDAR_FLAGS: Final = _TIME_FLAGS | TAI_OFFSET_VALID
_GENERATION_PRESENT: Final = Flags.VM_GEN_COUNTER_PRESENT.value
_NOTIFICATION_PRESENT: Final = Flags.NOTIFICATION_PRESENT.value
_CALENDAR_WITHOUT_OFFSET: Final = CALENDAR - {"tai_offset_sec"}

_log: Final = logging.getLogger("vmclock_async.publisher")


class Observed(NamedTuple):
    """The world as it was seen right before a commit."""

    counter: int
    broken: str | None = None
    """The event, in words, that broke the counter's continuity since the last look; None if nothing did."""
    marker: tuple[str, int] | None = None
    """The source that was asked for its disruption marker, and its answer; None: no source could be asked."""


@final
class Merger:
    """The contents to publish, from what the sources called *names* say, in order of rank.

    For each commit, call ``notice`` with the state of the world, ``hear`` with an update if there is one, ``compose``
    (or ``relay``) for the contents, and ``committed`` when they are in the segment.

    Args:
        names: names of the sources.
        contents: present contents of the segment.
        cold: whether nobody can have read them.
        epoch: number of the first epoch.
        device_marker: the device's marker as last seen; None: it is not known.
        complaints: limit the log lines; None: complaints of its own.
    """

    def __init__(
        self,
        names: Iterable[str],
        contents: Contents,
        *,
        cold: bool,
        epoch: int = 0,
        device_marker: int | None = None,
        complaints: Complaints | None = None,
    ) -> None:
        self.contents = contents._replace(counter_id=COUNTER_ID) if cold else contents
        """The contents that were composed last."""
        self._complaints: Final = complaints or Complaints(_log)
        self._promise: Contents | None = None
        """The last contents that gave readers a bounded time, unless a disruption has ended it."""
        self._observed: Observed | None = None
        """The world as it was last noticed."""
        self._noticed_in_epoch = epoch
        self._disruptions: Final = Disruptions(
            contents.body.disruption_marker, cold=cold, epoch=epoch, device_marker=device_marker
        )
        self._generation: Final = OwnGeneration(contents.body.vm_generation_counter)
        self._constants: Final = Constants(contents, cold=cold)
        self._choice: Final = Choice(names, self._constants)
        self._time: Testimony | None = None
        """The source whose time is published; None: the time from before is held, or there is none."""

    @property
    def epoch(self) -> int:
        """The present epoch."""
        return self._disruptions.epoch

    @property
    def device_marker(self) -> int | None:
        """The device's marker as last seen; None: it is not known."""
        return self._disruptions.device_marker

    @property
    def is_cold(self) -> bool:
        """Whether nothing is committed yet, and nobody can have read the contents from before."""
        return self._disruptions.cold

    @property
    def groups(self) -> dict[str, str | None]:
        """The source of each group; None where the group is held from before, or no source has it."""
        calendar = self._calendar_source()
        return {
            "disruption": self.marker_source,
            "time": self.time_source,
            "calendar": calendar.name if calendar else None,
        }

    @property
    def time_source(self) -> str | None:
        """The source whose time is published; None: the time from before is held, or there is none."""
        return self._time.name if self._time else None

    def passed_over(self) -> dict[str, str]:
        """What each source ranked before that of the time lacks."""
        if self._time is None or self._observed is None:
            return {}
        return self._choice.passed_over(self._time, self.contents, self._observed.counter)

    def claims(self) -> dict[str, Claim]:
        """What each source claims of true time, at the counter value that was noticed last."""
        assert self._observed is not None
        return self._choice.claims(self.contents, self._observed.counter)

    @property
    def marker_source(self) -> str | None:
        """The source whose marker is published."""
        told = self._choice.first_with_marker()
        return told.name if told else None

    def notice(self, observed: Observed) -> None:
        """Take note of the world as it is: a new marker or a disrupted counter voids every time."""
        before, self._observed = self._observed, observed
        if observed.broken is not None:
            self._note_own_interruption(observed.broken)
        if observed.marker is not None:
            name, marker = observed.marker
            told = self._choice.told[name]
            told.has_marker = True
            if told is self._choice.first_with_marker():
                self._note_marker(name, marker)
        if before is None:
            is_reset = holds_time(self.contents) and is_ahead(self.contents, observed.counter)
        else:
            # In a new epoch a reset is known already, along with its cause.
            is_new_epoch = self._noticed_in_epoch != self._disruptions.epoch
            is_reset = not is_new_epoch and went_back(before.counter, observed.counter)
        if is_reset:
            self._note_own_interruption("the counter went back")
        self._noticed_in_epoch = self._disruptions.epoch

    def hear(self, name: str, update: BodyUpdate) -> None:
        """Take *update* from the source *name*."""
        told = self._choice.told[name]
        measured = told.hear(update, self.contents)
        if update.counter_id == _INVALID and (told is self._time or not holds_time(self.contents)):
            # A page that tells no time says nothing about this machine's counter.
            self._end_time(counter_id=self.contents.counter_id if update.verbatim else _INVALID)
        if (
            "disruption_marker" not in update.__pydantic_fields_set__
            or told is not self._choice.first_with_marker()
        ):
            return
        marker = told.contents.body.disruption_marker
        asked = self._observed.marker if self._observed else None
        if asked is not None and asked[0] == name and asked[1] != marker:
            told.end_epoch()  # the update is overtaken: the marker has changed again since, and that was seen
        elif self._note_marker(name, marker) and measured:
            # The time that came along with the new marker is the one that is not void.
            told.state = _FRESH

    def take_report(self, report: Report) -> None:
        """Take *report*: of a disruption, or that restores will be reported."""
        if report.reason is None:
            self._generation.announce(report.reporter)
        else:
            self._note_interruption(report.reason)
        if report.restored:
            self._generation.note_restore(report.reporter)

    def note_end(self, name: str) -> None:
        """Take note that the source *name* has ended its run, or has become unavailable: it reports no restores."""
        self._generation.withdraw(name)

    def _end_time(self, *, counter_id: int) -> None:
        """Void the published time, and make *counter_id* its counter."""
        self._time = None
        contents = self.contents
        if (
            contents.counter_id != counter_id
            or contents.body.clock_status != ClockStatus.UNKNOWN
            or int(contents.body.flags) & BOUND_FLAGS
        ):
            self.contents = voided(contents)._replace(counter_id=counter_id)

    def relay(self, update: BodyUpdate) -> Contents:
        """The contents to publish where *update*, from the sole source, is copied verbatim.

        A device, a captured page or a recording gives whole pages. Where it is the only source and sends whole bodies
        (``BodyUpdate.from_body``), each is committed bit for bit: body, constants, flags and values without a name.
        There is no merging, no nesting, no ageing, no marker of the publisher's own, no closing commit: readers see
        what the source saw. Beside another source it is one of several, and merged.

        One flag cannot be passed on: VM_GEN_COUNTER_PRESENT from a page that ends before the generation counter. The
        segment has room for that counter, and readers would take whatever is there for it; so the flag is cleared.
        """
        contents = self.contents.updated(update)
        if contents.body.vm_generation_counter is None and int(contents.body.flags) & _GENERATION_PRESENT:
            draft = Draft(contents)
            draft.flags &= ~_GENERATION_PRESENT
            contents = draft.freeze()
        self.contents = contents
        self._constants.found(contents)
        (told,) = self._choice.told.values()
        told.hear(update, contents)
        if told.state is _FRESH:
            told.state = _PUBLISHED
        self._time = told if told.has_time else None
        self._disruptions.note_relayed(contents.body.disruption_marker)
        return contents

    def compose(self) -> Contents:
        """The contents to publish at the counter value that was noticed last."""
        assert self._observed is not None
        self._noticed_in_epoch = self._disruptions.epoch  # an update since then may have begun another
        counter, earlier, before = self._observed.counter, self.contents, self._time
        if _is_promise(earlier):
            self._promise = earlier
        draft = Draft(earlier)
        chosen = self._choice.choose(before, earlier, counter)
        self._time = chosen.told if chosen else None
        if chosen is None:
            self._take_calendar(draft)
            age(draft, earlier, counter)
        elif not (told := chosen.told).has_measured:
            self._take_calendar(draft)
            self._take_status(draft, told)
        elif chosen.time is None:
            draft.void()
            told.state = _FRESH
            refused = told.contents
            self._complaints.add(told.name, "time in other constants", lambda: self._constants.refusal(refused))
        else:
            if told.state is _FRESH or told is not before:
                self._take_time(draft, told, chosen.time, counter)
            else:
                self._take_calendar(draft)
                _take_quality(draft, told.contents)
            if chosen.is_quiet:
                age(draft, told.contents, counter)
        self._take_disruption(draft)
        self.contents = draft.freeze()
        return self.contents

    def committed(self) -> None:
        """Take note that the contents are in the segment, where readers see them."""
        self._disruptions.cold = False

    def final_contents(self) -> Contents:
        """The contents to leave behind. A status without a time stays, because nothing in it could run free."""
        if self._time is None or self._time.has_measured:
            self.contents = as_freerunning(self.contents)
        return self.contents

    def _calendar_source(self) -> Testimony | None:
        return (
            self._time
            if self._time is not None and self._time.has_calendar
            else self._choice.first_with_calendar()
        )

    def _take_time(self, draft: Draft, told: Testimony, time: Contents, counter: int) -> None:
        """Take *time*, which *told* measured, and nest it into the earlier promise."""
        told.state = _PUBLISHED
        draft.take_time_and_calendar(time.body)
        draft.take_flags(_TIME_AND_CALENDAR_FLAGS, time.body)
        draft.counter_id, draft.time_type = time.counter_id, time.time_type
        bounds = self._choice.bounds_of(time, counter)
        contradiction = nest(draft, time, bounds, self._promise or self.contents, counter) if bounds else None
        if contradiction is not None:
            # Nothing shows which side was wrong: perhaps the counter jumped, and the others measured before that.
            self._disruptions.note_broken_promise()
            self._choice.void_all_but(told)
            self._complaints.add(
                told.name,
                "contradiction",
                lambda: (
                    f"contradicts what was published: {contradiction}; it is published under a new disruption marker"
                ),
            )
        values = draft.values
        if (
            self._constants.time_type is None
            and draft.counter_id == COUNTER_ID
            and values["clock_status"] in TELLS_TIME
            and values["counter_period_frac_sec"]
        ):
            self._constants.keep(draft.time_type)

    def _take_status(self, draft: Draft, told: Testimony) -> None:
        """Take the status of *told*, which has no measurement."""
        draft.void()
        draft.counter_id = told.contents.counter_id
        if self._constants.time_type is None:
            draft.time_type = told.contents.time_type
        elif told.contents.counter_id != _INVALID:
            draft.counter_id = COUNTER_ID
        status = told.contents.body.clock_status
        if told.state is not TimeState.VOID or status not in TELLS_TIME:
            draft.values["clock_status"] = status  # but a void time must not keep the status SYNCHRONIZED

    def _take_calendar(self, draft: Draft) -> None:
        """Add the present calendar to a time that was measured before."""
        told = self._calendar_source()
        if told is None or (self._time is None and holds_time(self.contents)):
            return
        if draft.time_type == TimeType.TAI and told.contents.time_type != TimeType.TAI:
            draft.take(_CALENDAR_WITHOUT_OFFSET, told.contents.body)  # another offset would make it another time
        else:
            draft.take(CALENDAR, told.contents.body)
            draft.take_flags(TAI_OFFSET_VALID, told.contents.body)

    def _take_disruption(self, draft: Draft) -> None:
        draft.values["disruption_marker"] = self._disruptions.marker
        generation = notices = None
        for told in self._choice.told.values():
            if generation is None and told.has_generation:
                generation = told.contents.body
            if notices is None and told.has_notices:
                notices = told.contents.body
        if generation is None:
            self._generation.take(draft)
        else:
            self._generation.note_another()
            draft.values["vm_generation_counter"] = generation.vm_generation_counter
            draft.take_flags(_GENERATION_PRESENT, generation)
        if notices is not None:
            draft.take_flags(NOTICES, notices)
        # The flag is from a device's page; the segment has no descriptor on which a reader could wait.
        draft.flags &= ~_NOTIFICATION_PRESENT

    def _note_marker(self, name: str, marker: int) -> bool:
        """Take note of *marker*, which *name* gives and which is published. Returns whether it voids every time."""
        if self._disruptions.note_marker(marker):
            self._generation.note_device_marker(name)
            self._end_epoch(f"the disruption marker of {name} is now {marker}")
            return True
        if self._disruptions.cold:
            # This is no event for readers, because they have seen nothing yet. But measurements may be from before it.
            self._choice.void_all_but(self._choice.told[name])
        return False

    def _note_own_interruption(self, reason: str) -> None:
        """Take note of a disruption that this machine itself saw."""
        self._generation.note_disruption()
        self._note_interruption(reason)

    def _note_interruption(self, reason: str) -> None:
        """Take note of a disruption that no device's marker shows: every time is void."""
        self._disruptions.note_interruption()
        self._end_epoch(reason)

    def _end_epoch(self, reason: str) -> None:
        # Anybody who may report a disruption may report many.
        self._complaints.say("the machine", "disruption", f"{reason}: the time is void until it is measured again")
        self._choice.void_all_but(None)
        self.contents = voided(self.contents)
        self._promise = self._time = None


def _is_promise(contents: Contents) -> bool:
    body = contents.body
    return int(body.flags) & BOTH_BOUNDS == BOTH_BOUNDS and body.clock_status in TELLS_TIME


def _take_quality(draft: Draft, measured: Contents) -> None:
    """Add status and flags, as their source gives them now, to a time that was measured before."""
    status = measured.body.clock_status
    if status == ClockStatus.INITIALIZING and draft.values["clock_status"] in TELLS_TIME:
        draft.run_free()  # its source begins again: the earlier measurement holds, and runs free
    else:
        draft.take_flags(_TIME_FLAGS, measured.body)
        draft.values["clock_status"] = status
