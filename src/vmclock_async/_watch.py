"""Waking readers when the page behind their mapping changes.

Two ways, one for each kind of file:

* A store through a mapping raises no inotify event and a regular file cannot be polled. So the writer has
  futimens() called after each commit (_core_waker.c), and readers watch the inode for IN_ATTRIB. Unlinking or
  replacing the file changes the inode's link count, which is an IN_ATTRIB too.
* The kernel's device can be polled where its page has NOTIFICATION_PRESENT (Linux 7.0): readable while seq_count
  differs from the one that this open file last read(). Looking through the mapping does not arm it again; read()
  does. Where there is nothing to be notified of, the driver says POLLHUP at once and for ever (before 7.0: it
  cannot be polled at all), and whoever went on waiting would spin: so a descriptor that is ready time and again
  without a change is given up, and polled by time.

Invariants:
    * One descriptor a reader, however many tasks wait: two tasks may not wait on one descriptor, and a user has
      128 inotify instances. The first waiter waits on the descriptor. When that is ready, all others are woken; when
      the first leaves for another reason, one, which takes its place: else each time-out would wake everybody.
    * What is queued is drained before the caller looks at the page, so a commit after the look wakes.
    * Every wait ends after its time-out at the latest: losing the watch costs latency, never a change.
"""

import contextlib
import os
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, final

import anyio
import anyio.to_thread

from vmclock_async._readable import Readable

if TYPE_CHECKING:
    from _typeshed import HasFileno
    from inotify_simple import INotify

_PAGE_BYTES: Final = 4096
_IN_VAIN: Final = 3
"""How often in a row a device may be ready without a change before it is given up."""


class _Watch(ABC):
    """Waits for one descriptor, for any number of tasks."""

    def __init__(self) -> None:
        self._in_front = False
        self._thread = 0
        """Of the last that was in front: its event loop's."""
        self._others: Final[dict[anyio.Event, None]] = {}
        """Of the waiters that are not in front, in order of their coming."""
        self.polling_because: str | None = None
        """Why there is nothing to wait on; None while there is, or before the first wait."""

    @property
    @abstractmethod
    def active(self) -> bool:
        """Whether waiters are woken."""

    async def wait(self, timeout: float) -> None:
        """Return at the next change, or after *timeout* seconds, or now and then for no reason."""
        if self._in_front:
            with anyio.move_on_after(timeout):
                await self._wait_behind()
        elif not self.active:
            await anyio.sleep(timeout)
        else:
            self._in_front, self._thread = True, threading.get_ident()
            try:
                await self._wait_in_front(timeout)
            except anyio.ClosedResourceError:
                self._wake_all()
                raise
            finally:
                self._in_front = False
                if self._others:  # not woken: its time is over, or it was cancelled
                    self._wake_one()

    async def _wait_behind(self) -> None:
        woken = anyio.Event()
        self._others[woken] = None
        try:
            await woken.wait()
        except BaseException:
            if woken.is_set():  # and cannot take the place that it was woken for
                self._wake_one()
            raise
        finally:
            self._others.pop(woken, None)

    def _wake_all(self) -> None:
        while self._others:
            self._wake_one()

    def _wake_one(self) -> None:
        for woken in self._others:
            del self._others[woken]
            woken.set()
            return

    def _require_own_thread(self) -> None:
        if self._in_front and threading.get_ident() != self._thread:
            raise RuntimeError("tasks are waiting in another thread; close it there")

    @abstractmethod
    async def _wait_in_front(self, timeout: float) -> None:
        """Wait for the descriptor, for *timeout* seconds at most; drain it, and wake all others."""


@final
class InodeWatch(_Watch):
    """Waits for changes of one open regular file at a time."""

    def __init__(self) -> None:
        super().__init__()
        self._inotify: INotify | None = None
        self._queue: Readable | None = None
        """What inotify has to tell."""
        self._descriptor: int | None = None
        self.watched: int | None = None
        """The number (``Mapped.opened``) of the file that is watched, or cannot be."""
        self._following = threading.Lock()
        self._closed = False

    @property
    def active(self) -> bool:
        """Whether inotify wakes the waiters."""
        return self._descriptor is not None

    async def follow(self, fd: int, number: int) -> None:
        """Watch the file open at *fd*, the reader's *number*, in place of the one before."""
        # In a thread: loading libc by name, as the inotify library does, may run a subprocess.
        await anyio.to_thread.run_sync(self._follow, fd, number)

    def _follow(self, fd: int, number: int) -> None:
        import inotify_simple  # not at import: only who waits pays for ctypes

        mask = inotify_simple.flags.ATTRIB | inotify_simple.flags.DELETE_SELF | inotify_simple.flags.MOVE_SELF
        with self._following:
            if self._closed or self.watched == number:
                return
            try:
                if self._inotify is None:
                    self._inotify = inotify_simple.INotify(nonblocking=True)
                    self._queue = Readable(self._inotify, self._wake_all)
                elif self._descriptor is not None:
                    with contextlib.suppress(OSError):  # the kernel drops a watch along with its inode
                        self._inotify.rm_watch(self._descriptor)
                    self._descriptor = None
                # By descriptor, not by path: the path may lead to another file by now.
                self._descriptor = self._inotify.add_watch(f"/proc/self/fd/{fd}", mask)
                self.polling_because = None
            except OSError as exc:
                self.polling_because = f"no inotify watch: {exc.strerror}"
            self.watched = number  # not before: who comes meanwhile waits here
        if self._closed:  # while this was under way
            self._release()

    async def _wait_in_front(self, timeout: float) -> None:
        if self._queue is not None:
            await self._queue.wait(timeout)

    def close(self) -> None:
        """Wake the waiters, who find the reader closed, and give the descriptor back.

        Raises:
            RuntimeError: tasks are waiting, and this is not the thread of their event loop. Nothing was closed.
        """
        self._require_own_thread()
        if self._queue is not None:
            self._queue.stop()
        self._wake_all()
        self._closed = True
        if not self._following.locked():  # else a thread is at work on it, and releases it after
            self._release()

    def _release(self) -> None:
        queue, self._queue, self._inotify, self._descriptor = self._queue, None, None, None
        if queue is not None:
            queue.close()


@final
class DeviceWatch(_Watch):
    """Waits for changes of one open device.

    Args:
        device: what is open. Its descriptor is its own, no dup: what was last read() is noted on the open file.
        notifies: whether its page has NOTIFICATION_PRESENT.
    """

    def __init__(self, device: "HasFileno", *, notifies: bool) -> None:
        super().__init__()
        self._device: Final = device
        self._last: bytes | None = None
        self._in_vain = 0
        if not notifies:
            self.polling_because = "the device has no notifications (NOTIFICATION_PRESENT is clear)"

    @property
    def active(self) -> bool:
        """Whether the device wakes the waiters."""
        return self.polling_because is None

    async def _wait_in_front(self, timeout: float) -> None:
        with anyio.move_on_after(timeout):
            await self._wait_for_device()
            self._wake_all()

    async def _wait_for_device(self) -> None:
        try:
            fd = self._device.fileno()
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
        self._in_vain = self._in_vain + 1 if page == self._last else 0
        self._last = page
        if self._in_vain >= _IN_VAIN:
            self.polling_because = "the device is ready without a change (POLLHUP)"

    def close(self) -> None:
        """Wake the waiters, who find the reader closed.

        Raises:
            RuntimeError: tasks are waiting, and this is not the thread of their event loop.
        """
        self._require_own_thread()
        if self._in_front:
            with contextlib.suppress(ValueError):  # closed already
                anyio.notify_closing(self._device.fileno())
        self._wake_all()
