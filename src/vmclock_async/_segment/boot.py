"""Whether a segment was written since this machine booted: the counter of an earlier boot means nothing.

The kernel draws a boot_id at each boot. A writer keeps it in an extended attribute of the segment's file, which needs
no second file, goes wherever the file is mounted, and lies outside the page. If the file has the attribute, it decides:

* The boot_id of now: the file was written in this boot, whatever its time says. The clock may have been set back since.
* Another: the file was written in an earlier boot, even where its time lies in this one. A machine without a battery
  for its clock begins each boot at about the same time.

If the file has none, its time decides, compared with CLOCK_REALTIME - CLOCK_BOOTTIME, which setting the clock and a
time namespace both move. A file has none if ClockBound's writer made it, if its file system lacks such attributes
(tmpfs before Linux 6.6), or if the writer could not read its boot_id. A reader that cannot read its own boot_id has
only the file's time.

ClockBound's writer leaves an attribute in place. It stays true in the same boot. After another boot it wrongly says
"earlier" about what ClockBound wrote since: that needs a segment that outlives a boot (not on tmpfs), and it ends when
one of our writers, or the removal of the file, begins the segment again.
"""

import os
import time
from contextlib import suppress
from typing import Final

__all__ = ("forget_boot", "of_this_boot", "present_boot_id", "record_boot")

_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
_ATTRIBUTE: Final = "user.vmclock_async.boot_id"


def present_boot_id() -> bytes | None:
    """The kernel's boot_id; None where it cannot be read."""
    try:
        # systemd-nspawn mounts a file with the container's own number over it: that number is not the kernel's.
        if os.stat(_BOOT_ID).st_dev != os.stat(os.path.dirname(_BOOT_ID)).st_dev:
            return None
        with open(_BOOT_ID, "rb") as file:
            return file.read().strip() or None
    except OSError:
        return None


def _recorded(fd: int) -> bytes | None:
    """The boot_id that is kept with the file at *fd*; None if there is none."""
    try:
        return os.getxattr(fd, _ATTRIBUTE)
    except OSError:
        return None


def record_boot(fd: int) -> None:
    """Record at the file of *fd* that it is written in this boot; if that fails, remove an older record."""
    boot_id = present_boot_id()
    if boot_id is not None and _recorded(fd) == boot_id:
        return
    with suppress(OSError):
        if boot_id is not None:
            os.setxattr(fd, _ATTRIBUTE, boot_id)
            return
    forget_boot(fd)


def forget_boot(fd: int) -> None:
    """Remove the record from the file at *fd*."""
    with suppress(OSError):
        os.removexattr(fd, _ATTRIBUTE)


def of_this_boot(fd: int) -> bool:
    """Whether the file at *fd* was written since this machine booted.

    Raises:
        OSError: *fd* is closed.
    """
    status = os.fstat(fd)
    recorded = _recorded(fd)
    if recorded is not None and (boot_id := present_boot_id()) is not None:
        return recorded == boot_id
    return _is_time_of_this_boot(status.st_mtime_ns)


def _is_time_of_this_boot(ns: int) -> bool:
    """Whether *ns*, of CLOCK_REALTIME, lies between the boot and now.

    A later time belongs to an earlier boot too: that boot knew the time, and this one, of a machine that keeps no time
    while it is off, does not yet. (Or the clock was set back since: then the next commit corrects the file's time.)
    """
    now_ns = time.clock_gettime_ns(time.CLOCK_REALTIME)
    return now_ns - time.clock_gettime_ns(time.CLOCK_BOOTTIME) <= ns <= now_ns
