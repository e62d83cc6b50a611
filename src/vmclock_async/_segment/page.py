"""What lies at a segment's path: checking that it is a VMClock page, and mapping it for reading.

The checks and their order (magic, version, size) are ClockBound's; each error says what was seen and what to do.
"""

import errno
import os
import stat
from typing import Final, NamedTuple

from vmclock_async import _core, abi
from vmclock_async._segment.ownership import Ownership
from vmclock_async.errors import (
    SegmentError,
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentUnstableError,
    SegmentVersionNotSupportedError,
)

_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a character device"),
    (stat.S_ISBLK, "a block device"),
)


def kind_of(mode: int) -> str | None:
    """The kind of file that *mode* describes, if it is not a regular file."""
    return next((name for test, name in _KINDS if test(mode)), None)


CHECKED_BYTES: Final = 10
"""What ``check_page`` looks at: magic, size and version, in the first ten bytes."""


def check_page(path: str, page: bytes, limit: int) -> abi.Header:
    """The header of *page*, if that is a usable segment of at most *limit* bytes.

    The order of the checks is magic, version, size, as in ClockBound's reader.
    """
    if not page:
        raise SegmentNotInitializedError(
            path, "the file is empty: nothing is committed yet; start a publisher, or wait"
        )
    if len(page) < abi.HEADER_SIZE:
        raise SegmentMalformedError(path, f"{len(page)} bytes are too few for a header of {abi.HEADER_SIZE}")
    header = abi.unpack_header(page)
    if header.magic != abi.MAGIC:
        raise SegmentMalformedError(
            path, f"magic is 0x{header.magic:08X}, not 0x{abi.MAGIC:08X} (VCLK): this is no VMClock segment"
        )
    if header.version == 0:
        raise SegmentNotInitializedError(
            path, "version is 0: nothing is committed yet; start a publisher, or wait"
        )
    if header.version != abi.VERSION:
        raise SegmentVersionNotSupportedError(
            path, f"version is {header.version}, and only {abi.VERSION} is known; a newer reader may know it"
        )
    if header.size < abi.SEGMENT_SIZE:
        raise SegmentMalformedError(path, f"size is {header.size}, and {abi.SEGMENT_SIZE} is the least there is")
    if header.size > limit:
        raise SegmentMalformedError(path, f"size is {header.size}, but the file ends after {limit} bytes")
    return header


class Mapped(NamedTuple):
    """A page that has been checked and mapped."""

    page: _core.Page
    identity: tuple[int, int]
    """st_dev and st_ino of its file."""
    checked: bytes
    """The magic, size and version that were checked."""
    is_device: bool
    notifies: bool
    """Whether it has NOTIFICATION_PRESENT, which means nothing in a regular file."""
    successor: dict[str, "Mapped"]
    """Empty, or the page that the reader mapped next, under the key "is"."""
    opened: int = 0
    """Number of pages that the reader had mapped before."""


def map_page(path: str, *, trust_writable: bool = True) -> Mapped:
    """Check what is at *path* and map it read-only; see ``SegmentReader`` for *trust_writable*."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as exc:
        remedy = (
            "the driver is in Linux 6.13 and later (PTP_1588_CLOCK_VMCLOCK), and the hypervisor has to offer the device"
            if path.startswith("/dev/vmclock")
            else "start a publisher, or check the path"
        )
        raise SegmentNotInitializedError(path, f"nothing is there; {remedy}") from exc
    except PermissionError as exc:
        # EPERM does not come from the mode: the control group of a container does not have the device, for example.
        reason = (
            "may not be opened here, whatever its mode is (Operation not permitted); give the container the device "
            "itself (--device) and not its file alone, or see what else confines this process"
            if exc.errno == errno.EPERM
            else "may not be read by this user; run as one who may, or change its mode (a device: by a udev rule)"
        )
        raise SegmentError(path, reason) from exc
    except OSError as exc:
        if exc.errno == errno.ENXIO:
            raise SegmentMalformedError(path, "is a socket, or a device without a driver, not a segment") from exc
        raise SegmentError(path, f"cannot be opened ({exc.strerror})") from exc
    try:
        status = os.fstat(fd)
        kind = kind_of(status.st_mode)
        if kind and not stat.S_ISCHR(status.st_mode):
            raise SegmentMalformedError(path, f"is {kind}, not a segment")
        ownership = Ownership.of(status)
        if not kind and ownership.others_may_write and not trust_writable:
            raise SegmentError(
                path,
                f"is owned by {ownership.owner}, and others may write it too (mode {ownership.mode:04o}), so its time "
                "may be anybody's; forbid that (chmod go-w), or give trust_writable=True",
            )
        # One pread, because a second read() of the device gives nothing, and lseek() fails there.
        head = os.pread(fd, abi.MAX_SIZE, 0)
        # The size is asked last: by then a file that is being made or grown has the size that its bytes claim.
        check_page(path, head, len(head) if kind else os.fstat(fd).st_size)
        flags = abi.unpack_body(head, abi.BODY_OFFSET)["flags"]
        return Mapped(
            page=_core.Page(fd),
            identity=(status.st_dev, status.st_ino),
            checked=head[:CHECKED_BYTES],
            is_device=kind is not None,
            notifies=bool(flags & abi.Flags.NOTIFICATION_PRESENT),
            successor={},
        )
    except TimeoutError as exc:  # the device's driver found the page odd for 100 ms
        page = _core.Page(fd)
        seq_count = page.control_word >> 32
        page.close()
        raise SegmentUnstableError(
            path, f"the device stayed unstable at seq_count {seq_count}", seq_count
        ) from exc
    except OSError as exc:
        os.close(fd)
        raise SegmentError(path, f"cannot be read ({exc.strerror})") from exc
    except BaseException:
        os.close(fd)
        raise
