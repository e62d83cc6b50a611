"""The kernel's clock: whether a daemon keeps it, and what the kernel and the system know of TAI."""

import re
from datetime import UTC, datetime
from typing import Final

from vmclock_async._cli.findings.finding import Finding, missing, ok, warning
from vmclock_async._cli.findings.machine import Machine
from vmclock_async._notation import duration_text
from vmclock_async.timebase import timescale

__all__ = ("kernel_clock", "leap_seconds", "tai_offset")

_NTP_EPOCH_S: Final = 2_208_988_800
"""Seconds from 1900 to 1970, RFC 5905."""
_ALLOW: Final = "allow the system call adjtimex in the seccomp filter (systemd: SystemCallFilter=adjtimex)"
_EXPIRY: Final = {"leap-seconds.list": (r"^#@\s+(\d+)", _NTP_EPOCH_S), "leapseconds": (r"^#expires (\d+)", 0)}
"""How each file gives its expiry: a pattern of the line, and the seconds from the file's epoch to 1970."""


def kernel_clock(machine: Machine) -> Finding:
    """Whether the kernel's clock is synchronized, by adjtimex(2), and its bound."""
    try:
        timex = machine.timex()
    except OSError as exc:
        return warning(f"adjtimex is refused ({exc.strerror})", _ALLOW)
    if timex.unsynchronized:
        return missing(
            f"the kernel's clock is not synchronized (adjtimex: status 0x{timex.status:04x})",
            "start a daemon that keeps it (systemctl start chronyd); chronyd says so to the kernel only with rtcsync "
            "in chrony.conf",
        )
    if timex.maxerror_ns is None:
        return warning(f"synchronized, without a bound (out of range: {timex.nonsense})", "use the source chrony")
    found = f"synchronized, maxerror {duration_text(timex.maxerror_ns)}"
    if machine.counter_unfit_because() is not None:
        return warning(f"{found}, but the counter is unfit", "see the counter above")
    return ok(found, time_from="kernel")


def tai_offset(machine: Machine) -> Finding:
    """Whether the kernel knows TAI minus UTC."""
    try:
        offset_s = timescale(machine.timex()).tai_offset_s
    except OSError as exc:
        return warning(f"adjtimex is refused ({exc.strerror})", _ALLOW)
    if offset_s is None:
        return warning(
            "the kernel knows no TAI offset, so that UTC is published",
            "add to chrony.conf: leapsectz right/UTC (chronyd 4.6: leapseclist /usr/share/zoneinfo/leap-seconds.list)",
        )
    return ok(f"TAI - UTC is {-offset_s} s")


def leap_seconds(machine: Machine) -> Finding:
    """Until when the system's list of leap seconds is known to be complete."""
    for name, (pattern, epoch_s) in _EXPIRY.items():
        path = machine.zoneinfo / name
        try:
            found = re.search(pattern, path.read_text(encoding="utf-8", errors="replace"), re.MULTILINE)
            if found is None:
                continue
            expires_s = int(found[1]) - epoch_s
            day = f"{datetime.fromtimestamp(expires_s, UTC):%Y-%m-%d}"
        except (OSError, ValueError, OverflowError):
            continue
        if expires_s < machine.utc_s():
            return warning(
                f"{path} expired on {day}", "update tzdata: apt-get install tzdata, or dnf update tzdata"
            )
        return ok(f"{path} is valid until {day}")
    return warning(
        f"no list of leap seconds with an expiry in {machine.zoneinfo}",
        "install tzdata, if you want to know whether the TAI offset is up to date",
    )
