"""What is in the files of a segment and its lock."""

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from vmclock_async import (
    ClockStatus,
    VMClockBody,
    _core,
)


def restart_of_clockbound(path: Path, header: bytes, body: bytes) -> None:
    """Its cold start, in the same file: cut, lay out by one write, then commit as seq_count 2."""
    with path.open("wb", buffering=0) as file:
        file.write(header + bytes(88))
    with path.open("r+b", buffering=0) as file:
        os.pwrite(file.fileno(), body, 16)
        os.pwrite(file.fileno(), struct.pack("<HBBI", 1, *header[10:12], 2), 8)


U64_MAX = 2**64 - 1


EARLIER_BOOT_NS = 10**18  # 2001: before this machine was started


BODY = VMClockBody(disruption_marker=5, clock_status=ClockStatus.SYNCHRONIZED, time_sec=1_700_000_000)


PACKED = BODY.pack()


class Seen(NamedTuple):
    """A file as it is: nothing that an untouched one may change."""

    inode: int
    mode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    content: bytes


def look(path: Path) -> Seen:
    """What is at *path*, which is a regular file."""
    status = path.stat()
    content = path.read_bytes()
    return Seen(status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns, content)


def header_of(path: Path) -> tuple[int, ...]:
    """magic, size, version, counter_id, time_type and seq_count of the segment at *path*."""
    return struct.unpack("<IIHBBI", path.read_bytes()[:16])


def lock_of(path: Path) -> Path:
    """Where the lock of the segment at *path* lies."""
    return path.with_name(path.name + ".lock")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """The process's umask is *mask* for the length of the block."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def mapped(path: Path) -> Iterator[_core.Page]:
    """The page at *path* as a reader that was there before sees it."""
    page = _core.Page(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    try:
        yield page
    finally:
        page.close()


BAD_SEGMENT = {
    "empty": (b"", "is empty"),
    "short": (b"VCLK", "too few"),
    "wrong magic": (b"ELF!" + bytes(100), "magic is 0x"),
    "version 0": (b"VCLK" + (104).to_bytes(4, "little") + bytes(96), "version is 0"),
    "version 9": (b"VCLK" + (104).to_bytes(4, "little") + b"\x09" + bytes(95), "version is 9"),
    "size below the header": (b"VCLK" + (8).to_bytes(4, "little") + b"\x01" + bytes(95), "size is 8"),
    "size past the end": (b"VCLK" + (112).to_bytes(4, "little") + b"\x01" + bytes(95), "size is 112"),
}
"""What a reader refuses: the bytes, and what it says of them."""
