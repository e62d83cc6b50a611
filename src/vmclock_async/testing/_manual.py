"""The play in memory and in virtual time: a stand-in for ``Clock``.

The arithmetic, the waiting and the errors are those of ``Clock``, for both are a ``Clockwork``; what stands in is the
page, the counter and the device.
"""

import datetime
import math
from fractions import Fraction
from typing import Any, Final, final

import anyio
import anyio.lowlevel

from vmclock_async import abi
from vmclock_async._reading.clockwork import Clockwork
from vmclock_async.abi import ClockStatus, TimeType
from vmclock_async.errors import SegmentError, SegmentUnstableError
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot, VMClockBody
from vmclock_async.testing._bodies import MAX_ERROR_NS, measured
from vmclock_async.testing._played import PlayedMachine
from vmclock_async.timebase import COUNTER_ID

__all__ = ("ManualClock",)

_BEGINNING_NS: Final = int(datetime.datetime(2026, 1, 15, tzinfo=datetime.UTC).timestamp()) * 10**9
_BEGINNING_TICKS: Final = 10**12
_LONGEST_WAIT_S: Final = 60.0
_NS_PER_TICK: Final = Fraction(1)
_DRIFT: Final = Fraction(50, 10**6)
_MEASURES_EVERY_TICKS: Final = 10**9
_REFERENCE: Final = ("counter_value", "time_sec", "time_frac_sec")
"""What one measurement after the other changes, as long as nothing happens."""


@final
class ManualClock(PlayedMachine, Clockwork):
    """A clock under virtual time, to be passed where a ``Clockwork`` is expected; a context manager.

    Its time runs with that of the event loop (``anyio.current_time()``), and so with that of a test clock where the
    loop has one, as trio's ``MockClock``; and it jumps ahead with ``advance``. Outside of a loop it stands still.
    All else is as with ``Clock``: the same methods, arithmetic and errors, on a page that changes as the test says.

    The publisher, while it runs and is synchronised, measures the time anew once a second, with a drift of 50 ppm in
    between. ``freeze`` it, and the reference grows old; ``lose_sync``, and the bound grows.

    A clock is for one thread.

    Args:
        utc_ns: true time at the beginning, nanoseconds since 1970; by default the 15th of January 2026.
        max_error_ns: how far off the publisher's measurements may be, nanoseconds.
        max_age: as for ``Clock``, seconds of virtual time.
        fenced: whether it is as a clock that sees the device.
        follow_loop: whether time runs with the event loop; if not, ``advance`` alone moves it.

    Raises:
        ValueError: *max_age* is out of range.
    """

    __module__ = "vmclock_async.testing"
    _instead = "make one there"

    def __init__(
        self,
        *,
        utc_ns: int = _BEGINNING_NS,
        max_error_ns: int = MAX_ERROR_NS,
        max_age: float = 1000.0,
        fenced: bool = True,
        follow_loop: bool = True,
    ) -> None:
        Clockwork.__init__(self, counter_id=COUNTER_ID, max_age=max_age, max_drift_ppm=None)
        PlayedMachine.__init__(self)
        self._beginning_ns: Final = utc_ns
        self._max_error_ns: Final = max_error_ns
        self._fenced: Final = fenced
        self._follow_loop: Final = follow_loop
        self._advanced_ns = 0
        self._ran_ns = 0
        self._origin: Final[anyio.lowlevel.RunVar[int]] = anyio.lowlevel.RunVar("origin")
        """What `_ran_ns` is at time 0 of the present loop."""
        self._seq_count = 0
        self._waiters: Final[set[anyio.Event]] = set()
        self._closed = False
        self._commit(self._fresh())
        self._note_marker(self._snapshot)  # so that stamps from now on are good

    @property
    def path(self) -> str:
        """No path: it is in memory."""
        return "ManualClock"

    @property
    def fenced(self) -> bool:
        """Whether a migration or a restore ends readings at once, though the publisher is frozen."""
        return self._fenced

    @property
    def utc_ns(self) -> int:
        """True time, nanoseconds since 1970, by what the publisher knows now: ``step`` moves it."""
        return self._beginning_ns + self._elapsed_ns() + self._shift_ns

    def advance(self, seconds: float) -> None:
        """Let *seconds* go by at once; who waits for them goes on.

        Raises:
            ValueError: *seconds* is negative, or no number.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"time goes on, and not by {seconds} s")
        self._advanced_ns += round(seconds * 10**9)
        self._wake()

    def counter_ticks(self) -> int:
        """The virtual counter, a tick a nanosecond: a stamp for ``at``, and for ``at_monotonic`` too."""
        return _BEGINNING_TICKS + self._elapsed_ns()

    def now(self, *, max_error_ns: int | None = None) -> TimeInterval:
        """The interval of UTC that contains ``utc_ns``; as ``Clock.now``, and with its errors."""
        return self._now_slowly(max_error_ns)

    def close(self) -> None:
        """Read nothing any more; tasks that wait get a ``SegmentError``."""
        self._closed = True
        self._wake()

    def _elapsed_ns(self) -> int:
        if self._follow_loop:
            try:
                loop_ns = round(anyio.current_time() * 10**9)
            except RuntimeError:  # no loop runs
                return self._advanced_ns + self._ran_ns
            origin = self._origin.get(None)
            if origin is None:
                origin = self._ran_ns - loop_ns
                self._origin.set(origin)
            self._ran_ns = origin + loop_ns
        return self._advanced_ns + self._ran_ns

    def _sample(self, limit_s: float) -> tuple[Snapshot, int]:
        self._require_in_place()
        if self._seq_count & 1:
            reason = f"seq_count stays odd at {self._seq_count}: its writer died in mid-update; start it again"
            raise SegmentUnstableError(self.path, reason, self._seq_count)
        counter = self.counter_ticks()
        if self._measures and counter - self._body.counter_value >= _MEASURES_EVERY_TICKS:
            fresh = self._measure(self._shift_ns)
            self._commit(self._body.model_copy(update={name: fresh[name] for name in _REFERENCE}))
        return self._snapshot, counter

    @property
    def _measures(self) -> bool:
        return not self._frozen and self._body.clock_status == ClockStatus.SYNCHRONIZED

    def _fence_marker(self) -> int | None:
        return self._device.disruption_marker if self._fenced else None

    def _require_in_place(self) -> None:
        if self._closed:
            raise SegmentError(self.path, "the clock is closed")

    def _pair_monotonic(self) -> tuple[int, int, int]:
        counter = self.counter_ticks()
        return counter, counter, 0

    def _stamps(self) -> tuple[int, int]:
        return self._pair_monotonic()[:2]

    async def _next(self, seen: Snapshot) -> Snapshot:
        while (snapshot := await self._wait(seen, _LONGEST_WAIT_S)) is None:
            continue
        return snapshot

    async def _wait(self, seen: Snapshot, timeout: float, *, fence_seen: int | None = None) -> Snapshot | None:
        end_ns = self._elapsed_ns() + round(timeout * 10**9)
        await anyio.lowlevel.checkpoint()
        while not self._differs(seen):
            left_ns = end_ns - self._elapsed_ns()
            if left_ns <= 0 or (fence_seen is not None and fence_seen != self._fence_marker()):
                return None
            changed = anyio.Event()
            self._waiters.add(changed)
            try:
                with anyio.move_on_after(left_ns / 10**9 if self._follow_loop else None):
                    await changed.wait()
            finally:
                self._waiters.discard(changed)
        self._note_marker(self._snapshot)
        return self._snapshot

    def _differs(self, seen: Snapshot) -> bool:
        self._require_in_place()
        return not self._seq_count & 1 and self._seq_count != seen.seq_count

    def _wake(self) -> None:
        for changed in self._waiters:
            changed.set()

    def _measure(self, shift_ns: int) -> dict[str, Any]:
        elapsed_ns = self._elapsed_ns()
        return measured(
            _BEGINNING_TICKS + elapsed_ns,
            self._beginning_ns + elapsed_ns + shift_ns,
            ns_per_tick=_NS_PER_TICK,
            drift=_DRIFT,
            max_error_ns=self._max_error_ns,
        )

    def _take(self, body: VMClockBody) -> None:
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
        self._wake()

    def _take_device(self, body: VMClockBody) -> None:
        self._wake()

    def _leave_odd(self) -> None:
        self._seq_count |= 1
        self._wake()
