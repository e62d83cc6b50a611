"""The play in memory and in virtual time."""

import datetime
from typing import Any, Final, final

from vmclock_async._reading.virtual_time import VirtualTime
from vmclock_async.abi import ClockStatus
from vmclock_async.clock import Clock
from vmclock_async.models import VMClockBody
from vmclock_async.testing._bodies import MAX_ERROR_NS
from vmclock_async.testing._feed import PlayedFeed
from vmclock_async.testing._played import PlayedMachine

__all__ = ("ManualClock",)

_BEGINNING_NS: Final = int(datetime.datetime(2026, 1, 15, tzinfo=datetime.UTC).timestamp()) * 10**9
_MEASURES_EVERY_TICKS: Final = 10**9
_REFERENCE: Final = ("counter_value", "time_sec", "time_frac_sec")
"""The fields that change from one measurement to the next while nothing happens."""


@final
class ManualClock(PlayedMachine, Clock):
    """A ``Clock`` over a played page, in virtual time; a context manager.

    Its time runs with the event loop (``anyio.current_time()``), and so with the loop's test clock if it has one, such
    as trio's ``MockClock``; ``advance`` makes it jump ahead. Outside of a loop it stands still. It has everything that
    ``Clock`` has, ``on_restore`` too, on a page that changes as the test says.

    The publisher, while it runs and is synchronized, takes a new measurement once a second, with a drift of 50 ppm in
    between. After ``freeze`` the reference grows old; after ``lose_sync`` the bound grows.

    A clock serves one thread.

    Args:
        utc_ns: true time at the beginning, nanoseconds since 1970; by default the 15th of January 2026.
        max_error_ns: bound of the error of the publisher's measurements, nanoseconds.
        max_age: see ``Clock``; seconds of virtual time.
        fenced: whether the clock sees the device, if there is one.
        has_device: whether the machine has a device; without one only ``report_disruption`` shows a restore.
        follow_loop: whether time runs with the event loop; if not, only ``advance`` moves it.

    Raises:
        ValueError: *max_age* is out of range.
    """

    _instead = "make one there"

    def __init__(
        self,
        *,
        utc_ns: int = _BEGINNING_NS,
        max_error_ns: int = MAX_ERROR_NS,
        max_age: float = 1000.0,
        fenced: bool = True,
        has_device: bool = True,
        follow_loop: bool = True,
    ) -> None:
        PlayedMachine.__init__(self, has_device=has_device)
        self._time: Final = VirtualTime(follow_loop=follow_loop)
        self._played: Final = PlayedFeed(
            self._time, self._measure_again, utc_ns=utc_ns, max_error_ns=max_error_ns, fenced=fenced and has_device
        )
        self._played.commit_device(self._device)
        self._commit(self._fresh())
        self._read_from(self._played, max_age=max_age)

    @property
    def utc_ns(self) -> int:
        """True time, nanoseconds since 1970, by the publisher's present knowledge: ``step`` moves it."""
        return self._played.utc_ns + self._shift_ns

    def advance(self, seconds: float) -> None:
        """Let *seconds* go by at once; tasks that wait for them go on.

        Raises:
            ValueError: *seconds* is negative or not a number.
        """
        self._time.advance(seconds)

    def _measure_again(self) -> None:
        """Do what the publisher does once a second while it runs and is synchronized."""
        if self._frozen or self._body.clock_status != ClockStatus.SYNCHRONIZED:
            return
        if self._played.counter_ticks() - self._body.counter_value >= _MEASURES_EVERY_TICKS:
            fresh = self._measure(self._shift_ns)
            self._commit(self._body.model_copy(update={name: fresh[name] for name in _REFERENCE}))

    def _measure(self, shift_ns: int) -> dict[str, Any]:
        return self._played.measure(shift_ns)

    def _take(self, body: VMClockBody) -> None:
        self._played.commit(body)

    def _take_device(self, body: VMClockBody) -> None:
        self._played.commit_device(body)

    def _leave_odd(self) -> None:
        self._played.leave_odd()
