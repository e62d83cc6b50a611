"""Waking readers when the page behind their mapping changes.

Two ways, one for each kind of file:

* A store through a mapping raises no inotify event and a regular file cannot be polled. So the writer has
  futimens() called after each commit (waker.c), and readers watch the inode (inotify.c). Unlinking or
  replacing the file changes the inode's link count, which is an event too.
* The kernel's device can be polled where its page has NOTIFICATION_PRESENT (Linux 7.0): readable while seq_count
  differs from the one that this open file last read(). Looking through the mapping does not arm it again; read()
  does. Where there is nothing to be notified of, the driver says POLLHUP at once and for ever (before 7.0: it
  cannot be polled at all), and whoever went on waiting would spin: so a descriptor that is ready time and again
  without a change is given up, and polled by time.

A watch is of one file and for one event loop, because tasks of two loops cannot wake each other, and each loop has to
find the descriptor ready for itself. A reader that goes over to another file begins another watch (_reader.py).

Invariants:
    * One descriptor a watch, however many tasks wait: two tasks may not wait on one descriptor, and a user has
      128 inotify instances. One waiter is in front and waits on the descriptor. When that is ready, all others are
      woken.
    * The place in front is never empty while others wait. Whoever leaves it hands it to the next waiter, who takes it
      at once, without looking at the page in between: a waiter who looked, found a commit and went would leave the
      others without anybody in front, and what is queued on the descriptor unread. If the next cannot take the place,
      because it is cancelled or its time is over, it hands the place on.
    * What is queued is drained before the caller looks at the page, so a commit after the look wakes.
    * Every wait ends after its time-out at the latest: losing the watch costs latency, never a change.
"""

import os
from abc import ABC, abstractmethod
from contextlib import suppress
from io import FileIO
from typing import TYPE_CHECKING, Final, final

import anyio
import anyio.to_thread

from vmclock_async import _core
from vmclock_async._segment.descriptor import Readable

if TYPE_CHECKING:
    from _typeshed import HasFileno

__all__ = ("DeviceWatch", "InodeWatch", "Watch")

_PAGE_BYTES: Final = 4096
_IN_VAIN: Final = 3
"""How often in a row a device may be ready without a change before it is given up."""


class Watch(ABC):
    """Waits for one descriptor, for any number of tasks of the event loop in which it was made."""

    def __init__(self) -> None:
        self._in_front = False
        """Whether the place in front is taken, or handed to a waiter that has not run since."""
        self._next: anyio.Event | None = None
        """The waiter that the place was handed to, and that has not run since."""
        self._others: Final[dict[anyio.Event, None]] = {}
        """The waiters that are not in front, in order of their coming."""
        self.polling_because: str | None = None
        """Why nothing wakes the waiters; None while something does."""

    async def wait(self, timeout: float) -> None:
        """Return at the next change, after *timeout* seconds, when this is closed, or now and then for no reason."""
        if self._in_front or self.polling_because is not None:
            end, is_next = anyio.current_time() + timeout, False
            with anyio.move_on_after(timeout):
                is_next = await self._wait_behind()
            if not is_next:
                return
            self._next, timeout = None, max(0.0, end - anyio.current_time())
        self._in_front = True
        try:
            await self._wait_in_front(timeout)
        except anyio.ClosedResourceError:
            pass  # the caller looks at the page, and finds that it is closed, or another
        finally:
            self._hand_on()

    async def _wait_behind(self) -> bool:
        """Whether the place in front is this waiter's now; else there may be a change."""
        woken = anyio.Event()
        self._others[woken] = None
        try:
            await woken.wait()
        except BaseException:
            self._others.pop(woken, None)
            if self._next is woken:
                self._hand_on()
            raise
        return self._next is woken

    def _hand_on(self) -> None:
        """Give the place in front to the next waiter, or leave it empty if there is none."""
        if self.polling_because is not None:
            self._wake_all()
        self._next = next(iter(self._others), None)
        self._in_front = self._next is not None
        if self._next is not None:
            del self._others[self._next]
            self._next.set()

    def _wake_all(self) -> None:
        """Let every waiter that is not in front look at the page."""
        if self._next is not None:  # woken already: it looks, too, instead of taking the place
            self._next, self._in_front = None, False
        others = list(self._others)
        self._others.clear()
        for woken in others:
            woken.set()

    @abstractmethod
    async def _wait_in_front(self, timeout: float) -> None:
        """Wait for the descriptor, for *timeout* seconds at most; drain it, and wake all others."""

    @abstractmethod
    def wake_from_anywhere(self) -> None:
        """Wake the waiters from whatever thread, if that can be done: the reader has gone over to another file."""

    @abstractmethod
    def close(self) -> None:
        """Wake the waiters, and give the descriptor back. While tasks wait: in their thread alone."""

    @abstractmethod
    def abandon(self) -> None:
        """Give the descriptor back in the child of a fork: the waiters are the parent's."""


@final
class InodeWatch(Watch):
    """Waits for changes of the regular file that is open at *fd*."""

    def __init__(self, fd: int) -> None:
        super().__init__()
        self._queue: Readable | None = None
        try:
            instance, self._number = _core.inotify_watch(fd)
        except OSError as exc:
            self.polling_because = f"no inotify watch: {exc.strerror}"
        else:
            self._inotify: Final = FileIO(instance)
            self._queue = Readable(self._inotify, self._wake_all)

    async def _wait_in_front(self, timeout: float) -> None:
        if self._queue is not None:
            await self._queue.wait(timeout)

    def wake_from_anywhere(self) -> None:
        if self._queue is not None:
            with suppress(OSError, ValueError):  # gone along with its inode, or closed
                _core.inotify_unwatch(self._inotify, self._number)

    def close(self) -> None:
        if self._queue is not None:
            self._queue.stop()
        self._wake_all()
        if self._queue is not None:
            self._queue.close()

    def abandon(self) -> None:
        if self._queue is not None:
            self._queue.abandon()


@final
class DeviceWatch(Watch):
    """Waits for changes of one open device.

    Args:
        device: an open file of its own, and the watch's to close: what was last read() is noted on the open file. None
            where the page has no NOTIFICATION_PRESENT.
    """

    def __init__(self, device: FileIO | None) -> None:
        super().__init__()
        self._device: Final = device
        self._last: bytes | None = None
        self._in_vain = 0
        if device is None:
            self.polling_because = "the device has no notifications (NOTIFICATION_PRESENT is clear)"

    async def _wait_in_front(self, timeout: float) -> None:
        if self._device is not None:
            with anyio.move_on_after(timeout):
                await self._wait_for_device(self._device)

    async def _wait_for_device(self, device: "HasFileno") -> None:
        try:
            fd = device.fileno()
        except ValueError:
            raise anyio.ClosedResourceError from None
        try:
            await anyio.wait_readable(fd)
        except OSError as exc:
            self.polling_because = f"the device cannot be polled ({exc})"
            return
        try:
            # In a thread: the driver waits up to 100 ms for an update to end.
            page: bytes | None = await anyio.to_thread.run_sync(os.pread, fd, _PAGE_BYTES, 0)
        except OSError:  # ETIMEDOUT: still in an update; or closed meanwhile, which the caller finds
            page = self._last
        finally:
            self._wake_all()  # also when it is cancelled: by then the thread may have drained what they wait for
        self._in_vain = self._in_vain + 1 if page == self._last else 0
        self._last = page
        if self._in_vain >= _IN_VAIN:
            self.polling_because = "the device is ready without a change (POLLHUP)"

    def wake_from_anywhere(self) -> None:
        pass  # nothing that another thread could do makes a device ready: its waiters look after their time-out

    def close(self) -> None:
        if self._device is not None and not self._device.closed:
            if self._in_front:
                anyio.notify_closing(self._device)
            self._device.close()
        self._wake_all()

    def abandon(self) -> None:
        if self._device is not None:
            self._device.close()
