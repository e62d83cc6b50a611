"""Pages in memory, and bodies of bytes that differ."""

import os

BODY_88 = bytes(range(1, 89))
BODY_96 = bytes(range(101, 197))
PAGE_SIZE = 4096


def anonymous_file(content: bytes) -> int:
    """A descriptor of a nameless file in memory that holds *content* and is a page long."""
    fd = os.memfd_create("page", os.MFD_CLOEXEC)
    os.pwrite(fd, content.ljust(PAGE_SIZE, b"\0"), 0)
    return fd
