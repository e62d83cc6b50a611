"""The stage of ``ManualClock``: a page, a counter and a device in memory."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, Final, final

from vmclock_async import abi
from vmclock_async._reading.virtual_feed import VirtualFeed
from vmclock_async._reading.virtual_time import VirtualTime
from vmclock_async.abi import TimeType
from vmclock_async.models import Snapshot, VMClockBody
from vmclock_async.testing._bodies import measured
from vmclock_async.timebase import COUNTER_ID, Rate

__all__ = ("PlayedFeed",)

_BEGINNING_TICKS: Final = 10**12
_RATE: Final = Rate(Fraction(1), Fraction(0))
_DRIFT: Final = Fraction(50, 10**6)


@final
class PlayedFeed(VirtualFeed):
    """The page that a played publisher commits to, and the device that fences it, if *fenced*.

    The counter makes a tick a nanosecond. *refresh* is called before each sample: a running publisher then commits
    what it has measured since.
    """

    counter_id = COUNTER_ID

    def __init__(
        self, time: VirtualTime, refresh: Callable[[], None], *, utc_ns: int, max_error_ns: int, fenced: bool
    ) -> None:
        super().__init__("ManualClock", time)
        self.fenced: Final = fenced
        self._refresh: Final = refresh
        self._beginning_ns: Final = utc_ns
        self._max_error_ns: Final = max_error_ns
        self._seq_count = 0
        self._device = VMClockBody()

    @property
    def utc_ns(self) -> int:
        """True time in nanoseconds since 1970, by the time that was given when the play began."""
        return self._beginning_ns + self.time.elapsed_ns

    def counter_ticks(self) -> int:
        """The virtual counter."""
        return _BEGINNING_TICKS + self.time.elapsed_ns

    def monotonic_ns(self) -> int:
        """The counter's value: it makes a tick a nanosecond, so one stamp serves for both."""
        return self.counter_ticks()

    def page_now(self) -> tuple[Snapshot, bool]:
        """The page last committed, and whether the publisher is alive."""
        return self._snapshot, not self._seq_count & 1

    def sample(self, limit_s: float) -> tuple[Snapshot, int]:
        """The page, and the counter."""
        super().sample(limit_s)
        self._refresh()
        return super().sample(limit_s)

    def fence_marker(self) -> int | None:
        """The device's marker."""
        return self._device.disruption_marker if self.fenced else None

    def measure(self, shift_ns: int) -> dict[str, Any]:
        """The fields of a synchronized time that is the present time plus *shift_ns*."""
        return measured(
            self.counter_ticks(),
            self.utc_ns + shift_ns,
            rate=_RATE,
            drift=_DRIFT,
            max_error_ns=self._max_error_ns,
        )

    def commit(self, body: VMClockBody) -> None:
        """Commit *body* to the page, even if the page was left half written."""
        self._seq_count = ((self._seq_count | 1) + 1) % 2**32
        self._snapshot = Snapshot(
            magic=abi.MAGIC,
            size=abi.SEGMENT_SIZE_WITH_GENERATION,
            version=abi.VERSION,
            counter_id=COUNTER_ID,
            time_type=TimeType.UTC,
            seq_count=self._seq_count,
            body=body,
            inode=0,
        )
        self.time.wake()

    def commit_device(self, body: VMClockBody) -> None:
        """Commit *body* to the device."""
        self._device = body
        self.time.wake()

    def leave_odd(self) -> None:
        """Leave the page half written."""
        self._seq_count |= 1
        self.time.wake()
