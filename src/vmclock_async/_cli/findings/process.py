"""What this process may use of the kernel: inotify, and the machine's own clocks."""

import os
import re
import time
from typing import Final

from vmclock_async._cli.findings.finding import Finding, missing, ok, unreadable, warning
from vmclock_async._cli.findings.machine import Machine

__all__ = ("inotify", "time_namespace")

_INITIAL_TIME: Final = "time:[4026531834]"
"""PROC_TIME_INIT_INO, include/linux/proc_ns.h."""
_LONGEST_COUNT_S: Final = 0.2
"""Time, in seconds, in which the inotify instances of a user are counted, or not at all."""
_NEARLY_ALL: Final = 0.9


def inotify(machine: Machine) -> Finding:
    """How many inotify instances and watches this user may have, and how many instances are in use."""
    directory = machine.proc / "sys/fs/inotify"
    try:
        instances, watches = (
            int((directory / name).read_text()) for name in ("max_user_instances", "max_user_watches")
        )
    except OSError as exc:
        return unreadable(directory, "nothing has to be done: a reader without inotify polls", exc)
    used = _instances_in_use(machine)
    found = f"{'an unknown number' if used is None else used} of {instances} instances in use, {watches} watches"
    if not (instances and watches):
        return missing(f"{found}: readers poll", "sysctl fs.inotify.max_user_instances=128 max_user_watches=65536")
    if used is not None and used >= _NEARLY_ALL * instances:
        return warning(
            f"{found}: readers will poll", f"sysctl fs.inotify.max_user_instances={max(2 * instances, 128)}"
        )
    return ok(found)


def _instances_in_use(machine: Machine) -> int | None:
    """Number of inotify instances of this user's visible processes; None if that takes too long, or is unknown."""
    give_up = time.monotonic() + _LONGEST_COUNT_S
    mine, used = os.geteuid(), 0
    try:
        entries = [entry for entry in os.scandir(machine.proc) if entry.name.isdecimal()]
    except OSError:
        return None
    for entry in entries:
        try:
            if entry.stat().st_uid != mine:
                continue
            for number in os.listdir(f"{entry.path}/fd"):
                if time.monotonic() > give_up:
                    return None
                used += os.readlink(f"{entry.path}/fd/{number}") in ("anon_inode:inotify", "inotify")
        except OSError:  # it has ended, closed the descriptor, or may not be looked into
            continue
    return used


def time_namespace(machine: Machine) -> Finding:
    """Whether this process sees the clocks of the machine, or those of a time namespace."""
    namespaces = machine.proc / "self/ns"
    try:
        here = os.readlink(namespaces / "time")
    except FileNotFoundError:
        if os.path.isdir(namespaces):
            return ok("this kernel has no time namespaces")
        return unreadable(namespaces, "nothing has to be done")
    except OSError as exc:
        return unreadable(namespaces / "time", "nothing has to be done", exc)
    if here == _INITIAL_TIME:
        return ok("the machine's own")
    try:
        offsets = (machine.proc / "self/timens_offsets").read_text(encoding="utf-8", errors="replace")
    except OSError:
        offsets = ""
    moved = re.sub(r"\s+", " ", offsets).strip()
    return warning(
        f"CLOCK_MONOTONIC and CLOCK_BOOTTIME are not the machine's{f' (offsets: {moved})' if moved else ''}",
        "readers need no change; do not compare stamps of these clocks with those of processes outside",
    )
