"""Whether the processor's counter is fit, and how much of that can be seen from here."""

import os
from typing import Final

from vmclock_async import _core
from vmclock_async._cli.findings.finding import Finding, missing, ok, unreadable
from vmclock_async._cli.findings.machine import Machine
from vmclock_async._timebase.continuity import counter_distrusted_because
from vmclock_async.abi import name_of
from vmclock_async.timebase import COUNTER_ID

__all__ = ("clocksource", "counter", "proc", "sys")

_CLOCKSOURCE: Final = "devices/system/clocksource/clocksource0/current_clocksource"
_OF_PROC: Final = ("cpuinfo", "locks", "self/mountinfo", "sys/kernel/random/boot_id")
_OF_SYS: Final = (_CLOCKSOURCE, "class")


def counter(machine: Machine) -> Finding:
    """Whether a time may be given in terms of the counter. Without one, no source of this machine gives a time."""
    name = name_of(COUNTER_ID)
    reason = machine.counter_unfit_because()
    if reason is not None:
        seen, _, remedy = reason.rpartition("; ")
        return missing(f"{name}: {seen or remedy}", remedy if seen else "let this process read the counter")
    says = {True: ", the processor says that it is invariant", False: "", None: ""}[_core.tsc_is_invariant()]
    return ok(f"{name}: nothing is known against it{says}")


def clocksource(machine: Machine) -> Finding:
    """The kernel's clocksource, which is the counter or computed from it where the kernel trusts the counter."""
    path = machine.sys / _CLOCKSOURCE
    try:
        name = path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as exc:
        return unreadable(path, "mount sysfs read-only to see it", exc)
    if counter_distrusted_because(lambda: name) is None:
        return ok(name or "none named")
    return missing(
        f"{name}: the kernel does not trust the counter",
        "see the kernel's log for the reason (dmesg | grep -i -e tsc -e clocksource), and boot with clocksource=tsc "
        "only if the host keeps the TSC stable",
    )


def proc(machine: Machine) -> Finding:
    """What can be read of procfs."""
    hidden = [name for name in _OF_PROC if not os.access(machine.proc / name, os.R_OK)]
    if hidden:
        return unreadable(
            f"{', '.join(hidden)} in {machine.proc}", "nothing has to be done; ProcSubset=all shows them to a unit"
        )
    return ok(f"{machine.proc} is visible")


def sys(machine: Machine) -> Finding:
    """What can be read of sysfs."""
    hidden = [name for name in _OF_SYS if not os.access(machine.sys / name, os.R_OK)]
    if hidden:
        return unreadable(
            f"{', '.join(hidden)} in {machine.sys}", "nothing has to be done; a read-only sysfs shows them"
        )
    return ok(f"{machine.sys} is visible")
