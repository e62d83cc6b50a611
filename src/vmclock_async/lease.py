"""Leases: a right to act that ends by itself, by any clock inside the bound.

A lease runs on the counter, not on UTC. Its time is the elapsed ticks times (P + R), the longest time that a tick may
take by any body it has seen. So it never outlasts its duration of true time, whatever the bound of UTC does meanwhile.

It is over once that time is over. It is over at once when its measure becomes unreliable: the marker moved (a
migration, a suspend), the generation changed (a restore: somebody else may hold the same lease), the device's marker
is ahead of the segment's, there is no bound any more, the segment was replaced or cannot be read.

A cancel scope is cooperative: it does not interrupt code between two awaits, and a paused machine notices nothing
until it runs again. So call ``check()`` right before each act that others see, and give the resource the ``token``:
the token keeps out a holder that is late all the same.
"""

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from fractions import Fraction
from typing import Final, NamedTuple, final

import anyio

from vmclock_async import _core
from vmclock_async._reading.background import beside
from vmclock_async._reading.feed import Witness
from vmclock_async._reading.readings import SYNC_LIMIT_S
from vmclock_async._reading.waiting import Waiting
from vmclock_async._segment.belonging import OfThisProcess, this_process
from vmclock_async.abi import shows_restore
from vmclock_async.errors import (
    ClockDisruptedError,
    ClockError,
    ClockUnboundedError,
    LeaseLostError,
    SegmentError,
    SegmentUnstableError,
)
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import ticks_between, went_back

__all__ = ("Lease", "open_lease")


_LONGEST_POLL_S: Final = 0.25
"""Poll interval of a lease's watch, because a bound lost by age and a path that leads nowhere wake nobody."""


class _Held(NamedTuple):
    """What must not change while a lease is held."""

    opened: int
    marker: int
    generation: int | None

    @classmethod
    def of(cls, snapshot: Snapshot, generation: int | None) -> "_Held":
        return cls(snapshot.opened, snapshot.body.disruption_marker, generation)

    def require(self, now: "_Held") -> None:
        if now.opened != self.opened:
            raise ClockDisruptedError("the segment was replaced by another")
        if now.marker != self.marker:
            raise ClockDisruptedError(f"the segment's marker was {self.marker}, and is {now.marker}")
        if shows_restore(self.generation, self.marker, now.generation, now.marker):
            raise ClockDisruptedError(f"the segment's generation was {self.generation}, and is {now.generation}")

    def remembering(self, now: "_Held") -> "_Held":
        """This, with the generation of *now* if there was none before: a source that sees restores may come later."""
        return now if self.generation is None else self


@final
class Lease(OfThisProcess):
    """A held lease; made by ``Clock.lease``.

    `token` is a fencing token for the resource; `duration_s` seconds is how long it lasts.
    """

    _instead = "send its token, or take another lease there"

    def __repr__(self) -> str:
        """Duration, path, token and state of the lease, without a look at the segment."""
        state = "held" if self._over is None else f"over: {self._over}"
        return f"<Lease of {self.duration_s:g} s on {self._waiting.feed.path}, token {self.token}, {state}>"

    def __init__(
        self,
        waiting: Waiting,
        duration_s: float,
        snapshot: Snapshot,
        counter: int,
        *,
        generation: int | None,
        token: int,
    ) -> None:
        self.duration_s: Final = duration_s
        """Length of the lease in seconds, from the reading that began it, or from the last renewal."""
        self.token: Final = token
        """A fencing token for the resource, an integer. If one lease is begun after another was given, anywhere, it has
        the greater token. The token is the latest_ns of the reading that began the lease, and was waited out before the
        lease was given.
        """
        self._waiting: Final = waiting
        self._readings: Final = waiting.readings
        self._held = _Held.of(snapshot, generation)
        self._start = self._latest = counter
        self._process: Final = this_process()
        self._witness: Witness | None = None
        """The pages in which ``check`` last found the lease held."""
        self._until = 0
        """The counter value from which that check is out of date."""
        self._longest_tick_s = self._readings.longest_tick_s(snapshot)
        self._end = math.inf
        """End of the lease by the loop's time, as far as the watch knows; after a renewal it has to look first."""
        self._over: str | None = None
        self._doubt: SegmentUnstableError | None = None
        """The error because of which the last ``check`` found no answer."""
        self._scope: Final = anyio.CancelScope()

    @property
    def remaining_ns(self) -> int:
        """Nanoseconds that the lease still lasts, rounded down; 0 once it is over.

        Raises:
            SegmentUnstableError: as for ``check``.
        """
        try:
            return int(self._left_s(self._sample()) * 10**9)
        except LeaseLostError:
            return 0

    def check(self) -> None:
        """Return if the lease is held at this moment.

        Raises:
            LeaseLostError: the lease is over; the message says why.
            SegmentUnstableError: no answer is possible now: a commit is in progress and does not end.
        """
        if self._witness is not None and self._over is None and self._process is this_process():
            counter = _core.unchanged(*self._witness, self._latest, self._until)
            if counter is not None:
                self._latest = counter
                return
        witness = self._waiting.feed.witness()
        sample = self._sample()
        self._until = self._held_until(sample, self._left_s(sample))
        self._witness = witness  # from before the look, so that a later change shows

    def _held_until(self, sample: tuple[Snapshot, int], left_s: Fraction) -> int:
        """The counter value up to which the lease is held if nothing changes, or from which to look again."""
        snapshot, counter = sample
        again = self._readings.asked_again_at(snapshot, counter)
        last = counter if again is None else counter + min(again - counter, left_s // self._longest_tick_s)
        try:
            self._readings.interval(snapshot, last, None)  # the time is known to be bounded up to this value
        except (ClockError, SegmentError):
            return counter
        return last % 2**64

    def renew(self) -> None:
        """Begin the duration again, from now; the token stays.

        Raises:
            LeaseLostError: the lease is over, and cannot be renewed.
            SegmentUnstableError: as for ``check``.
        """
        sample = self._sample()
        self._left_s(sample)
        self._start = sample[1]  # the very moment at which the lease was held
        self._witness = None
        self._end = math.inf

    def _sample(self) -> tuple[Snapshot, int]:
        """A sample; LeaseLostError if none can be had any more."""
        if self._over is None:
            try:
                return self._readings.sample()
            except SegmentUnstableError as exc:
                self._doubt = exc
                raise
            except SegmentError as exc:
                raise self._lost(str(exc)) from exc
        raise self._lost(self._over)

    def _left_s(self, sample: tuple[Snapshot, int], limit_s: float = SYNC_LIMIT_S) -> Fraction:
        """Seconds that are left at *sample*, rounded down; LeaseLostError if the lease is over.

        In a loop's thread *limit_s* must be 0.
        """
        if self._over is not None:
            raise self._lost(self._over)
        if self._process is not this_process():
            raise self._lost("it is held by the process that forked this one")
        snapshot, counter = sample
        try:
            # First, because after a migration the lack of a bound is only the consequence.
            now = _Held.of(snapshot, self._readings.generation(snapshot, limit_s))
            self._held.require(now)
            self._held = self._held.remembering(now)
            self._readings.require_generation(snapshot, limit_s)
            self._readings.interval(snapshot, counter, None, limit_s=limit_s)
            self._waiting.feed.require_in_place()
        except SegmentUnstableError as exc:
            self._doubt = exc
            raise  # the device's page is being written: there is no answer now
        except (ClockError, SegmentError) as exc:
            raise self._lost(str(exc)) from exc
        self._longest_tick_s = max(self._longest_tick_s, self._readings.longest_tick_s(snapshot))
        if went_back(self._latest, counter):
            raise self._lost("the counter went back")
        self._latest = counter
        ticks = max(0, ticks_between(self._start, counter))
        left_s = Fraction(self.duration_s) - ticks * self._longest_tick_s
        if left_s <= 0:
            raise self._lost(f"its {self.duration_s:g} s are over")
        return left_s

    def _lost(self, reason: str) -> LeaseLostError:
        self._end_because(reason)
        return LeaseLostError(f"the lease is over: {reason}")

    def _end_because(self, reason: str) -> None:
        self._over = self._over or reason
        self._witness = None

    async def _watch(self) -> None:
        """Cancel the scope once the lease is over."""
        try:
            while True:
                fence = self._waiting.feed.fence_marker()
                snapshot, left_s = await self._left_patiently()
                await self._waiting.wait(snapshot, min(left_s, _LONGEST_POLL_S), fence_seen=fence)
        except (ClockError, SegmentError) as exc:
            self._end_because(str(exc))
            self._scope.cancel()

    async def _left_patiently(self) -> tuple[Snapshot, float]:
        """The page, and the seconds left. An unreadable page is waited for, but not beyond the lease's end."""

        def look() -> tuple[Snapshot, float]:
            sample = self._readings.sample(0)
            return sample[0], float(self._left_s(sample, 0))

        snapshot, left_s = await self._waiting.patiently(look, self._end - anyio.current_time())
        self._end = anyio.current_time() + left_s
        return snapshot, left_s


@asynccontextmanager
async def open_lease(waiting: Waiting, duration_s: float) -> AsyncIterator[Lease]:
    """A lease for the length of the block, at most *duration_s* seconds.

    Raises:
        LeaseLostError: the lease was over before the block, which was cancelled at an await; or the block ended with
            the ``SegmentUnstableError`` of ``check``.
        ValueError: *duration_s* is not from 0 to the clock's max_age.
        ClockUnboundedError: the lease would be over before its token is past, which takes about twice the error of
            the time.
        ClockError, SegmentError: there is no bounded time to begin with.
    """
    if not 0 < duration_s <= waiting.readings.max_age:
        raise ValueError(
            f"a lease lasts more than 0 s and {waiting.readings.max_age:g} s at most, not {duration_s}"
        )

    def look() -> tuple[Snapshot, int, TimeInterval, int | None]:
        snapshot, counter = waiting.readings.sample(0)
        began = waiting.readings.interval(snapshot, counter, None, limit_s=0)
        return snapshot, counter, began, waiting.readings.generation(snapshot, 0)

    snapshot, counter, began, generation = await waiting.patiently(look)
    if began.latest_ns - began.earliest_ns >= duration_s * 10**9:
        raise ClockUnboundedError(
            f"the time is bounded to {began.error_ns} ns, and a lease of {duration_s:g} s would be over before it "
            "begins; take a longer one, or wait_bounded() first"
        )
    lease = Lease(waiting, duration_s, snapshot, counter, generation=generation, token=began.latest_ns)
    await waiting.wait_past(lease.token)
    await lease._left_patiently()
    try:
        async with beside(lease._watch):
            with lease._scope:
                yield lease
        # Also if the block ended by itself, after the lease was over or while it was held.
        with suppress(SegmentUnstableError):
            lease.check()
    except SegmentUnstableError as exc:
        if exc is not lease._doubt:
            raise
        raise lease._lost(lease._over or str(exc)) from exc  # check() found no answer, and the block did not wait
    finally:
        lease._end_because("its block has ended")
