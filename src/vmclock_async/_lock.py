"""The lock that makes a writer the only one: an flock on ``<segment>.lock``.

Not on the segment itself: anyone who may read that could take the lock and shut the publisher out. The lock
ends when the last copy of its descriptor is closed, so a writer that is killed leaves none behind; it is never
unlocked by hand, because LOCK_UN in a forked child would free the parent's.

A writer that closes in good order removes the file while it still holds the lock. Whoever opened the file just
before finds, once it has the lock, that the path leads elsewhere, and starts over.
"""

import contextlib
import fcntl
import os
import stat

from vmclock_async.errors import SegmentError, SegmentInUseError


def lock_path(segment: str) -> str:
    """Where the lock of *segment* lies."""
    return f"{segment}.lock"


def acquire(segment: str) -> int:
    """Take the lock of *segment*, or raise at once; return the descriptor that holds it.

    Raises:
        SegmentInUseError: another writer holds it.
        SegmentError: the lock file cannot be opened.
    """
    path = lock_path(segment)
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        except OSError as exc:
            raise SegmentError(
                segment, f"cannot open its lock {path} ({exc.strerror}); write access to the directory is needed"
            ) from exc
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SegmentError(segment, f"its lock {path} is not a regular file; remove it")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
                raise SegmentInUseError(
                    segment,
                    f"{'process ' + holder if holder.isdigit() else 'another process'} is writing to it; "
                    "stop that one, or choose another segment",
                ) from exc
            if _leads_to(path, fd):
                with contextlib.suppress(OSError):  # no room: it is for the message above alone
                    os.ftruncate(fd, 0)
                    os.pwrite(fd, b"%d\n" % os.getpid(), 0)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def remove(segment: str, fd: int) -> None:
    """Remove the lock's file, if it is the one open at *fd*. Only for its holder, who closes *fd* next.

    A file that stays, because the directory may not be written, does no harm: only an flock on it counts.
    """
    path = lock_path(segment)
    with contextlib.suppress(OSError):
        if _leads_to(path, fd):  # or somebody removed it, and it is another writer's by now
            os.unlink(path)


def _leads_to(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False
