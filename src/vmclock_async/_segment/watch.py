"""Waking readers when the page behind their mapping changes.

There are two ways, one for each kind of file:

* A store through a mapping raises no inotify event, and a regular file cannot be polled. So the writer calls
  futimens() after each commit (waker.c), and readers watch the inode (inotify.c). Unlinking or replacing the file
  changes the link count of the inode, which is an event too.
* The kernel's device can be polled if its page has NOTIFICATION_PRESENT (Linux 7.0): it is readable while seq_count
  differs from the one that this open file last read(). Looking through the mapping does not arm it again; read()
  does. A device without notifications reports POLLHUP at once and for ever (before 7.0 it cannot be polled at all),
  so waiting for it would spin. Therefore a descriptor that is ready again and again without a change is given up, and
  the page is looked at by time.

A watch serves one file and one event loop, because tasks of two loops cannot wake each other, and each loop has to
find the descriptor ready for itself. A reader that moves to another file begins another watch (reader.py).

Invariants:
    * Each watch has one descriptor, however many tasks wait, because two tasks may not wait on one descriptor, and a
      user has 128 inotify instances. One waiter is in front and waits on the descriptor. When that is ready, all
      others are woken.
    * The place in front is never empty while others wait. A waiter that leaves it hands it to the next waiter, which
      takes it at once, without looking at the page in between. If it looked first, found a commit and left, nobody
      would be in front, and what is queued on the descriptor would stay unread. If the next waiter cannot take the
      place, because it is cancelled or its time is over, it hands the place on.
    * The queue is drained before the caller looks at the page, so a commit after the look wakes.
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
from vmclock_async._segment.page import Mapped

if TYPE_CHECKING:
    from _typeshed import HasFileno

__all__ = ("DeviceWatch", "Followed", "InodeWatch", "Watch")

_PAGE_BYTES: Final = 4096
_IN_VAIN: Final = 3
"""Number of times in a row that a device may be ready without a change before it is given up."""


class Watch(ABC):
    """Waits for one descriptor, for any number of tasks of the event loop that made it."""

    def __init__(self) -> None:
        self._in_front = False
        """Whether the place in front is taken, or handed to a waiter that has not run since."""
        self._next: anyio.Event | None = None
        """The waiter that was handed the place and has not run since."""
        self._others: Final[dict[anyio.Event, None]] = {}
        """The waiters that are not in front, in order of arrival."""
        self.polling_because: str | None = None
        """Why nothing wakes the waiters; None while something does."""

    async def wait(self, timeout: float) -> None:
        """Return at the next change, after *timeout* seconds, when the watch is closed, or at times for no reason."""
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
            pass  # the caller looks at the page, and finds that it is closed or another one
        finally:
            self._hand_on()

    async def _wait_behind(self) -> bool:
        """Wait behind; return whether this waiter now has the place in front. If not, there may be a change."""
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
        if self._next is not None:  # woken already: it looks too, instead of taking the place
            self._next, self._in_front = None, False
        others = list(self._others)
        self._others.clear()
        for woken in others:
            woken.set()

    @abstractmethod
    async def _wait_in_front(self, timeout: float) -> None:
        """Wait for the descriptor for at most *timeout* seconds; drain it, and wake all others."""

    @abstractmethod
    def wake_from_anywhere(self) -> None:
        """Wake the waiters from any thread, if that is possible: the reader has moved to another file."""

    @abstractmethod
    def close(self) -> None:
        """Wake the waiters and close the descriptor. Only their own thread may call this while tasks wait."""

    @abstractmethod
    def abandon(self) -> None:
        """Close the descriptor in the child of a fork, where the waiters are the parent's."""


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
        device: an open file that only this watch uses, and closes, because the open file records what was last
            read(). None if the page has no NOTIFICATION_PRESENT.
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
            # In a thread, because the driver waits up to 100 ms for an update to end.
            page: bytes | None = await anyio.to_thread.run_sync(os.pread, fd, _PAGE_BYTES, 0)
        except OSError:  # ETIMEDOUT: still in an update. Or it was closed meanwhile, which the caller finds
            page = self._last
        finally:
            self._wake_all()  # also when cancelled: by then the thread may have drained what they wait for
        self._in_vain = self._in_vain + 1 if page == self._last else 0
        self._last = page
        if self._in_vain >= _IN_VAIN:
            self.polling_because = "the device is ready without a change (POLLHUP)"

    def wake_from_anywhere(self) -> None:
        pass  # no other thread can make a device ready: its waiters look after their time-out

    def close(self) -> None:
        if self._device is not None and not self._device.closed:
            if self._in_front:
                anyio.notify_closing(self._device)
            self._device.close()
        self._wake_all()

    def abandon(self) -> None:
        if self._device is not None:
            self._device.close()


@final
class Followed:
    """A mapped page, and the watch that wakes the tasks of one event loop when it changes."""

    __slots__ = ("mapped", "watch")

    def __init__(self, mapped: Mapped) -> None:
        self.mapped: Final = mapped
        self.watch: Final[Watch] = (
            DeviceWatch(_own_device(mapped)) if mapped.is_device else InodeWatch(mapped.page.fileno())
        )


def _own_device(mapped: Mapped) -> FileIO | None:
    """The device opened a second time, if it notifies, because the open file records what was last read()."""
    if not mapped.notifies:
        return None
    fd = mapped.page.fileno()
    try:
        return FileIO(os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
    except OSError:  # no longer permitted: then the event loops share one open device, and one of them polls
        return FileIO(os.dup(fd))
