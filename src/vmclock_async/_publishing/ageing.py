"""A source of time that goes quiet: what becomes of its last measurement.

A measurement ages by its own counter value, not by when it arrived: a device's page may be read long after it was
written. Its bound grows by itself, with every tick. On top of that:

* after ``GRACE_S``, SYNCHRONIZED becomes FREERUNNING, and another source may take over;
* after ``VOID_AFTER_S`` the status becomes UNKNOWN and the error bounds are cleared;
* a publisher that is stopped in good order turns SYNCHRONIZED into FREERUNNING, and nothing else.

A counter that is behind the measurement by more than a second was reset; that is as old as can be. What is told
in another machine's counter does not age: nothing here can tell how old it is, and no reader here gets a time from
it.
"""

from typing import Final

from vmclock_async.abi import ClockStatus, Flags
from vmclock_async.models import Contents, VMClockBody
from vmclock_async.reckoning import UNITS_PER_SECOND, reckon
from vmclock_async.timebase import COUNTER_ID

__all__ = ("BOUND_FLAGS", "GRACE_S", "VOID_AFTER_S", "aged", "closed", "is_ahead", "is_quiet", "void")

GRACE_S: Final = 5
VOID_AFTER_S: Final = 1000
_RESET_S: Final = -1

BOUND_FLAGS: Final = (
    Flags.TIME_MAXERROR_VALID
    | Flags.TIME_ESTERROR_VALID
    | Flags.PERIOD_MAXERROR_VALID
    | Flags.PERIOD_ESTERROR_VALID
)
"""The flags that a void time has none of."""


def is_quiet(measured: Contents, counter: int) -> bool:
    """Whether *measured* is more than ``GRACE_S`` old when the counter is at *counter*."""
    return _older_than(GRACE_S, measured, counter)


def is_ahead(measured: Contents, counter: int) -> bool:
    """Whether *counter* is so far behind *measured* that it was reset since."""
    return measured.counter_id == COUNTER_ID and _elapsed(measured.body, counter) < _RESET_S * UNITS_PER_SECOND


def aged(contents: Contents, measured: Contents, counter: int) -> Contents:
    """*contents*, whose time was measured as *measured* says, as they are to be at *counter*."""
    if _older_than(VOID_AFTER_S, measured, counter):
        return void(contents)
    return closed(contents) if is_quiet(measured, counter) else contents


def closed(contents: Contents) -> Contents:
    """*contents* of which nobody says any more that they are synchronised."""
    if contents.body.clock_status != ClockStatus.SYNCHRONIZED:
        return contents
    return contents.with_values(clock_status=ClockStatus.FREERUNNING)


def void(contents: Contents) -> Contents:
    """*contents* with a time that promises nothing."""
    return contents.with_flags(VMClockBody(), BOUND_FLAGS).with_values(clock_status=ClockStatus.UNKNOWN)


def _older_than(age_s: int, measured: Contents, counter: int) -> bool:
    if measured.counter_id != COUNTER_ID:
        return False
    return _elapsed(measured.body, counter) > age_s * UNITS_PER_SECOND or is_ahead(measured, counter)


def _elapsed(body: VMClockBody, counter: int) -> int:
    return reckon(body, counter).elapsed
