"""The file under a segment, made fit to be written: created, checked, laid out or grown, never cut or replaced.

The writer calls these in the order in which they stand here, and takes the lock after the second. Which case does
what is told in ``SegmentWriter``.
"""

import contextlib
import os
from pathlib import Path

from vmclock_async import abi
from vmclock_async._page import check_page, kind_of, of_this_boot
from vmclock_async.errors import SegmentError


def refuse_special(path: str) -> None:
    """Raise if there is anything else than a regular file at *path*."""
    try:
        kind = kind_of(os.lstat(path).st_mode)
    except FileNotFoundError:
        return
    except OSError as exc:
        raise SegmentError(path, f"cannot look at it ({exc.strerror})") from exc
    if kind:
        raise SegmentError(path, f"is {kind}; a segment is a regular file, choose another path")


def make_parents(path: str) -> None:
    """Create the directories above *path* that are missing."""
    parent = Path(path).parent
    try:
        for directory in reversed([each for each in (parent, *parent.parents) if not each.exists()]):
            with contextlib.suppress(FileExistsError):
                directory.mkdir(mode=0o755)
                directory.chmod(0o755)  # umask 077 would hide the segment behind it
    except OSError as exc:
        raise SegmentError(path, f"cannot create its directory ({exc.strerror})") from exc


def open_or_create(path: str) -> int:
    """Open the file at *path*, or make an empty one; return the descriptor."""
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
        os.fchmod(fd, 0o644)  # umask 077 would hide the segment from its readers
        return fd


def prepare(path: str, fd: int, size: int) -> bytes | None:
    """Make the file fit to be mapped. Return its page, or None if the page must be reset in place."""
    status = os.fstat(fd)
    if kind := kind_of(status.st_mode):
        raise SegmentError(path, f"is {kind}; a segment is a regular file, choose another path")
    if status.st_size >= abi.SEGMENT_SIZE:
        page = os.pread(fd, abi.MAX_SIZE, 0)
        try:
            header = check_page(path, page, status.st_size)
        except SegmentError:
            pass
        else:
            if header.size >= size and of_this_boot(status):
                return page
        # Grown if need be, never cut. Not by ftruncate(): a store into a hole of a full tmpfs raises SIGBUS.
        os.posix_fallocate(fd, 0, size)
        return None
    # Too short for anyone to have it mapped: no seq_count to go on from, begin at 0 as ClockBound does.
    page = abi.pack_header(abi.Header(abi.MAGIC, size, 0, 0, 0, 0)).ljust(size, b"\0")
    os.pwrite(fd, page, 0)
    return page
