"""The choice of a source for the time, the calendar and the marker: for each, the first in rank that has it.

A time counts only if readers on this machine get an interval from it, in the constants that the segment keeps and with
the calendar that goes with it. See merger for the rules.
"""

from collections.abc import Iterable
from operator import itemgetter
from typing import Final, NamedTuple, final

from vmclock_async._publishing.ageing import GRACE_S, is_quiet
from vmclock_async._publishing.constants import Constants
from vmclock_async._publishing.draft import BOUND_FLAGS, TAI_OFFSET_VALID, Draft
from vmclock_async._publishing.testimony import CALENDAR, Testimony, TimeState
from vmclock_async.abi import TELLS_TIME, ClockStatus, name_of
from vmclock_async.models import Contents, VMClockBody
from vmclock_async.reckoning import Bounds, find_bounds
from vmclock_async.timebase import COUNTER_ID

__all__ = ("Choice", "Claim", "holds_time")

_HELD: Final = (*TELLS_TIME, ClockStatus.INITIALIZING)
"""The statuses with which a source takes back nothing that it measured."""
_calendar_of: Final = itemgetter(*CALENDAR)


class Claim(NamedTuple):
    """What a source claims of true time at one counter value."""

    bounds: Bounds
    """The interval that readers on this machine would get, UTC."""
    is_quiet: bool
    """Whether it has not measured for longer than the grace."""


class Chosen(NamedTuple):
    """A source, chosen for its time."""

    told: Testimony
    time: Contents | None
    """Its time with its calendar, in the segment's constants; None without one, or where it cannot be expressed so."""
    is_quiet: bool
    """Whether it has not measured for longer than the grace."""


@final
class Choice:
    """Chooses among what the sources called *names* say, for a segment that keeps *constants*."""

    def __init__(self, names: Iterable[str], constants: Constants) -> None:
        self.told: Final = {name: Testimony(name) for name in names}
        self._constants: Final = constants
        self._bounds: tuple[Contents, int, Bounds | None] | None = None
        """The last request and its result: a time, a counter value, and the interval that readers get there."""

    def first_with_marker(self) -> Testimony | None:
        """The first source that has a marker."""
        for told in self.told.values():
            if told.has_marker:
                return told
        return None

    def first_with_calendar(self) -> Testimony | None:
        """The first source that has a calendar."""
        for told in self.told.values():
            if told.has_calendar:
                return told
        return None

    def void_all_but(self, measuring: Testimony | None) -> None:
        """Void the measurements of all sources except *measuring*."""
        for told in self.told.values():
            if told is not measuring:
                told.end_epoch()

    def choose(self, current: Testimony | None, published: Contents, counter: int) -> Chosen | None:
        """The source whose time to publish after *published*, which has that of *current*; None: keep the old time."""
        quiet: list[Testimony] = []
        fresh: list[Testimony] = []
        for told in self.told.values():
            if not told.is_usable:
                continue
            if is_quiet(told.contents, counter):
                quiet.append(told)
            elif (time := self._readable(told, published, counter)) is not None:
                return Chosen(told, time, False)
            else:
                fresh.append(told)
        held = self._without_a_fresh_time(current, quiet, fresh, published, counter)
        if held is None:
            return None
        time = self.expressed(held, published, counter) if held.has_measured else None
        return Chosen(held, time, is_quiet(held.contents, counter))

    def _without_a_fresh_time(
        self,
        current: Testimony | None,
        quiet: list[Testimony],
        fresh: list[Testimony],
        published: Contents,
        counter: int,
    ) -> Testimony | None:
        """The choice where none of the *fresh* times gives readers an interval."""
        if self._is_still_readable(current, published, counter):
            return current
        for told in quiet:
            if self._readable(told, published, counter) is not None:
                return told
        if fresh:
            return next((told for told in fresh if self._counts_here(told, published, counter)), fresh[0])
        if current is not None or holds_time(published):
            return current
        return next((told for told in self.told.values() if told.has_time), None)

    def passed_over(self, chosen: Testimony, published: Contents, counter: int) -> dict[str, str]:
        """What each source ranked before *chosen* lacks, in words; *published* and *counter* as for ``choose``."""
        lacks = {}
        for told in self.told.values():
            if told is chosen:
                break
            lacks[told.name] = self._lack_of(told, published, counter)
        return lacks

    def claims(self, published: Contents, counter: int) -> dict[str, Claim]:
        """The claims of all sources that have one, by name; *published* and *counter* as for ``choose``."""
        claims = {}
        for told in self.told.values():
            if not told.is_usable or (time := self.expressed(told, published, counter)) is None:
                continue
            if (bounds := self.bounds_of(time, counter)) is not None:
                claims[told.name] = Claim(bounds, is_quiet(told.contents, counter))
        return claims

    def _lack_of(self, told: Testimony, published: Contents, counter: int) -> str:
        if told.state is TimeState.VOID:
            return "it has not measured since the machine was disrupted"
        if not told.has_measured:
            return "it has measured no time"
        if not told.is_usable:
            return f"its status is {name_of(told.contents.body.clock_status)}"
        if is_quiet(told.contents, counter):
            return f"it has not measured for {GRACE_S} s"
        if self._readable(told, published, counter) is None:
            return "its time gives readers on this machine no interval"
        return "its time came only after this one"

    def _readable(self, told: Testimony, published: Contents, counter: int) -> Contents | None:
        """The time of *told* as ``expressed``; None where readers on this machine would get no interval from it."""
        time = self.expressed(told, published, counter)
        return time if time is not None and self.bounds_of(time, counter) is not None else None

    def bounds_of(self, time: Contents, counter: int) -> Bounds | None:
        """The interval that *time* gives readers on this machine; kept, because a chosen time is asked for twice."""
        if self._bounds is None or self._bounds[0] is not time or self._bounds[1] != counter:
            self._bounds = time, counter, find_bounds(time, counter, counter_id=COUNTER_ID)
        return self._bounds[2]

    def _counts_here(self, told: Testimony, published: Contents, counter: int) -> bool:
        """Whether *told* has measured a time in this machine's counter, even one without a bound."""
        time = self.expressed(told, published, counter)
        return time is not None and time.counter_id == COUNTER_ID and time.body.counter_period_frac_sec > 0

    def _is_still_readable(self, current: Testimony | None, published: Contents, counter: int) -> bool:
        """Whether readers get an interval from *published*, and its source, *current*, takes nothing of it back."""
        if current is not None and (
            current.state is TimeState.FRESH or current.contents.body.clock_status not in _HELD
        ):
            return False
        return holds_time(published) and find_bounds(published, counter, counter_id=COUNTER_ID) is not None

    def expressed(self, told: Testimony, published: Contents, counter: int) -> Contents | None:
        """The time of *told* with its calendar, in the segment's constants; None where it cannot be expressed so."""
        source = told if told.has_calendar else self.first_with_calendar()
        calendar = source.contents.body if source else published.body
        time, time_type = told.contents, self._constants.time_type
        made_of, made_with, made_for = told.expressed_of
        if (
            told.expressed is None
            or made_of is not time
            or made_for != time_type
            or not _is_same_calendar(made_with, calendar)
        ):
            told.expressed_of = time, calendar, time_type
            if source is not told and not _is_same_calendar(time.body, calendar):
                draft = Draft(time)
                draft.take(CALENDAR, calendar)
                draft.take_flags(TAI_OFFSET_VALID, calendar)
                time = draft.freeze()
            told.expressed = self._constants.express(time, published, counter)
        return told.expressed


def holds_time(contents: Contents) -> bool:
    """Whether *contents* have a time that readers could lose."""
    body = contents.body
    return body.clock_status in TELLS_TIME and bool(int(body.flags) & BOUND_FLAGS)


def _is_same_calendar(one: VMClockBody, other: VMClockBody) -> bool:
    if one is other:
        return True
    a, b = one.__dict__, other.__dict__
    if _calendar_of(a) != _calendar_of(b):
        return False
    return a["flags"] is b["flags"] or not (int(a["flags"]) ^ int(b["flags"])) & TAI_OFFSET_VALID
