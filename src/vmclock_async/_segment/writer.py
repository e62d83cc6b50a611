"""The writer's side of a segment. Invariants: segment.py."""

import os
from contextlib import ExitStack
from typing import Final, Self, final

from vmclock_async import _core, abi
from vmclock_async._paths import absolute
from vmclock_async._segment import file, lock
from vmclock_async._segment.account import Account, record_account
from vmclock_async._segment.belonging import OfThisProcess
from vmclock_async._segment.boot import forget_boot, record_boot
from vmclock_async._segment.directory import Directory
from vmclock_async._segment.remedies import os_error
from vmclock_async._segment.time_source import TimeSource, record_time_source
from vmclock_async.errors import SegmentError
from vmclock_async.models import Contents, VMClockBody

__all__ = ("SegmentWriter",)

_GENERATION_PRESENT: Final = abi.Flags.VM_GEN_COUNTER_PRESENT.value


@final
class SegmentWriter(OfThisProcess):
    """The one writer of the segment at `path`, from opening to ``close``; a context manager.

    What is at the path decides how the writer begins. Nothing: it creates the file, parents too. A usable segment of
    this boot: it goes on from there, and readers see no gap. Anything else in a regular file (another version,
    an earlier boot, a smaller size, garbage): it starts cold in place, and seq_count goes on upward.

    Args:
        path: where the segment is or will be; not a symbolic link.
        size: bytes in a new segment: 104 as in ClockBound's, 112 with room for vm_generation_counter. A larger
            segment that is there keeps its size.

    Raises:
        SegmentInUseError: another writer holds it. Nothing was touched.
        SegmentError: the path is a symbolic link, a directory, a FIFO, a socket or a device, or may not be
            written; the file or its lock belongs to a user other than root and this one, or others may write it;
            a directory on the way is another user's symbolic link. Nothing was touched.
        ValueError: *size* is not a multiple of 8 from 104 to 4096.
    """

    _instead = "a segment has one writer: send the bodies to the process that has it"

    def __init__(self, path: str | os.PathLike[str], *, size: int = abi.SEGMENT_SIZE) -> None:
        if size % 8 or not abi.SEGMENT_SIZE <= size <= abi.MAX_SIZE:
            raise ValueError(f"size must be a multiple of 8 from {abi.SEGMENT_SIZE} to {abi.MAX_SIZE}, not {size}")
        self.path: Final = absolute(path)
        name, remedy = os.path.basename(self.path) or ".", "choose another path"
        with Directory(self.path) as directory, ExitStack() as undo:
            directory.look(name, "", remedy=remedy)
            lock_fd = lock.acquire(self.path, directory)
            undo.callback(_core.close_private, lock_fd)
            undo.callback(lock.remove, self.path, directory, lock_fd)
            fd, created = directory.open(name, "", mode=0o644, remedy=remedy)
            undo.callback(_core.close_private, fd)
            if created:
                undo.callback(directory.remove, name, fd)
            try:
                page, marker = file.prepare(self.path, fd, size)
                self._page: Final = _core.Page(fd, writable=True, lock_fd=lock_fd)
                undo.pop_all()  # from here on the page closes them
                undo.callback(self.close)
                if created:
                    undo.callback(directory.remove, name, fd)
                if page is None:
                    self._page.reset(size)
                    page = os.pread(fd, abi.MAX_SIZE, 0)
                self.cold: Final = abi.unpack_header(page).version == 0
                """Whether nobody can have read a body of it, so this writer's first body will be its first."""
                record_time_source(fd, None)
                record_account(fd, None)
                if self.cold:
                    forget_boot(fd)  # now: a process that drops its privileges may not do it later
                    os.fsync(fd)
            except OSError as exc:
                raise os_error(self.path, "open it for writing", exc) from exc
            undo.pop_all()
        self._boot_recorded = False
        self.time_source: TimeSource | None = None
        """Source of the time of the next bodies; None: unknown. It is kept with the file, see ``time_source.py``."""
        self._time_source_recorded: TimeSource | None = None
        self.last_marker: Final = marker
        """The marker that readers last saw in the file, before a cold start too; 0 if they could see none."""
        self.size: Final = abi.unpack_header(page).size
        """Bytes in the segment."""
        self.interrupted: Final = bool(self.seq_count & 1)
        """Whether the former writer died in mid-update: then seq_count is odd until the first ``write``."""
        self._body = VMClockBody.unpack(page[abi.BODY_OFFSET : self.size])

    @property
    def body(self) -> VMClockBody:
        """The body last committed, by this writer or the former one; the zero body after a cold start."""
        return self._body

    @property
    def contents(self) -> Contents:
        """The body last committed, with the segment's counter_id and time_type."""
        try:
            word = self._page.control_word
        except ValueError as exc:
            raise self._closed_error() from exc
        return Contents(self._body, word >> 16 & 0xFF, word >> 24 & 0xFF)

    @property
    def seq_count(self) -> int:
        """The segment's seq_count; even, except in an ``interrupted`` segment before the first ``write``."""
        try:
            return self._page.control_word >> 32
        except ValueError as exc:
            raise self._closed_error() from exc

    def write(self, body: VMClockBody, *, counter_id: int | None = None, time_type: int | None = None) -> int:
        """Commit *body*, wake waiting readers, and return the even seq_count.

        From the second call on, until ``close``, a thread of the core wakes them. It runs no Python and is in no list
        of Python's threads. Readers may be woken, and the file's mtime set, a moment after this has returned.

        Args:
            body: written verbatim.
            counter_id: 0 to 255; None keeps what the segment has (a new one has 0).
            time_type: 0 to 255; None keeps what the segment has (a new one has 0).

        Raises:
            SegmentError: the writer is closed, or *body* has a vm_generation_counter and the segment no room
                for it.
            ValueError: *counter_id* or *time_type* is out of range; or the flags of *body* announce a
                vm_generation_counter that it lacks, so that readers would find a zero there.
        """
        packed = body.pack()
        if self.size >= abi.SEGMENT_SIZE_WITH_GENERATION:
            if body.vm_generation_counter is None and int(body.flags) & _GENERATION_PRESENT:
                raise ValueError("flags: VM_GEN_COUNTER_PRESENT is set, but vm_generation_counter is None")
            packed = packed.ljust(abi.BODY_SIZE_WITH_GENERATION, b"\0")
        elif len(packed) > abi.BODY_SIZE:
            raise SegmentError(
                self.path,
                f"its {self.size} bytes have no room for vm_generation_counter; open the writer with "
                f"size={abi.SEGMENT_SIZE_WITH_GENERATION}",
            )
        try:
            if not self._boot_recorded:
                # Before the commit, because what is there by then belongs to this boot too. Opening changes nothing.
                record_boot(self._page.fileno())
                self._boot_recorded = True
            if self.time_source is not self._time_source_recorded:
                record_time_source(self._page.fileno(), None)
            seq_count = self._page.commit(packed, counter_id, time_type)
            if self.time_source is not self._time_source_recorded:
                self._time_source_recorded = self.time_source
                record_time_source(self._page.fileno(), self.time_source)
            self._body = body
            self._page.wake()  # wakes waiting readers, and sets mtime to the time of the commit
        except ValueError as exc:
            if self._page.closed:
                raise self._closed_error() from exc
            raise
        except OSError as exc:
            raise SegmentError(
                self.path, f"committed {seq_count}, but cannot wake readers ({exc.strerror})"
            ) from exc
        return seq_count

    def explain(self, account: Account) -> None:
        """Keep *account*, of the body last committed, with the file; see ``account.py``."""
        record_account(self._page.fileno(), account)

    def _closed_error(self) -> SegmentError:
        return SegmentError(self.path, "the writer is closed; the child of a fork has to open one of its own")

    def close(self) -> None:
        """Unmap, and release the lock. The file stays: readers keep the last body, and the next writer starts warm."""
        lock.release(self.path, self._page)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
