"""What a source emits, kept, and the time that an update by itself tells."""

import time

from vmclock_async import BodyUpdate, CounterId, TimeType, VMClockBody
from vmclock_async.models import Contents
from vmclock_async.reckoning import Bounds, bounds_at
from vmclock_async.testing import Heard
from vmclock_async.timebase import COUNTER_ID, pair


class Notes(Heard):
    """What a source of time says, in an epoch of the test's."""

    @property
    def last(self) -> BodyUpdate:
        return self.updates[-1]

    @property
    def statuses(self) -> list[int | None]:
        """Each status, but once where it stays the same."""
        told = [update.clock_status for update in self.updates]
        return [status for number, status in enumerate(told) if number == 0 or told[number - 1] != status]


def contents(update: BodyUpdate) -> Contents:
    """What a segment holds after *update* alone."""
    return Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC).updated(update)


def bounds(update: BodyUpdate, counter: int) -> Bounds:
    """The interval that *update* gives at *counter*."""
    return bounds_at(contents(update), counter, counter_id=COUNTER_ID)


def contains_realtime(update: BodyUpdate) -> bool:
    """Whether *update*'s interval contains this machine's own clock."""
    now = pair(time.CLOCK_REALTIME)
    found = bounds(update, now.counter_ticks)
    return found.earliest_ns <= now.clock_ns <= found.latest_ns
