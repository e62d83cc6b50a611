"""Waking readers when the file under a segment changes.

A store through a mapping raises no inotify event and a regular file cannot be polled, so the writer calls
futimens() after each commit, and readers watch the inode for IN_ATTRIB. Unlinking or replacing the file changes
the inode's link count, which is an IN_ATTRIB too.

Invariants:
    * One descriptor a reader, however many tasks wait: two tasks may not wait on one descriptor, and a user has
      128 inotify instances. The first waiter waits on the descriptor; when it leaves, for whatever reason, it
      wakes the others, and one of them takes its place.
    * Queued events are drained before the caller looks at the page, so a commit after the look wakes.
    * Every wait ends after its time-out at the latest: losing the watch costs latency, never a change.
"""

import contextlib
import os
import threading
from typing import TYPE_CHECKING, Final, final

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from inotify_simple import INotify

_EVENTS_BYTES: Final = 65536
"""All events that can be queued for one watch: equal ones that follow each other are merged (inotify(7))."""


@final
class InodeWatch:
    """Waits for changes of one open file at a time."""

    def __init__(self) -> None:
        self._inotify: INotify | None = None
        self._descriptor: int | None = None
        self._watched: tuple[int, int] | None = None
        self._changed: anyio.Event | None = None
        self._following = threading.Lock()
        self._closed = False
        self.polling_because: str | None = None
        """Why there is no watch; None while there is one, or before the first wait."""

    @property
    def active(self) -> bool:
        """Whether inotify wakes the waiters."""
        return self._descriptor is not None

    async def follow(self, fd: int, identity: tuple[int, int]) -> None:
        """Watch the file open at *fd*, whose (st_dev, st_ino) is *identity*, in place of the one before."""
        if self._watched != identity:
            # In a thread: loading libc by name, as the inotify library does, may run a subprocess.
            await anyio.to_thread.run_sync(self._follow, fd, identity)

    def _follow(self, fd: int, identity: tuple[int, int]) -> None:
        import inotify_simple  # not at import: only who waits pays for ctypes

        mask = inotify_simple.flags.ATTRIB | inotify_simple.flags.DELETE_SELF | inotify_simple.flags.MOVE_SELF
        with self._following:
            if self._closed or self._watched == identity:
                return
            self._watched = identity
            try:
                if self._inotify is None:
                    self._inotify = inotify_simple.INotify(nonblocking=True)
                elif self._descriptor is not None:
                    with contextlib.suppress(OSError):  # the kernel drops a watch along with its inode
                        self._inotify.rm_watch(self._descriptor)
                    self._descriptor = None
                # By descriptor, not by path: the path may lead to another file by now.
                self._descriptor = self._inotify.add_watch(f"/proc/self/fd/{fd}", mask)
                self.polling_because = None
            except OSError as exc:
                self.polling_because = f"no inotify watch: {exc.strerror}"
        if self._closed:  # while this was under way
            self._release()

    async def wait(self, timeout: float) -> None:
        """Return at the next change, or after *timeout* seconds, or now and then for no reason."""
        with anyio.move_on_after(timeout):
            if self._changed is not None:
                await self._changed.wait()
            elif self._inotify is None or self._descriptor is None:
                await anyio.sleep(timeout)
            else:
                await self._wait_in_front(self._inotify)

    async def _wait_in_front(self, inotify: "INotify") -> None:
        self._changed = changed = anyio.Event()
        try:
            await anyio.wait_readable(inotify)
            os.read(inotify.fileno(), _EVENTS_BYTES)
        except BlockingIOError:
            pass  # nothing there after all
        finally:
            self._changed = None
            changed.set()

    def close(self) -> None:
        """Wake the waiters, who find the reader closed, and give the descriptor back.

        Raises:
            RuntimeError: tasks are waiting, and this is not the thread of their event loop. Nothing was closed.
        """
        if self._changed is not None and self._inotify is not None:
            anyio.notify_closing(self._inotify)
        self._closed = True
        if not self._following.locked():  # else a thread is at work on it, and releases it after
            self._release()

    def _release(self) -> None:
        inotify, self._inotify, self._descriptor = self._inotify, None, None
        if inotify is not None:
            inotify.close()
