"""Errors with their remedies: those of the operating system, and a page that is never whole."""

import errno
from typing import Final

from vmclock_async.errors import SegmentError, SegmentUnstableError

__all__ = ("os_error", "unstable_error")

_NO_ROOM: Final = "its file system is full, or the quota is used up: make room, or choose another path"
_NO_LOCKS: Final = "its file system gives no locks: choose a path on tmpfs, such as /run or /dev/shm"
_NOT_FIT: Final = "its file system cannot hold a segment: choose a path on tmpfs, such as /run or /dev/shm"
_REMEDIES: Final = {
    errno.EACCES: "write access to it and to its directory is needed: run as a user who has it, or choose another path",
    errno.EPERM: "an immutable file, a sandbox or a security module forbids it: lift that, or choose another path",
    errno.EROFS: "its file system is read-only: choose a path on one that is not, such as /run or /dev/shm",
    errno.ENOSPC: _NO_ROOM,
    errno.EDQUOT: _NO_ROOM,
    errno.EMFILE: "this process has as many files open as it may: raise its limit (ulimit -n, LimitNOFILE=)",
    errno.ENFILE: "this machine has as many files open as it may: raise fs.file-max",
    errno.ENOLCK: _NO_LOCKS,
    errno.EOPNOTSUPP: _NO_LOCKS,
    errno.ENODEV: _NOT_FIT,
    errno.EINVAL: _NOT_FIT,
    errno.EIO: "its disk or its server failed: choose another path",
    errno.ENOTDIR: "a part of the path is no directory: choose another path",
    errno.ELOOP: "too many symbolic links: choose another path",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOMEM: "this machine has no memory left",
}


def os_error(path: str, failed: str, exc: OSError) -> SegmentError:
    """The error of a segment at *path*: *failed* was not possible, because of *exc*."""
    remedy = _REMEDIES.get(exc.errno or 0, "choose another path")
    return SegmentError(path, f"cannot {failed} ({exc.strerror}); {remedy}")


def unstable_error(path: str, first: int, last: int, waited_s: float) -> SegmentUnstableError:
    """The error for a page that was never whole while seq_count went from *first* to *last* in *waited_s* seconds."""
    waited = f"{waited_s * 1000:.3g} ms"
    if first == last:
        reason = (
            f"seq_count stayed odd at {last} for {waited}: its writer is at work, or was stopped or died in "
            "mid-update; try again, and if this lasts, start the publisher again"
        )
    else:
        reason = f"seq_count kept moving for {waited}, from {first} to {last}; try again"
    return SegmentUnstableError(path, reason, last)
