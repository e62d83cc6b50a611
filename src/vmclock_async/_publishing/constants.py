"""The constants that a segment keeps for life: its timescale and its counter.

UAPI.13 calls time_type and counter_id constant, so that a reader may read them only once. A reader that took UTC for
constant would be 37 s off after a change to TAI in place, which happens when the kernel learns its TAI offset minutes
after boot. So from the first time that a reader may use, with a bound or without, until a cold start:

* the segment keeps its timescale, UTC or TAI. A TAI time with a valid offset becomes UTC at the same reference, and
  a UTC time becomes TAI with the offset that is known for its reference: that of the calendar, or the last published
  one, as long as no leap second can have come between unseen. The interval in UTC is the same to the bit.
* the segment keeps counting with this machine's counter. counter_id becomes INVALID only when that counter becomes
  unfit; a page that tells no time does not change counter_id.
* a time that cannot be expressed so (another counter, MONOTONIC, smeared, an unknown offset) is not published: the
  body is void.

A page without such a time fixes nothing: a device that only reports disruptions says UTC because UTC is zero. Nothing
in that page has a meaning that depends on a timescale, so a reader has no reason to read it before there is a time. If
the zero counted, hardly any segment could be TAI, which UAPI.13 recommends.

A publisher that starts warm keeps the constants of the body there, even if that body is void or stale. It gives up TAI
alone, when no offset is known and no reader gets an interval from the published contents: otherwise there would be no
time until a cold start, because of an old body or a replayed recording. TAI_OFFSET_VALID is then clear, so that a
reader which takes TAI for constant gets no UTC from it. Relayed bodies are copied verbatim, constants included: a
replayed body is complete by itself, and another recording may have other constants.
"""

from collections.abc import Mapping
from typing import Final, final

from vmclock_async._publishing.ageing import VOID_AFTER_S
from vmclock_async._publishing.draft import Draft
from vmclock_async.abi import CounterId, Flags, LeapIndicator, TimeType, name_of
from vmclock_async.models import Contents, VMClockBody
from vmclock_async.reckoning import gives_interval, reference_month_ns
from vmclock_async.timebase import COUNTER_ID

__all__ = ("Constants",)

_KEPT: Final = (TimeType.UTC, TimeType.TAI)
_LEAST_OFFSET_S: Final = -0x8000
_LEAP_S: Final[Mapping[int, int]] = {
    LeapIndicator.PRE_POS: -1,
    LeapIndicator.POS: -1,
    LeapIndicator.PRE_NEG: 1,
}
"""The change of the offset at the month's end, seconds."""


@final
class Constants:
    """The constants of a segment that holds *contents*.

    Args:
        contents: the contents that the publisher found there.
        cold: whether nobody can have read them.
    """

    def __init__(self, contents: Contents, *, cold: bool) -> None:
        self.time_type: int | None = None
        """The timescale that the segment keeps, with this machine's counter; None: it keeps none yet."""
        if not cold:
            self.found(contents)

    def found(self, contents: Contents) -> None:
        """Keep the constants of *contents*, which are in the segment and were not merged here."""
        self.time_type = None
        if contents.counter_id in (COUNTER_ID, CounterId.INVALID) and contents.body.counter_period_frac_sec:
            self.keep(contents.time_type)

    def keep(self, time_type: int) -> None:
        """Keep *time_type*, with a time in this machine's counter, if the segment keeps no timescale yet."""
        if self.time_type is None and time_type in _KEPT:
            self.time_type = time_type

    def express(self, fresh: Contents, held: Contents, counter: int) -> Contents | None:
        """*fresh* in the segment's constants; None where it cannot be expressed so.

        Args:
            fresh: a time, with the calendar that goes with it.
            held: the published contents.
            counter: the present counter value.
        """
        if self.time_type is None:
            return fresh
        if fresh.counter_id != COUNTER_ID:
            return None
        if fresh.time_type == self.time_type:
            return fresh
        if fresh.time_type not in _KEPT:
            return None
        offset_s = _offset_s(fresh.body)
        if offset_s is None and self.time_type == TimeType.TAI:
            offset_s = _offset_held_s(held, fresh)
            if offset_s is None and _gives_interval(fresh, counter) and not _gives_interval(held, counter):
                self.time_type = None
                return fresh
        if offset_s is None:
            return None
        time_sec = fresh.body.time_sec + (offset_s if self.time_type == TimeType.UTC else -offset_s)
        if not 0 <= time_sec < 2**64:
            return None
        draft = Draft(fresh)
        draft.values["time_sec"] = time_sec
        draft.values["tai_offset_sec"] = offset_s
        draft.flags |= Flags.TAI_OFFSET_VALID.value
        draft.time_type = self.time_type
        return draft.freeze()

    def refusal(self, contents: Contents) -> str:
        """The reason, in words, why the time in *contents* is not published."""
        if contents.counter_id != COUNTER_ID:
            told, kept = name_of(contents.counter_id), name_of(COUNTER_ID)
        else:
            told, kept = name_of(contents.time_type), "UTC" if self.time_type == TimeType.UTC else "TAI"
        return (
            f"tells a time in {told}, which cannot be turned into the {kept} that the segment has begun with: it is "
            "not published. Where only the offset from TAI is missing, let the kernel know it (chrony.conf: leapsectz)"
        )


def _gives_interval(contents: Contents, counter: int) -> bool:
    return gives_interval(contents, counter, counter_id=COUNTER_ID)


def _offset_s(body: VMClockBody) -> int | None:
    """The offset of *body* from TAI to UTC, seconds; None where it is not known, or has the old sign."""
    return body.tai_offset_sec if body.flags & Flags.TAI_OFFSET_VALID and body.tai_offset_sec < 0 else None


def _offset_held_s(held: Contents, fresh: Contents) -> int | None:
    """The offset of *fresh*, in UTC, derived from that of *held*, in TAI; None where it cannot be derived.

    The offset changes only at the end of a UTC month, and then as announced.
    """
    offset_s = _offset_s(held.body)
    if held.time_type != TimeType.TAI or offset_s is None:
        return None
    if reference_month_ns(held) == reference_month_ns(fresh):
        return offset_s
    passed_s = fresh.body.time_sec - (held.body.time_sec + offset_s)
    after_s = offset_s + _LEAP_S.get(held.body.leap_indicator, 0)
    return after_s if 0 <= passed_s <= VOID_AFTER_S and _LEAST_OFFSET_S <= after_s < 0 else None
