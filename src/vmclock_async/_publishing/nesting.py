"""Nesting: a later body agrees with the intervals that were given earlier, as UAPI.13 asks.

At each commit, at the commit's own counter value, with F the fresh interval and C the earlier body's interval
carried forward to that counter value, both in UTC:

* F inside C, to ``TOLERANCE_NS``: F is published.
* F's midpoint inside C: the intersection is published. Both contain true time, so it does too. Its reference is
  the commit's counter value; the estimated error grows by the shift of the midpoint.
* F's midpoint outside C: the earlier promise was wrong, or the clock was stepped. F is published alone, under a
  new disruption marker, in one commit.

Where either promises nothing (no bound, another counter, out of range), F is published as it is. The same holds where
an announced leap second has widened either, because no midpoint can be taken from two readings.

C is the last body that gave a bounded time, however long ago: a void body in between takes nothing back.

Nothing is promised for counter values ahead of a commit. An interval that was wrong by more than half a width
shows as a contradiction. An interval that was wrong by less does not show, and is outgrown: the part of C that still
counts after t seconds is F of t seconds ago, wider by R * t. (So at 50 ppm an error of a millisecond that nothing
contradicts may last for 20 seconds: the price of intervals that agree with each other.)
"""

from typing import Final

from vmclock_async._publishing.draft import Draft
from vmclock_async.abi import LeapIndicator, TimeType
from vmclock_async.models import Contents
from vmclock_async.reckoning import UNITS_PER_SECOND, Bounds, find_bounds, reckon
from vmclock_async.timebase import COUNTER_ID

__all__ = ("nest",)

TOLERANCE_NS: Final = 2
_FOREVER_S: Final = 2**33


def nest(draft: Draft, fresh: Contents, bounds: Bounds, earlier: Contents, counter: int) -> str | None:
    """Nest the time in *draft*, taken from *fresh* that gives *bounds* at *counter*, into the promise of *earlier*.

    Returns both intervals, in words, where they contradict each other; None where the later agrees with the earlier.
    """
    promised = find_bounds(earlier, counter, counter_id=COUNTER_ID, max_age_s=_FOREVER_S)
    if promised is None or _is_inside(bounds, promised):
        return None
    plain = _plain(fresh, counter, bounds, max_age_s=1000)
    plain_promised = _plain(earlier, counter, promised, max_age_s=_FOREVER_S)
    if plain is None or plain_promised is None:
        return None
    if not promised.earliest_ns <= plain.midpoint_ns <= promised.latest_ns:
        return (
            f"measured {plain.earliest_ns} to {plain.latest_ns} ns, "
            f"promised {promised.earliest_ns} to {promised.latest_ns} ns"
        )
    if bounds == plain and promised == plain_promised:
        _take_intersection(draft, fresh, bounds, promised, counter)
    return None


def _is_inside(f: Bounds, c: Bounds) -> bool:
    return f.earliest_ns >= c.earliest_ns - TOLERANCE_NS and f.latest_ns <= c.latest_ns + TOLERANCE_NS


def _plain(contents: Contents, counter: int, bounds: Bounds, *, max_age_s: int) -> Bounds | None:
    """The *bounds* of *contents* without the effect of an announced leap second; None where there are none."""
    if contents.body.leap_indicator == LeapIndicator.NONE:
        return bounds
    return find_bounds(contents, counter, counter_id=COUNTER_ID, max_age_s=max_age_s, leap=False)


def _take_intersection(draft: Draft, fresh: Contents, f: Bounds, c: Bounds, counter: int) -> None:
    both = Bounds(max(f.earliest_ns, c.earliest_ns), min(f.latest_ns, c.latest_ns))
    body = fresh.body
    offset_s = body.tai_offset_sec if fresh.time_type == TimeType.TAI else 0
    # It is rounded down by less than a unit, which now() rounds outward to a nanosecond.
    reference = (both.midpoint_ns - offset_s * 10**9) * UNITS_PER_SECOND // 10**9
    shifted_ns = abs(both.midpoint_ns - f.midpoint_ns)
    draft.values["counter_value"] = counter
    draft.values["time_sec"] = reference // UNITS_PER_SECOND
    draft.values["time_frac_sec"] = reference % UNITS_PER_SECOND
    draft.values["time_maxerror_nanosec"] = both.error_ns
    draft.values["time_esterror_nanosec"] = min(reckon(body, counter).esterror_ns + shifted_ns, both.error_ns)
