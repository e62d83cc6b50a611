"""The readers' side of a segment: looking, and waiting for a change. Invariants: segment.py."""

import logging
import math
import os
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final, Self, TypeVar, final

import anyio
import anyio.lowlevel
import anyio.to_thread

from vmclock_async import _core, abi
from vmclock_async._paths import absolute
from vmclock_async._segment.belonging import OfThisProcess, this_process
from vmclock_async._segment.boot import of_this_boot
from vmclock_async._segment.descriptor import event_loop
from vmclock_async._segment.page import CHECKED_BYTES, Mapped, check_page, map_page
from vmclock_async._segment.remedies import unstable_error
from vmclock_async._segment.watch import Followed
from vmclock_async.errors import SegmentError, SegmentNotInitializedError
from vmclock_async.models import Snapshot

__all__ = ("TIMER_S", "UNSTABLE_S", "SegmentReader", "SegmentReaderStatistics")

_log: Final = logging.getLogger("vmclock_async.segment")

UNSTABLE_S: Final = 0.1
"""Longest time, in seconds, that a reader waits for a commit to end. The Linux driver has the same limit."""
_RETRY_S: Final = 0.0002
_POLL_WHILE_REPLACED_S: Final = 0.05
"""Poll interval of wait_changed() while the path leads to no segment, or to one that has just begun."""
TIMER_S: Final = 0.001
"""Resolution of the timers of event loops, in seconds: uvloop's count whole milliseconds."""
_Read = TypeVar("_Read")
_unpack: Final = Snapshot.unpack
"""Looked up once, because finding an attribute of a pydantic class goes through its metaclass, Python's slowest way."""


@final
@dataclass(frozen=True, slots=True)
class SegmentReaderStatistics:
    """How a reader has waited."""

    __module__ = "vmclock_async.segment"

    waits: int
    """Number of times that ``wait_changed`` went to sleep."""
    reopened: int
    """Number of times that the path led to another file, which was opened instead."""
    watching: bool
    """Whether inotify, or the device itself, wakes the waiters of every event loop; if not, they poll."""
    polling_because: str | None
    """Why nothing wakes the waiters; None if something does, or nobody has waited."""


def _unfollow(reader: "SegmentReader | None", key: "weakref.ref[object]") -> None:
    """Call ``_unfollow`` of *reader*; an event loop has gone."""
    if reader is not None:
        reader._unfollow(key)


@final
class SegmentReader(OfThisProcess):
    """A reader of the segment, captured page or device at `path`; a context manager.

    Args:
        path: path of any of these.
        trust_writable: whether to read a file that users other than its owner and root may write. They can change its
            content, and cut it, which kills its readers by SIGBUS. For a device this is not checked.

    Raises:
        SegmentNotInitializedError: nothing is there, the file is empty, or its version is 0.
        SegmentMalformedError: not a VMClock page: too short, wrong magic, a size below 104 or past the file's
            end, a directory, a FIFO, a socket.
        SegmentVersionNotSupportedError: a version other than 0 and 1.
        SegmentError: it may not be read, or others may write it and are not trusted.
    """

    _instead = "send its path, and open a reader of it there"

    def __init__(self, path: str | os.PathLike[str], *, trust_writable: bool = True) -> None:
        self.path: Final = absolute(path)
        self._map: Final = partial(map_page, self.path, trust_writable=trust_writable)
        self._waits = 0
        self._closed = False
        self._unpacked: tuple[bytes, Snapshot] | None = None
        self._mapped = self._map()
        self._process = this_process()
        self._followed: Final[dict[weakref.ref[object], Followed]] = {}
        """The page and watch of each event loop."""
        self._calls: Final[dict[int, int]] = {}
        """Number of calls of wait_changed() in progress, by thread."""
        self._says_polling = True

    def snapshot(self) -> Snapshot:
        """One whole copy of the page as it is now; waits at most 100 ms for a commit to end.

        Raises:
            SegmentUnstableError: for 100 ms seq_count stayed odd (a writer stopped or died) or kept moving.
            SegmentNotInitializedError: a writer has started over and committed nothing yet.
            SegmentMalformedError: the page was overwritten with something else.
            SegmentVersionNotSupportedError: the version has changed.
            SegmentError: the reader is closed.
        """
        return self._within(UNSTABLE_S, self._attempt)

    def sample(self) -> tuple[Snapshot, int]:
        """A snapshot, and this machine's raw counter read within the same read of the page.

        Raises:
            SegmentError: as for ``snapshot``.
            CounterNotSupportedError: this thread may not read the counter.
        """
        return self._sample_within(UNSTABLE_S)

    def _sample_within(self, limit_s: float) -> tuple[Snapshot, int]:
        """The same, waiting at most *limit_s* seconds for a commit to end; other threads may run meanwhile.

        With 0 it makes one attempt of the core (``READ_LIMIT_NS``): for async code, which waits by itself.

        Raises:
            SegmentError: as for ``sample``.
        """
        return self._within(limit_s, self._attempt_with_counter)

    def _within(self, limit_s: float, attempt: Callable[[], _Read | None]) -> _Read:
        """Try *attempt* for at most *limit_s* seconds; return what it reads."""
        first = self.seq_count
        deadline: float | None = None
        while (read := attempt()) is None:
            now = time.monotonic()  # read only when needed
            deadline = now + limit_s if deadline is None else deadline
            if limit_s == 0 or now > deadline:
                raise unstable_error(self.path, first, self.seq_count, limit_s)
            time.sleep(min(_RETRY_S, limit_s / 10))
        return read

    @property
    def seq_count(self) -> int:
        """The page's seq_count at this moment, 0 to 2**32 - 1; odd inside a commit."""
        try:
            return self._mapped.page.control_word >> 32
        except ValueError as exc:
            raise self._closed_error() from exc

    @property
    def disruption_marker(self) -> int:
        """The page's marker at this moment, in one load; it may belong to a commit that is still in progress."""
        try:
            return self._mapped.page.disruption_marker
        except ValueError as exc:
            raise self._closed_error() from exc

    @property
    def of_this_boot(self) -> bool:
        """Whether the file was written since this machine booted; the counter of an earlier boot means nothing."""
        try:
            return of_this_boot(self._mapped.page.fileno())
        except (OSError, ValueError) as exc:
            raise self._closed_error() from exc

    async def wait_changed(self, seq_count: int | Snapshot, *, poll_interval: float = 0.05) -> Snapshot:
        """Wait for a commit other than *seq_count*. Cancelling loses nothing: the body stays put.

        A path that was unlinked or replaced is opened again as soon as there is a segment, and its snapshot is returned
        whatever its number. A commit that a dead writer left half done is waited out until another writer repairs it.
        Any number of tasks may wait, in several event loops and threads: each loop has its own watch, and so has the
        child of a fork.

        Args:
            seq_count: the number last seen, or the snapshot. With a snapshot the whole page is compared, because
                another program's writer may begin again at the same number in the same file. A snapshot also says
                which file the number belongs to: of several waiting tasks, one may open a new file while another
                is busy.
            poll_interval: seconds between looks when nothing wakes the reader. Our writers wake it (inotify), and
                so does a device with NOTIFICATION_PRESENT; ClockBound's writer does not. While there is no segment
                at the path, the reader looks at least every 50 ms.

        Raises:
            SegmentMalformedError, SegmentVersionNotSupportedError, SegmentError: as for ``snapshot``.
            ValueError: *poll_interval* is not positive.
        """
        if not poll_interval > 0:
            raise ValueError(f"poll_interval must be positive, not {poll_interval}")
        while (snapshot := await self._wait_changed_until(math.inf, seq_count, poll_interval)) is None:
            continue
        return snapshot

    async def _wait_changed_until(
        self, end: float, seq_count: int | Snapshot, poll_interval: float = 0.05
    ) -> Snapshot | None:
        """The same, or None at *end*, a time of ``anyio.current_time``, to ``TIMER_S``.

        Not ``move_on_after``, because leaving its scope takes a tenth of the time from a commit to its event.
        """
        await anyio.lowlevel.checkpoint()
        whole: Snapshot | None = None
        if isinstance(seq_count, Snapshot):
            whole, seen = seq_count, (seq_count.opened, seq_count.seq_count)
        else:
            seen = self._mapped.opened, seq_count
        loop = event_loop()
        if self._process is not this_process():
            self._leave_to_parent()
        least_s = 0.0
        thread = threading.get_ident()
        self._calls[thread] = self._calls.get(thread, 0) + 1
        try:
            while True:
                snapshot, timeout = self._changed_from(seen, whole), poll_interval
                if snapshot is not None:
                    return snapshot
                followed = self._followed.get(weakref.ref(loop))
                if followed is None or followed.mapped is not self._mapped:
                    followed = self._follow(loop)
                    # A commit before the watch was set has woken nobody.
                    snapshot = self._changed_from(seen, whole)
                if snapshot is None and self.is_replaced():
                    # A segment that begins there wakes nobody: the watch is on the former file.
                    timeout = min(poll_interval, _POLL_WHILE_REPLACED_S)
                    await self._reopen()
                    # No await between opening another file and returning its content: a cancellation would lose it.
                    snapshot = self._changed_from(seen, whole)
                if snapshot is not None:
                    return snapshot
                if (left := end - anyio.current_time()) <= least_s:
                    return None
                self._waits += 1
                await followed.watch.wait(min(timeout, left))
                least_s = TIMER_S  # a timer that fires too early by less is not set again
        except SegmentError:
            # Who cancels a task and then closes its reader, in one turn, has cancelled it.
            await anyio.lowlevel.checkpoint_if_cancelled()
            raise
        finally:
            self._calls[thread] -= 1

    def statistics(self) -> SegmentReaderStatistics:
        """How this reader has waited so far."""
        self._leave_to_parent()
        reasons = [followed.watch.polling_because for followed in list(self._followed.values())]
        return SegmentReaderStatistics(
            waits=self._waits,
            reopened=self._mapped.opened,
            watching=bool(reasons) and not any(reasons),
            polling_because=next(filter(None, reasons), None),
        )

    def _follow(self, loop: object) -> Followed:
        """Begin to watch the mapped page for the tasks of *loop*, which is the caller's."""
        try:
            followed = Followed(self._mapped)
        except ValueError as exc:
            raise self._closed_error() from exc
        reader = weakref.ref(self)
        key = weakref.ref(loop, lambda key: _unfollow(reader(), key))
        self._unfollow(key)
        self._followed[key] = followed
        reason = followed.watch.polling_because
        if reason is not None and self._says_polling:
            self._says_polling = False
            level = logging.INFO if followed.mapped.is_device else logging.WARNING
            _log.log(level, "%s: a waiting reader looks for changes at intervals (%s)", self.path, reason)
        return followed

    def _unfollow(self, key: "weakref.ref[object]") -> None:
        """End the watch of an event loop; its waiting tasks look at the page again.

        The loop is the caller's, or none of its tasks waits.
        """
        self._leave_to_parent()
        followed = self._followed.pop(key, None)
        if followed is not None:
            is_closed = getattr(key(), "is_closed", None)  # asyncio's: a task that waits there never resumes
            if is_closed is not None and is_closed():
                followed.watch.abandon()
            else:
                followed.watch.close()

    def _leave_to_parent(self) -> None:
        """In the child of a fork: leave alone what the parent waits for, and start without watches."""
        if self._process is not this_process():
            self._process = this_process()
            self._calls.clear()
            while self._followed:
                self._followed.popitem()[1].watch.abandon()

    def _attempt(self) -> Snapshot | None:
        """Make one bounded attempt at a whole copy. It needs no counter, which may be forbidden."""
        mapped = self._mapped
        try:
            copy = mapped.page.read()
        except ValueError as exc:
            raise self._closed_error() from exc
        return None if copy is None else self._unpack(copy, mapped)

    def _attempt_with_counter(self) -> tuple[Snapshot, int] | None:
        """The same, with the counter."""
        mapped = self._mapped
        try:
            sample = mapped.page.read_with_counter()
        except ValueError as exc:
            raise self._closed_error() from exc
        return None if sample is None else (self._unpack(sample[0], mapped), sample[1])

    def _unpack(self, copy: bytes, mapped: Mapped) -> Snapshot:
        """The snapshot in *copy*, which is checked again, because the writer of the page may change anything in it."""
        if copy[:CHECKED_BYTES] != mapped.checked:
            check_page(self.path, copy, abi.MAX_SIZE)
        unpacked = self._unpacked
        if unpacked is None or unpacked[0] != copy or unpacked[1].opened != mapped.opened:
            # Kept, because all waiters that one commit wakes want the same snapshot, as do later looks.
            snapshot = _unpack(copy, inode=mapped.identity[1], opened=mapped.opened)
            self._unpacked = unpacked = copy, snapshot
        return unpacked[1]

    def _changed_from(self, seen: tuple[int, int], whole: Snapshot | None) -> Snapshot | None:
        """The page, if it can be read and is not *seen* (`opened` and `seq_count`) nor the *whole* snapshot."""
        try:
            snapshot = self._attempt()
        except SegmentNotInitializedError:
            return None  # a cold start in place: the first commit is still to come
        if snapshot is None:
            return None
        if (snapshot.opened, snapshot.seq_count) != seen:
            return snapshot
        # Another program's cold start keeps the inode, and may begin with the number that was there.
        return None if whole is None or snapshot is whole or snapshot == whole else snapshot

    @property
    def _page(self) -> _core.Page:
        """The page that is mapped at this moment; the reader owns it."""
        return self._mapped.page

    @property
    def is_device(self) -> bool:
        """Whether the path led to a character device, such as the kernel's, and not to a file."""
        return self._mapped.is_device

    def is_replaced(self) -> bool:
        """Whether the path no longer leads to the mapped file."""
        try:
            status = os.stat(self.path)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != self._mapped.identity

    def is_deleted(self) -> bool:
        """Whether the mapped file has no name any more, so that no writer opens it again; never so for a device.

        A name that this process cannot see counts: outside a closed bind mount, or in a directory it may not search.
        """
        mapped = self._mapped
        try:
            return not mapped.is_device and os.fstat(mapped.page.fileno()).st_nlink == 0
        except (OSError, ValueError) as exc:
            raise self._closed_error() from exc

    async def _reopen(self) -> None:
        """Map what is at the path now, if it is a segment already."""
        with suppress(SegmentNotInitializedError):
            self._go_over_to(await anyio.to_thread.run_sync(self._map))

    def _reopen_if_replaced(self) -> bool:
        """Map what is at the path now, if it is another file and a segment; whether it is. Waits for the disk."""
        if self._closed or not self.is_replaced():
            return False
        try:
            self._go_over_to(self._map())
        except SegmentError:
            return False
        return True

    def _go_over_to(self, mapped: Mapped) -> None:
        self._leave_to_parent()
        before = self._mapped
        if mapped.identity != before.identity:
            # Of the threads that come here at once, one is first, and all take the page that it has mapped.
            after = before.successor.setdefault("is", mapped._replace(opened=before.opened + 1))
            if self._mapped is before:
                # The former page is not closed here, because another thread may be reading it. Its last user frees it.
                self._mapped = after
                before.page.leave()
                for followed in list(self._followed.values()):
                    followed.watch.wake_from_anywhere()
        if self._mapped.page is not mapped.page or self._closed:
            mapped.page.close()

    def _closed_error(self) -> SegmentError:
        return SegmentError(self.path, "the reader is closed")

    def close(self) -> None:
        """Unmap the page. Waiting tasks get a ``SegmentError``.

        Raises:
            RuntimeError: tasks are waiting in the event loop of another thread. Nothing was closed.
        """
        self._leave_to_parent()
        if any(calls and thread != threading.get_ident() for thread, calls in list(self._calls.items())):
            raise RuntimeError("tasks are waiting in another thread; close it there")
        self._closed = True
        self._mapped.page.close()
        for key in list(self._followed):
            self._unfollow(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
