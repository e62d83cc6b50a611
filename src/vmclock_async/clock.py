"""The clock: bounded time out of a segment, and waiting for it.

``now()`` is in the compiled core: page, counter and fence in one read. What it cannot do quickly it hands to
``_reading.readings``, which finds the reason, or does it slowly.

The fence. A publisher can be late, stopped or dead when the machine is migrated. So where this process may read the
kernel's device, the clock maps it too, and a reading whose segment has not caught up with the device's marker is an
error. Without the fence the exposure is the publisher's latency: until it has looked at the device, at once where that
wakes it, 0.1 s later where it polls, and without limit while it is stopped.
"""

import errno
import inspect
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any, Final, Literal, final

import anyio
import anyio.to_thread

from vmclock_async import _core
from vmclock_async._background import beside
from vmclock_async._continuity import counter_distrusted_because
from vmclock_async._paths import default_path
from vmclock_async._reading.clockwork import Clockwork
from vmclock_async._reading.readings import ATTEMPTS_S
from vmclock_async.errors import (
    ClockDisruptedError,
    CounterNotSupportedError,
    SegmentError,
    SegmentNotInitializedError,
)
from vmclock_async.incarnation import OnRestore
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import UNITS_PER_SECOND, ticks_between, units
from vmclock_async.segment import SegmentReader
from vmclock_async.timebase import COUNTER_ID, pair

__all__ = ("Clock", "Clockwork", "open_clock")

DEVICE: Final = "/dev/vmclock0"
_NOT_FOR_US: Final = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM)
"""Of a device: none there, no driver, no permission."""
_FENCE_POLL_S: Final = 0.05

_log: Final = logging.getLogger("vmclock_async.clock")

PathLike = str | os.PathLike[str]
Fence = Literal["auto"] | PathLike | None


@final
class Clock(_core.Clock, Clockwork):
    """Bounded time from the segment at `path`; a context manager. In async code: ``open_clock``.

    ``now()`` is a reading: the ``TimeInterval`` of UTC that contains true time. It never waits for more than a
    millisecond, and costs less than a checkpoint. Its errors:

    * ``ClockNotSynchronizedError``: clock_status is neither SYNCHRONIZED nor FREERUNNING.
    * ``ClockUnboundedError``: a bound is missing; the time is neither UTC nor TAI with its offset; or the error is
      more than *max_error_ns*, if that is given.
    * ``ClockStaleError``: the reference is older than *max_age*.
    * ``ClockDisruptedError``: the fence does not hold; the counter is behind the reference; the segment is of an
      earlier boot.
    * ``CounterNotSupportedError``: the segment's counter is not this machine's; or the kernel does not trust that, and
      no device gives the time in terms of it.
    * ``SegmentError``: the segment cannot be read; ``SegmentUnstableError``: not in a millisecond.
    * ``ValueError``: *max_error_ns* is not from 0 to 2**64 - 1.

    With a leap second announced, a reading that reaches it holds both of what UTC may be: it is a second wider.

    Args:
        path: of the segment, a captured page or the device; None: where the publisher puts it
            (``$VMCLOCK_ASYNC_SEGMENT``, ``/run/vmclock-async/shm0``, the user's runtime directory,
            ``/dev/shm/vmclock-async-UID/shm0``).
        max_age: seconds for which a reference is carried forward, at most.
        fence: the device whose marker must agree with the segment's: a path; "auto": ``/dev/vmclock0`` where this
            process may read it, and it is a VMClock page (if not, the log says why it is passed over); None: none.
        max_drift_ppm: parts per million that the counter may be off its period, where the page does not say.
        trust_writable: whether to read a segment, or a fence in a file, that others than its owner and root may write.
            Whoever may write it can say any time, and end its readers. The owner may be any user: who names the path
            chooses whom to trust, and ``vmclock-async show`` says who that is.

    Raises:
        SegmentNotInitializedError, SegmentMalformedError, SegmentVersionNotSupportedError, SegmentError: as
            ``SegmentReader``; of the device too, where *fence* is its path. SegmentError also where others may write it
            and *trust_writable* is not given.
        CounterNotSupportedError: this thread may not read the counter (``prctl(PR_SET_TSC)``).
        ValueError: *max_age* or *max_drift_ppm* is out of range.
    """

    __module__ = "vmclock_async"

    def __init__(
        self,
        path: PathLike | None = None,
        *,
        max_age: float = 1000.0,
        fence: Fence = "auto",
        max_drift_ppm: float | None = None,
        trust_writable: bool = False,
    ) -> None:
        _core.checked_counter()  # first of all: where that is forbidden, most that looks at a time is a SIGSEGV
        Clockwork.__init__(self, counter_id=COUNTER_ID, max_age=max_age, max_drift_ppm=max_drift_ppm)
        self._distrusted = counter_distrusted_because()
        """Why the kernel does not trust the counter, when it was last looked at."""
        self._reader: Final = SegmentReader(
            default_path() if path is None else path, trust_writable=trust_writable
        )
        self._page_of_this_boot: _core.Page | None = None
        self._attached: tuple[_core.Page, int, int] | None = None
        """The page, its size and its marker, that now() in the core knows of."""
        self._attached_until = 0
        """The counter value until which it reads them without asking here."""
        try:
            self._fence: Final = _open_fence(fence, self._reader, trust_writable)
        except BaseException:
            self._reader.close()
            raise
        with suppress(SegmentError):
            self._look()  # takes note of the marker, so that stamps from now on are good

    @property
    def path(self) -> str:
        """Of the segment."""
        return self._reader.path

    @property
    def fenced(self) -> bool:
        """Whether a disruption that the device tells of ends readings at once, whatever the publisher does."""
        return self._fence is not None or self._reader.is_device

    def counter_ticks(self) -> int:
        """This machine's raw counter at this moment: a stamp for ``at``, in order with other loads.

        Raises:
            CounterNotSupportedError: this thread may not read it.
        """
        return _core.counter()

    def close(self) -> None:
        """Unmap the segment and the device; tasks that wait get a ``SegmentError``.

        Raises:
            RuntimeError: tasks are waiting, and this is not the thread of their event loop. Nothing was closed.
        """
        self._detach()
        self._attached = None
        self._reader.close()
        if self._fence is not None:
            self._fence.close()

    def _sample(self, limit_s: float) -> tuple[Snapshot, int]:
        self._reader.reopen_if_replaced()
        self._leave_old_page()
        return self._reader.sample_within(limit_s)

    def _leave_old_page(self) -> None:
        """Let now() in the core not go on with a page that the reader has left."""
        attached = self._attached
        if attached is not None and attached[0] is not self._reader.page:
            self._detach()
            self._attached = None

    def _fence_marker(self) -> int | None:
        return None if self._fence is None else self._fence.disruption_marker

    def _fence_generation(self) -> int | None:
        if self._fence is None:
            return None
        return self._fence.sample_within(ATTEMPTS_S)[0].body.vm_generation_counter

    def _require_in_place(self) -> None:
        if self._reader.is_replaced():
            raise SegmentError(self.path, "the segment was replaced by another, or removed")

    def _pair_monotonic(self) -> tuple[int, int, int]:
        paired = pair(time.CLOCK_MONOTONIC)
        # A tick takes less than a nanosecond, or the window is a few ticks of some more: a microsecond is ample.
        return paired.counter_ticks, paired.clock_ns, paired.window_ticks + 1000

    def _stamps(self) -> tuple[int, int]:
        return _core.counter(), time.monotonic_ns()

    async def _next(self, seen: Snapshot) -> Snapshot:
        snapshot = await self._reader.wait_changed(seen)
        if snapshot.opened != seen.opened:
            self._leave_old_page()
        self._note_marker(snapshot)
        return snapshot

    async def _wait(self, seen: Snapshot, timeout: float, *, fence_seen: int | None = None) -> Snapshot | None:
        end = anyio.current_time() + timeout
        left = timeout
        while True:  # once at least, for _next is a checkpoint: where time stands still, who waits must not block
            with anyio.move_on_after(left if fence_seen is None else min(left, _FENCE_POLL_S)):
                return await self._next(seen)
            if fence_seen is not None and self._fence_marker() != fence_seen:
                return None
            if (left := end - anyio.current_time()) <= 0:
                return None

    def _interval(
        self, snapshot: Snapshot, counter: int, max_error_ns: int | None, *, max_past_s: float = 1.0
    ) -> TimeInterval:
        if reason := self._unfit_because(snapshot):
            raise CounterNotSupportedError(f"{reason}; or read the device too, where that gives the time")
        page = self._reader.page
        self._require_this_boot(page)
        interval = super()._interval(snapshot, counter, max_error_ns, max_past_s=max_past_s)
        if page is self._page_of_this_boot:
            self._attach_to(page, snapshot, counter)
        return interval

    def _unfit_because(self, snapshot: Snapshot) -> str | None:
        if self._distrusted is None:
            return None
        self._distrusted = counter_distrusted_because()  # it may have been but the boot's first clocksource
        return None if self._distrusted is None or self._is_vouched_for(snapshot) else self._distrusted

    def _is_vouched_for(self, snapshot: Snapshot) -> bool:
        """Whether a device gives the time in terms of this counter: its hypervisor knows more than the guest sees."""
        device = snapshot if self._reader.is_device else None
        if self._fence is not None:
            device, _ = self._fence.sample_within(ATTEMPTS_S)
        return device is not None and device.counter_id == COUNTER_ID and device.body.counter_period_frac_sec > 0

    def _require_this_boot(self, page: _core.Page) -> None:
        if page is self._page_of_this_boot:
            return
        if self._reader.is_device or self._reader.of_this_boot:
            if page is self._reader.page:  # else another thread has gone on to another meanwhile
                self._page_of_this_boot = page
        else:
            raise ClockDisruptedError(
                f"{self.path} was written before this machine booted, or its clock was set since; wait for a new "
                "commit: is its publisher running?"
            )

    def _attach_to(self, page: _core.Page, snapshot: Snapshot, counter: int) -> None:
        """Let now() in the core read this page for a second, as long as its marker is that of *snapshot*.

        Then it is asked here whether the path still leads to this page: a publisher may have gone on to another.
        """
        body = snapshot.body
        known = page, snapshot.size, body.disruption_marker
        if self._attached == known and 0 < ticks_between(counter, self._attached_until):
            return
        second = (2 ** (64 + body.counter_period_shift)) // body.counter_period_frac_sec
        self._attached_until = (_core.counter() + min(second, 2**62)) % 2**64
        age_s, age_frac = divmod(units(self.max_age), UNITS_PER_SECOND)
        identity = snapshot.size << 32 | snapshot.magic
        fence = None if self._fence is None else self._fence.page
        self._attach(
            page,
            fence,
            identity,
            body.disruption_marker,
            int(COUNTER_ID),
            age_s,
            age_frac,
            self._drift_ppb,
            self._attached_until,
        )
        self._attached = known


def _open_fence(fence: Fence, reader: SegmentReader, trust_writable: bool) -> SegmentReader | None:
    if fence is None or reader.is_device:
        return None
    if fence != "auto":
        try:
            return SegmentReader(fence, trust_writable=trust_writable)
        except SegmentNotInitializedError as exc:
            reason = 'nothing is there that could be the fence; check the path, or take fence="auto" or None'
            raise SegmentNotInitializedError(exc.path, reason) from exc
    try:
        return SegmentReader(DEVICE)
    except SegmentError as exc:
        if not (isinstance(exc.__cause__, OSError) and exc.__cause__.errno in _NOT_FOR_US):
            _log.warning("%s; passed over: the clock of %s has no fence", exc, reader.path)
        return None


def _require_async(callbacks: Iterable[OnRestore]) -> tuple[OnRestore, ...]:
    """*callbacks*; whoever is no async function is found here, and not at the first restore."""
    callbacks = tuple(callbacks)
    for callback in callbacks:
        function: Any = callback
        while isinstance(function, partial):
            function = function.func
        called = getattr(type(function), "__call__", None)  # noqa: B004  not whether, but what
        if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)):
            name = getattr(function, "__qualname__", None) or repr(function)
            raise TypeError(
                f"on_restore takes async functions, and {name} is none; write it as async def, or wrap it in one"
            )
    return callbacks


@asynccontextmanager
async def open_clock(
    path: PathLike | None = None,
    *,
    max_age: float = 1000.0,
    fence: Fence = "auto",
    max_drift_ppm: float | None = None,
    trust_writable: bool = False,
    on_restore: Iterable[OnRestore] = (),
) -> AsyncIterator[Clock]:
    """A ``Clock`` for the length of the block, opened without blocking the loop.

    Args:
        path, max_age, fence, max_drift_ppm, trust_writable: as for ``Clock``.
        on_restore: async functions of a snapshot (methods, ``partial`` and objects with an async ``__call__`` too),
            awaited one after the other when the machine was restored from a snapshot, before ``Clock.incarnation``
            shows a new one; to them it does. What they raise ends the block.

    Raises:
        As ``Clock``.
        TypeError: one of *on_restore* is no async function; it is named.
    """
    callbacks = _require_async(on_restore)
    opened = partial(
        Clock, path, max_age=max_age, fence=fence, max_drift_ppm=max_drift_ppm, trust_writable=trust_writable
    )
    with await anyio.to_thread.run_sync(opened) as clock:
        async with AsyncExitStack() as stack:
            if callbacks:
                # Before the block begins: a restore in it is one, however soon.
                snapshot, _ = await clock._look_patiently()
                clock._incarnation.of(snapshot, clock._generation(snapshot))
                clock._incarnation.on_restore = callbacks
                await stack.enter_async_context(beside(partial(clock._incarnation.keep, clock, snapshot)))
            yield clock


open_clock.__module__ = "vmclock_async"
