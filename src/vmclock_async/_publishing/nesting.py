"""Nesting: a later body agrees with the intervals that were given earlier, as UAPI.13 wants it.

At each commit, at the commit's own counter value, with F the fresh interval and C the earlier body's interval
carried forward to that counter value, both in UTC:

* F inside C, to ``TOLERANCE_NS``: F is published.
* F's midpoint inside C: the intersection is published. Both contain true time, so it does too. Its reference is
  the commit's counter value; the estimated error grows by the shift of the midpoint.
* F's midpoint outside C: the earlier promise was wrong, or the clock was stepped. F is published alone, under a
  new disruption marker, in one commit.

Where either promises nothing (no bound, another counter, out of range), F is published as it is. So it is where an
announced leap second has widened either: its second reading is no place for a midpoint.

C is the last body that gave a bounded time, however long ago: what was void in between takes nothing back.

Nothing is promised for counter values ahead of a commit. An interval that was wrong by more than half a width
shows as a contradiction. One that was wrong by less does not, and is outgrown: what is still believed of C after t
seconds is F of t seconds ago, wider by R * t. (At 50 ppm an error of a millisecond that nothing contradicts may so
last for 20 seconds: the price of intervals that agree with each other.)
"""

from typing import Final, NamedTuple

from vmclock_async._publishing.draft import Draft
from vmclock_async.abi import LeapIndicator, TimeType
from vmclock_async.models import Contents
from vmclock_async.reckoning import UNITS_PER_SECOND, Bounds, find_bounds, reckon
from vmclock_async.timebase import COUNTER_ID

__all__ = ("nest",)

TOLERANCE_NS: Final = 2
_FOREVER_S: Final = 2**33


class _Promise(NamedTuple):
    bounds: Bounds
    plain: Bounds
    """Without what an announced leap second adds."""


def nest(draft: Draft, fresh: Contents, earlier: Contents, counter: int) -> str | None:
    """Nest the time in *draft*, taken from *fresh*, into what *earlier* promises at *counter*.

    Returns both intervals, for people, where they contradict each other; None where the later agrees with the earlier.
    """
    f = _promise(fresh, counter)
    c = _promise(earlier, counter, max_age_s=_FOREVER_S) if f else None
    if f is None or c is None or _is_inside(f.bounds, c.bounds):
        return None
    if not c.bounds.earliest_ns <= f.plain.midpoint_ns <= c.bounds.latest_ns:
        return (
            f"measured {f.plain.earliest_ns} to {f.plain.latest_ns} ns, "
            f"promised {c.bounds.earliest_ns} to {c.bounds.latest_ns} ns"
        )
    if f.bounds == f.plain and c.bounds == c.plain:
        _take_intersection(draft, fresh, f.bounds, c.bounds, counter)
    return None


def _is_inside(f: Bounds, c: Bounds) -> bool:
    return f.earliest_ns >= c.earliest_ns - TOLERANCE_NS and f.latest_ns <= c.latest_ns + TOLERANCE_NS


def _promise(contents: Contents, counter: int, *, max_age_s: int = 1000) -> _Promise | None:
    bounds = plain = find_bounds(contents, counter, counter_id=COUNTER_ID, max_age_s=max_age_s)
    if contents.body.leap_indicator != LeapIndicator.NONE:
        plain = find_bounds(contents, counter, counter_id=COUNTER_ID, max_age_s=max_age_s, leap=False)
    return None if bounds is None or plain is None else _Promise(bounds, plain)


def _take_intersection(draft: Draft, fresh: Contents, f: Bounds, c: Bounds, counter: int) -> None:
    both = Bounds(max(f.earliest_ns, c.earliest_ns), min(f.latest_ns, c.latest_ns))
    body = fresh.body
    offset_s = body.tai_offset_sec if fresh.time_type == TimeType.TAI else 0
    # Rounded down by less than a unit, of which now() makes a nanosecond outward.
    reference = (both.midpoint_ns - offset_s * 10**9) * UNITS_PER_SECOND // 10**9
    shifted_ns = abs(both.midpoint_ns - f.midpoint_ns)
    draft.values["counter_value"] = counter
    draft.values["time_sec"] = reference // UNITS_PER_SECOND
    draft.values["time_frac_sec"] = reference % UNITS_PER_SECOND
    draft.values["time_maxerror_nanosec"] = both.error_ns
    draft.values["time_esterror_nanosec"] = min(reckon(body, counter).esterror_ns + shifted_ns, both.error_ns)
