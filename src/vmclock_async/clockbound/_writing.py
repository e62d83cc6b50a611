"""The writer of a ClockBound segment.

Its clients keep the file that they opened. So a file that is there is written on in place, and none is ever removed. If
it has another layout, or is no segment, it begins afresh under the generation that it has. A file that is made is whole
before it has its name.

There is one writer: this one holds a lock beside the file, as a writer of our own segments does. ClockBound's daemon
knows no such lock; it is noticed by its commits, or by the file that it puts in this one's place.
"""

import os
from contextlib import ExitStack, suppress
from typing import Final, Self, final

from vmclock_async import _core
from vmclock_async._paths import absolute
from vmclock_async._segment import lock
from vmclock_async._segment.belonging import OfThisProcess
from vmclock_async._segment.directory import Directory
from vmclock_async._segment.remedies import os_error
from vmclock_async.clockbound._layout import ErrorBound, ErrorBoundStatus, Layout, generation_of, pack, unpack
from vmclock_async.errors import SegmentError, SegmentInUseError

__all__ = ("UNKNOWN_BOUND", "ErrorBoundWriter")

_MODE: Final = 0o644
_REMEDY: Final = "choose another directory"
_FIRST_GENERATION: Final = 2
UNKNOWN_BOUND: Final = ErrorBound(
    as_of_ns=0,
    void_after_ns=0,
    bound_ns=10**18,  # 31 years, for a client that does not look at the status
    max_drift_ppb=0,
    status=ErrorBoundStatus.UNKNOWN,
)


@final
class ErrorBoundWriter(OfThisProcess):
    """The one writer of the ClockBound segment at `path`, from opening to ``close``; a context manager.

    What is at the path decides how the writer begins. Nothing, or a file too short for anybody to use: it creates the
    file, parents too, and says UNKNOWN there. A segment of *layout*: it goes on from there, and clients see no gap.
    Anything else in a regular file: it says UNKNOWN there.

    Args:
        path: where the segment is or will be; not a symbolic link.
        layout: its layout.

    Raises:
        SegmentInUseError: another writer holds it. Nothing was touched.
        SegmentError: the path is a symbolic link, a directory, a FIFO, a socket or a device, or may not be written; a
            stranger owns the file or its lock, or may write it.
    """

    _instead = "a segment has one writer: send the bounds to the process that has it"

    def __init__(self, path: str | os.PathLike[str], *, layout: Layout = Layout.V2) -> None:
        self.path: Final = absolute(path)
        self._layout: Final = layout
        self._name: Final = os.path.basename(self.path)
        with Directory(self.path) as directory, ExitStack() as undo:
            directory.look(self._name, "", remedy=_REMEDY)
            lock_fd = lock.acquire(self.path, directory)
            undo.callback(_core.close_private, lock_fd)
            undo.callback(lock.remove, self.path, directory, lock_fd)
            try:
                fd = self._opened(directory)
                undo.callback(_core.close_private, fd)
                status = os.fstat(fd)
                self._identity: Final = (status.st_dev, status.st_ino)
                page = os.pread(fd, layout.size, 0)
                self._page: Final = _core.Page(fd, writable=True, lock_fd=lock_fd)
            except OSError as exc:
                raise os_error(self.path, "open it for writing", exc) from exc
            undo.pop_all()  # from here on the page closes them
        self._generation = generation_of(page)
        if self._generation % 2 or not self._is_usable(page):
            self._commit(pack(layout, UNKNOWN_BOUND))

    def _opened(self, directory: Directory) -> int:
        """A descriptor of the file, which is long enough for the layout."""
        try:
            there = os.stat(self.path, follow_symlinks=False).st_size
        except FileNotFoundError:
            there = 0
        if there < self._layout.size:
            new = f".{self._name}.new"
            fd, _ = directory.open(new, f"the file {new} beside it ", mode=_MODE, remedy="remove it")
            try:
                os.ftruncate(fd, 0)  # what a writer that died here has left
                os.pwrite(fd, pack(self._layout, UNKNOWN_BOUND, generation=_FIRST_GENERATION), 0)
                directory.rename(new, self._name)
            except BaseException:
                directory.remove(new, fd)
                raise
            finally:
                _core.close_private(fd)
        fd, _ = directory.open(self._name, "", mode=_MODE, remedy=_REMEDY)
        os.posix_fallocate(fd, 0, self._layout.size)  # a store into a hole of a full tmpfs raises SIGBUS
        return fd

    def _is_usable(self, page: bytes) -> bool:
        try:
            unpack(self.path, self._layout, page)
        except SegmentError:
            return False
        return True

    def write(self, bound: ErrorBound) -> int:
        """Commit *bound*; return the even generation. It makes one system call, and wakes nobody: clients never wait.

        Raises:
            SegmentInUseError: another program has committed too, or has put another file at the path.
            SegmentError: the writer is closed.
            ValueError: a field of *bound* is out of its range.
        """
        contents = pack(self._layout, bound)
        try:
            self._require_alone()
            return self._commit(contents)
        except ValueError as exc:
            raise SegmentError(
                self.path, "the writer is closed; the child of a fork has to open one of its own"
            ) from exc

    def withdraw(self) -> None:
        """Say UNKNOWN to the clients that have this file open, though it may have been removed or replaced meanwhile.

        Nothing is written if another program has committed to it too, or the writer is closed.
        """
        with suppress(ValueError):
            if self._page.control_word >> 48 == self._generation:
                self._commit(pack(self._layout, UNKNOWN_BOUND))

    def _commit(self, contents: bytes) -> int:
        self._generation = _core.clockbound_commit(self._page, contents)
        return self._generation

    def _require_alone(self) -> None:
        found = self._page.control_word >> 48
        if found != self._generation:
            self._raise_in_use(f"its generation went from {self._generation} to {found}")
        try:
            status = os.stat(self.path, follow_symlinks=False)
        except FileNotFoundError:
            raise SegmentError(
                self.path, "the file was removed, and its clients keep the one they have; start again"
            ) from None
        except OSError as exc:
            raise os_error(self.path, "look at it", exc) from exc
        if (status.st_dev, status.st_ino) != self._identity:
            self._raise_in_use("another file is in its place")

    def _raise_in_use(self, seen: str) -> None:
        raise SegmentInUseError(
            self.path,
            f"another program writes it too: {seen}; is ClockBound's daemon running? Stop it, or choose another "
            "directory",
        )

    def close(self) -> None:
        """Unmap, and release the lock. The file stays, and says what was written last."""
        lock.release(self.path, self._page)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
