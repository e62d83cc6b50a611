"""The file under a segment, made fit to be written: laid out or grown, never cut or replaced.

Which case does what is told in ``SegmentWriter``.
"""

import os
from typing import NamedTuple, final

from vmclock_async import abi
from vmclock_async._segment.boot import of_this_boot
from vmclock_async._segment.page import check_page
from vmclock_async.errors import SegmentError


@final
class Prepared(NamedTuple):
    """A file that is fit to be mapped."""

    page: bytes | None
    """What is in it; None if the page must be reset in place."""
    disruption_marker: int
    """The marker that readers saw last in it; 0 where there was none to see."""


def prepare(path: str, fd: int, size: int) -> Prepared:
    """Make the file at *fd* fit to be mapped."""
    status = os.fstat(fd)
    if status.st_size >= abi.SEGMENT_SIZE:
        page = os.pread(fd, abi.MAX_SIZE, 0)
        marker = 0
        try:
            header = check_page(path, page, os.fstat(fd).st_size)  # asked after the bytes: it may be growing
        except SegmentError:
            pass
        else:
            marker = abi.unpack_body(page, abi.BODY_OFFSET)["disruption_marker"]
            if header.size >= size and of_this_boot(fd):
                return Prepared(page, marker)
        # Grown if need be, never cut. Not by ftruncate(): a store into a hole of a full tmpfs raises SIGBUS.
        os.posix_fallocate(fd, 0, size)
        return Prepared(None, marker)
    # Too short for anyone to have it mapped: no seq_count to go on from, begin at 0 as ClockBound does.
    page = abi.pack_header(abi.Header(abi.MAGIC, size, 0, 0, 0, 0)).ljust(size, b"\0")
    os.pwrite(fd, page, 0)
    return Prepared(page, 0)
