"""The fields that every kind of record gets: what a clock shows at this moment, as plain values."""

from typing import Final, TypedDict, final
from uuid import UUID

from vmclock_async.abi import ClockStatus
from vmclock_async.clock import Clock

__all__ = ("TimeFields", "TimeValues")

_STATUS_NAMES: Final = {int(status): status.name for status in ClockStatus}
"""By number, because to ask for ``TimeInterval.status`` takes ten times as long as to read the time."""


class TimeValues(TypedDict):
    """What a record says of the time at which it was made."""

    earliest_ns: int | str | None
    """True time was not before this, nanoseconds of UTC since 1970; None: there was no bounded time."""
    latest_ns: int | str | None
    """True time was not after this; None: there was no bounded time."""
    clock_status: str
    """``SYNCHRONIZED`` or ``FREERUNNING``. Without a bounded time: the class of the error that says why, such as
    ``ClockStaleError``, as in the JSON of ``vmclock-async now``."""
    incarnation: str | None
    """``Clock.incarnation`` as text, a UUID: another one in each process, and after each restore of the machine. None
    while it is not known, as while callbacks of ``on_restore`` run."""


@final
class TimeFields:
    """The fields of a record, from *clock*: see ``TimeValues``.

    Time and incarnation are read one right after the other, not at one instant: at a restore, a record may have the
    time from before it and the incarnation from after it.

    Args:
        clock: the clock, which may be closed earlier than the last record is made: that record has no time.
        strings: whether the two times are decimal strings. They are more than 2**53: a program that reads numbers of
            JSON as doubles, as JavaScript does, is off by up to 128 ns.
    """

    __slots__ = ("_clock", "_last", "_strings")

    def __init__(self, clock: Clock, *, strings: bool = False) -> None:
        self._clock: Final = clock
        self._strings: Final = strings
        self._last: tuple[UUID | None, str] = None, ""
        """The last incarnation and its text, which costs more to make than the other fields together."""

    def now(self) -> TimeValues:
        """The values at this moment. Nothing is raised, and nothing is waited for longer than a millisecond."""
        earliest_ns: int | str | None = None
        latest_ns: int | str | None = None
        try:
            interval = self._clock.now()
            earliest_ns, latest_ns = interval.earliest_ns, interval.latest_ns
            status = _STATUS_NAMES[interval._status]
            if self._strings:
                earliest_ns, latest_ns = str(earliest_ns), str(latest_ns)
        except Exception as exc:  # whatever a derived clock raises, the record must not get lost
            status = type(exc).__name__
        return {
            "earliest_ns": earliest_ns,
            "latest_ns": latest_ns,
            "clock_status": status,
            "incarnation": self._incarnation(),
        }

    def _incarnation(self) -> str | None:
        try:
            drawn = self._clock.incarnation
        except Exception:  # as above
            return None
        known, text = self._last
        if drawn is not known:
            text = str(drawn)
            self._last = drawn, text
        return text
