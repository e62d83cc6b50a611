"""Ageing: how the last measurement of a source that went quiet loses its status and its bounds.

The age counts from the measurement's own counter value, not from its arrival, because a device's page may be read long
after it was written. Its bound grows by itself, with every tick. On top of that:

* after ``GRACE_S``, SYNCHRONIZED becomes FREERUNNING, and another source may take over;
* after ``VOID_AFTER_S`` the status becomes UNKNOWN and the error bounds are cleared;
* a publisher that is stopped in good order turns SYNCHRONIZED into FREERUNNING, and changes nothing else.

A counter that is behind the measurement by more than a second was reset; the measurement then has the greatest age. A
time in another machine's counter does not age: nothing here can see how old it is, and no reader here gets a time from
it.
"""

from typing import Final

from vmclock_async._publishing.draft import Draft
from vmclock_async.models import Contents
from vmclock_async.reckoning import UNITS_PER_SECOND, elapsed
from vmclock_async.timebase import COUNTER_ID

__all__ = ("GRACE_S", "VOID_AFTER_S", "age", "is_ahead", "is_quiet")

GRACE_S: Final = 5
VOID_AFTER_S: Final = 1000
_GRACE: Final = GRACE_S * UNITS_PER_SECOND
_VOID_AFTER: Final = VOID_AFTER_S * UNITS_PER_SECOND
_RESET: Final = -UNITS_PER_SECOND
_OLDEST: Final = 2**64 * UNITS_PER_SECOND


def is_quiet(measured: Contents, counter: int) -> bool:
    """Whether *measured* is more than ``GRACE_S`` old when the counter is at *counter*."""
    return _age(measured, counter) > _GRACE


def is_ahead(measured: Contents, counter: int) -> bool:
    """Whether *counter* is so far behind *measured* that it was reset since."""
    return _age(measured, counter) == _OLDEST


def age(draft: Draft, measured: Contents, counter: int) -> None:
    """Age *draft*, whose time is that of *measured*, to the counter value *counter*."""
    units = _age(measured, counter)
    if units > _VOID_AFTER:
        draft.void()
    elif units > _GRACE:
        draft.run_free()


def _age(measured: Contents, counter: int) -> int:
    """Age of *measured* at *counter*, in units of 2**-64 s; ``_OLDEST`` if the counter was reset since."""
    if measured.counter_id != COUNTER_ID:
        return 0
    body = measured.body
    units = elapsed(body, body.counter_value, counter)
    return units if units >= _RESET else _OLDEST
