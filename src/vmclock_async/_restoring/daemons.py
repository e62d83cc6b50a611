"""Whether a daemon disciplines CLOCK_REALTIME: one that this process can see, or one that the kernel has heard from."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from vmclock_async._timebase.adjtimex import adjtimex

__all__ = ("disciplined_by",)

_COMM: Final = {
    "chronyd": "chronyd",
    "ntp-daemon": "ntpd-rs",
    "ntpd": "ntpd",  # that of ntp.org, of NTPsec, and of OpenBSD
    "phc2sys": "phc2sys",
    "systemd-timesyn": "systemd-timesyncd",
}
"""Names of the daemons by /proc/PID/comm, which has 15 bytes."""


def disciplined_by(proc: Path = Path("/proc")) -> str | None:
    """What disciplines CLOCK_REALTIME, in words that say how that is known; None if nothing does.

    Reads a file for each process, which takes milliseconds on a machine with hundreds. A daemon outside this process's
    PID namespace is not among them. The kernel knows of it all the same: a daemon that has the time clears STA_UNSYNC.

    Args:
        proc: the directory where procfs is mounted.
    """
    for pid, comm in _processes(proc):
        if comm in _COMM:
            return f"{_COMM[comm]} runs (process {pid})"
    with suppress(OSError):  # a seccomp filter
        timex = adjtimex()
        if not timex.unsynchronized:
            return f"the kernel's clock is synchronized (adjtimex: status 0x{timex.status:04x})"
    return None


def _processes(proc: Path) -> Iterator[tuple[int, str]]:
    for directory in proc.iterdir() if proc.is_dir() else ():
        if directory.name.isdecimal():
            with suppress(OSError):  # it has ended meanwhile
                yield int(directory.name), (directory / "comm").read_text(errors="replace").strip()
