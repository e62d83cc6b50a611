"""The segment: where it is, who may read and write it, whether its publisher lives, and what a clock says of it."""

import os
import stat
from typing import Final

from vmclock_async._cli.findings.finding import Finding, Level, missing, ok, refused, unreadable, warning
from vmclock_async._cli.findings.machine import Machine
from vmclock_async._cli.paths import on_tmpfs, publisher_path
from vmclock_async._notation import duration_text
from vmclock_async.abi import name_of
from vmclock_async.clock import Clock
from vmclock_async.disruption import socket_path
from vmclock_async.errors import SegmentError, VMClockError

__all__ = ("memory", "publisher", "reading", "segment", "told")

_START: Final = "start a publisher: vmclock-async publish"
_NO_SEGMENT: Final = Finding(Level.MISSING, "there is no segment", _START)


def segment(machine: Machine) -> Finding:
    """Where the segment is, whose it is, and who may read and write it."""
    try:
        path = machine.segment_path()
    except SegmentError as exc:  # it names each place that was looked at
        return missing(f"{exc.path}: {exc.seen}", _START)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return missing(f"nothing is at {path}", _START)
    except OSError as exc:
        return warning(
            f"{path} cannot be looked at ({exc.strerror})", "let this user enter its directory: chmod a+x"
        )
    mode = stat.S_IMODE(status.st_mode)
    who = f"{path}: uid {status.st_uid}, gid {status.st_gid}, mode {mode:04o}"
    if mode & (stat.S_IWGRP | stat.S_IWOTH) and stat.S_ISREG(status.st_mode):
        return warning(f"{who}: others may write it", f"chmod go-w {path}")
    if not os.access(path, os.R_OK):
        return warning(f"{who}: this user may not read it", f"chmod a+r {path}")
    return ok(f"{who}: {_readers(mode)} may read it")


def _readers(mode: int) -> str:
    if mode & stat.S_IROTH:
        return "everybody"
    return "its owner and its group" if mode & stat.S_IRGRP else "its owner alone"


def reading(machine: Machine) -> Finding:
    """What a clock that reads the segment says now."""
    try:
        with Clock(machine.segment_path()) as clock:
            now = clock.now()
            age = duration_text(max(clock.age_ns, 0))
            return ok(f"{now}, {name_of(now.status)}, reference {age} old", time_from="segment")
    except VMClockError as exc:
        found = refused(exc, Level.WARNING if _is_there(machine) else Level.MISSING)
        return found if _is_there(machine) else _NO_SEGMENT._replace(found=f"no reading: {found.found}")


def _is_there(machine: Machine) -> bool:
    try:
        return os.path.lexists(machine.segment_path())
    except SegmentError:
        return False


def publisher(machine: Machine) -> Finding:
    """Whether a publisher holds the segment's lock now.

    The lock is a file that readers may not open, so the kernel's list of locks is searched for it.
    """
    if not _is_there(machine):
        return _NO_SEGMENT
    lock = f"{machine.segment_path()}.lock"
    try:
        status = os.stat(lock)
    except FileNotFoundError:
        return warning(f"no publisher: there is no {lock}", _START)
    except OSError as exc:
        return unreadable(lock, "let this user enter its directory", exc)
    try:
        locks = (machine.proc / "locks").read_text(encoding="utf-8", errors="replace")
    except OSError as exc:
        return unreadable(machine.proc / "locks", "see whether a publisher runs: ps -C vmclock-async", exc)
    # proc_locks(5): number, kind, mode, type, process, major:minor:inode, range. A line with -> waits for the lock.
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    for line in locks.splitlines():
        words = line.split()
        if "FLOCK" in words and device in words and "->" not in words:
            process = words[words.index(device) - 1]
            return ok("a publisher lives" + (f" (process {process})" if process.isdecimal() else ""))
    return warning("no publisher is seen here: nobody holds the lock, or in another PID namespace", _START)


def memory(machine: Machine) -> Finding:
    """Whether the segment is, or would be, on a file system in memory."""
    path = machine.segment_path() if _is_there(machine) else publisher_path(machine.segment)
    match on_tmpfs(path, machine.proc):
        case True:
            return ok(f"{path} is on tmpfs")
        case False:
            return warning(
                f"{path} is not on tmpfs: it is written to disk, and outlives a reboot",
                "publish where memory is: --segment /dev/shm/vmclock-async/shm0",
            )
        case None:
            return unreadable(
                f"the file system of {path}", "publish below /run or /dev/shm, which are usually in memory"
            )


def told(machine: Machine) -> Finding:
    """The socket on which the publisher takes reports of disruptions; nothing connects to it here."""
    if not _is_there(machine):
        return _NO_SEGMENT
    path = socket_path(machine.segment_path())
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return missing(
            f"no {path}",
            "if a program knows of restores, publish the source told too, as publish auto does",
        )
    except OSError as exc:
        return unreadable(path, "let this user enter its directory", exc)
    who = f"{path}: uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}"
    if not stat.S_ISSOCK(status.st_mode):
        return warning(f"{who}: is no socket", f"rm {path}, and start the publisher again")
    if status.st_uid not in (0, os.geteuid(), os.stat(machine.segment_path()).st_uid):
        return warning(f"{who}: belongs to a stranger, who is not believed", "end that user's process")
    if not os.access(path, os.W_OK):
        return warning(f"{who}: this user may not report", "--set told.mode=0660 --set told.group=GROUP")
    return ok(f"{who}: this user may report disruptions")
