"""The lock that makes a writer the only one: an flock on ``<segment>.lock``.

The lock is not on the segment itself, because anyone who may read that could take the lock and shut the publisher out.
The lock ends when the last copy of its descriptor is closed, so a killed writer leaves none behind. It is never
unlocked by hand, because LOCK_UN in a forked child would release the parent's lock.

A writer that closes in good order removes the file while it still holds the lock. A process that opened the file just
before finds, once it has the lock, that the path leads elsewhere, and starts over.
"""

import contextlib
import fcntl
import os

from vmclock_async import _core
from vmclock_async._segment.directory import Directory
from vmclock_async._segment.remedies import os_error
from vmclock_async.errors import SegmentError, SegmentInUseError

_MODE = 0o600
"""Nobody else may read the lock's file, because whoever can read it can take the lock."""


def acquire(segment: str, directory: Directory) -> int:
    """Take the lock of *segment*, which lies in *directory*, or raise at once; return the descriptor that holds it.

    Raises:
        SegmentInUseError: another writer holds the lock.
        SegmentError: the lock's file is a stranger's, or no regular file, or cannot be opened or locked.
    """
    path = f"{segment}.lock"
    name = os.path.basename(path)
    while True:
        fd, created = directory.open(
            name, f"its lock {path} ", mode=_MODE, remedy="remove it, or choose another path"
        )
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if directory.leads_to(name, fd):
                with contextlib.suppress(
                    OSError
                ):  # no room, or root's file: only messages and later calls need it
                    os.fchmod(fd, _MODE)
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                return fd
        except BlockingIOError as exc:
            error = _in_use(segment, fd)
            _core.close_private(fd)
            raise error from exc
        except BaseException as exc:
            if created:
                directory.remove(name, fd)
            _core.close_private(fd)
            if isinstance(exc, OSError):
                raise os_error(segment, f"lock {path}", exc) from exc
            raise
        _core.close_private(fd)


def _in_use(segment: str, fd: int) -> SegmentInUseError:
    holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
    who = f"process {holder}" if holder.isdigit() else "another process"
    return SegmentInUseError(segment, f"{who} is writing to it; stop that one, or choose another segment")


def release(segment: str, page: _core.Page) -> None:
    """End the writing of *segment* by *page*: close it, and with it the descriptor of the lock that it holds.

    Nothing happens if another call closes it, or in a fork's child, where the lock is the parent's.
    """
    fd = page.retire()  # the last commit ends before the next writer may begin
    if fd is None:
        return
    try:
        with contextlib.suppress(SegmentError), Directory(segment, create=False) as directory:
            remove(segment, directory, fd)
    finally:
        page.close()


def remove(segment: str, directory: Directory, fd: int) -> None:
    """Remove the lock's file, if it is the one open at *fd*. Only the holder may call this, and closes *fd* next.

    A file that stays, because the directory may not be written, does no harm: only an flock on it counts.
    """
    directory.remove(f"{os.path.basename(segment)}.lock", fd)
