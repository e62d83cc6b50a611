"""Reading a ClockBound segment: one whole copy, by three calls of pread(2).

This maps nothing: ClockBound's daemon truncates an unusable file, and a reader that has it mapped dies of SIGBUS then.
And the file is opened for each read, because the daemon may put another one in its place.

A copy is whole if the generation is even, and the same before the copy and after it. Between two calls of pread the
kernel takes and drops its reference to the page, by atomic operations that are full barriers, so the order of the three
calls is the order of their loads on every processor.
"""

import errno
import os
import stat
from typing import Final

from vmclock_async._segment.ownership import Ownership
from vmclock_async._segment.page import kind_of
from vmclock_async.clockbound._layout import HEADER_SIZE, ErrorBound, Layout, generation_of, unpack
from vmclock_async.errors import (
    SegmentError,
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentUnstableError,
)

__all__ = ("read_error_bound",)

_TRIES: Final = 4
"""A commit takes less than a microsecond, and three calls of pread take a few."""


def read_error_bound(path: str | os.PathLike[str], *, layout: Layout = Layout.V2) -> ErrorBound:
    """What the ClockBound segment at *path* says now. It makes a dozen system calls, and waits for nobody.

    Raises:
        SegmentNotInitializedError: nothing is there, or nothing is committed yet.
        SegmentUnstableError: a commit was in progress at each of a few tries; `seq_count` is the generation.
        SegmentMalformedError, SegmentVersionNotSupportedError: it is no segment of *layout*, or a field is out of
            range.
        SegmentError: it may not be read, or users other than its owner and root may write it.
    """
    name = os.fspath(path)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as exc:
        raise SegmentNotInitializedError(
            name, "nothing is there; start ClockBound's daemon, or check the path"
        ) from exc
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            raise SegmentMalformedError(name, "is a socket, not a segment; check the path") from exc
        raise SegmentError(name, f"cannot be opened ({exc.strerror}); check the path and who may read it") from exc
    try:
        status = os.fstat(fd)
        if kind := kind_of(status.st_mode):
            raise SegmentMalformedError(name, f"is {kind}, not a segment; check the path")
        ownership = Ownership.of(status)
        if ownership.others_may_write:
            raise SegmentError(
                name,
                f"is owned by {ownership.owner}, and others may write it too (mode {stat.S_IMODE(status.st_mode):04o}),"
                " so its bound may be anybody's; forbid that (chmod go-w)",
            )
        return unpack(name, layout, _whole(name, fd, layout.size))
    except OSError as exc:
        raise SegmentError(name, f"cannot be read ({exc.strerror}); check what keeps it") from exc
    finally:
        os.close(fd)


def _whole(path: str, fd: int, size: int) -> bytes:
    """A copy of the first *size* bytes that no commit has changed meanwhile; shorter if the file is."""
    first = -1
    for _ in range(_TRIES):
        before = os.pread(fd, HEADER_SIZE, 0)
        page = os.pread(fd, size, 0)
        after = os.pread(fd, HEADER_SIZE, 0)
        if len(page) < HEADER_SIZE:
            return page
        generation = generation_of(page)
        if before == page[:HEADER_SIZE] == after and generation % 2 == 0:
            return page
        first = generation if first < 0 else first
    reason = (
        f"its generation stays odd at {generation}: a commit is in progress, or its writer died in one; start "
        "ClockBound again if this lasts"
        if first == generation
        else f"its generation kept moving, from {first} to {generation}; try again"
    )
    raise SegmentUnstableError(path, reason, generation)
