"""The file of a segment, made ready for writing: laid out or grown, never cut or replaced.

``SegmentWriter`` says which case does what.
"""

import os
from typing import NamedTuple, final

from vmclock_async import abi
from vmclock_async._segment.boot import of_this_boot
from vmclock_async._segment.page import check_page
from vmclock_async.errors import SegmentError


@final
class Prepared(NamedTuple):
    """A file that can be mapped."""

    page: bytes | None
    """Its content; None if the page must be reset in place."""
    disruption_marker: int
    """The marker that readers last saw in it; 0 if they could see none."""


def prepare(path: str, fd: int, size: int) -> Prepared:
    """Make the file at *fd* ready to be mapped."""
    status = os.fstat(fd)
    if status.st_size >= abi.SEGMENT_SIZE:
        page = os.pread(fd, abi.MAX_SIZE, 0)
        marker = 0
        try:
            header = check_page(path, page, os.fstat(fd).st_size)  # size asked last: the file may be growing
        except SegmentError:
            pass
        else:
            marker = abi.unpack_body(page, abi.BODY_OFFSET)["disruption_marker"]
            if header.size >= size and of_this_boot(fd):
                return Prepared(page, marker)
        # Grown if need be, never cut. Not by ftruncate(), because a store into a hole of a full tmpfs raises SIGBUS.
        os.posix_fallocate(fd, 0, size)
        return Prepared(None, marker)
    # Too short for anyone to have it mapped: there is no seq_count to continue, so begin at 0 as ClockBound does.
    page = abi.pack_header(abi.Header(abi.MAGIC, size, 0, 0, 0, 0)).ljust(size, b"\0")
    os.pwrite(fd, page, 0)
    return Prepared(page, 0)
