"""Readings of a clock."""

from kit.told_world import (
    true_ns,
)
from vmclock_async import (
    Clock,
    TimeInterval,
    _core,
)


def readings(clock: Clock) -> list[TimeInterval]:
    """Some readings, the first the slow way and the next by the core; each contains the truth."""
    taken = []
    for _ in range(3):
        before = _core.counter()
        reading = clock.now()
        after = _core.counter()
        assert reading.earliest_ns <= true_ns(after)
        assert reading.latest_ns >= true_ns(before)
        taken.append(reading)
    return taken
