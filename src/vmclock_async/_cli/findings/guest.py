"""What a virtual machine has from its hypervisor, and its kernel's drivers for that."""

import os
import re
from typing import Final

from vmclock_async._cli.findings.finding import Finding, Level, missing, ok, refused, unreadable, warning
from vmclock_async._cli.findings.machine import Machine
from vmclock_async.abi import is_own_generation
from vmclock_async.clock import Clock
from vmclock_async.errors import ClockError, SourceError, VMClockError

__all__ = ("device", "kernel", "kernel_log", "ptp", "vmgenid")

_VMCLOCK_SINCE: Final = (6, 13)
"""The first Linux with the driver of /dev/vmclock0, ptp_vmclock."""


def kernel(machine: Machine) -> Finding:
    """The kernel's version, and the size of a memory page."""
    found = f"Linux {machine.kernel_release}, memory pages of {os.sysconf('SC_PAGE_SIZE')} bytes"
    numbers = re.match(r"(\d+)\.(\d+)", machine.kernel_release)
    if numbers and (int(numbers[1]), int(numbers[2])) < _VMCLOCK_SINCE:
        return warning(
            f"{found}: too old for a VMClock device",
            "in a virtual machine, Linux 6.13 or later shows /dev/vmclock0, and 5.18 or later reports restores",
        )
    return ok(found)


def device(machine: Machine) -> Finding:
    """The VMClock device: whether it may be read, and what its page has."""
    path = machine.device
    if not os.path.lexists(path):
        return missing(
            f"no {path}",
            "in a virtual machine, have the hypervisor offer one (QEMU 10: -device vmclock), and use Linux 6.13 or "
            "later (CONFIG_PTP_1588_CLOCK_VMCLOCK)",
        )
    probed = machine.probing.outcome("device", path=path)
    if isinstance(probed, SourceError):
        return refused(probed)
    others = len(list(machine.dev.glob("vmclock[0-9]*"))) - 1
    more = f"; {others} more beside it" if others else ""
    try:
        with Clock(path, fence=None, trust_writable=True) as clock:
            body = clock.snapshot().body
            generation = body.vm_generation_counter
            has = f"marker {body.disruption_marker}, " + (
                "no generation"
                if generation is None or is_own_generation(generation)
                else f"generation {generation}"
            )
            try:
                return ok(f"{path}: {has}, time {clock.now()}{more}", time_from="device")
            except ClockError as exc:
                return ok(f"{path}: {has}, no bounded time ({exc.seen}){more}")
    except VMClockError as exc:
        return refused(exc, Level.WARNING)


def vmgenid(machine: Machine) -> Finding:
    """The VM generation device, which shows restores."""
    probed = machine.probing.outcome("vmgenid", **machine.options_of("vmgenid"))
    if not isinstance(probed, SourceError):
        return ok(probed)
    if not os.access(machine.sys / "bus", os.R_OK):
        return unreadable(machine.sys / "bus", "mount sysfs there, or look from outside this container")
    return refused(probed)


def kernel_log(machine: Machine) -> Finding:
    """Whether the kernel's log may be read, which has a line for each restore."""
    try:
        os.close(os.open(machine.kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except FileNotFoundError:
        return missing(f"no {machine.kmsg}", "give the container this device, if restores matter there")
    except OSError as exc:
        return warning(
            f"{machine.kmsg} may not be read by this user ({exc.strerror})",
            "give the publisher CAP_SYSLOG (systemd: AmbientCapabilities=CAP_SYSLOG), or: "
            "sysctl kernel.dmesg_restrict=0",
        )
    return ok(f"{machine.kmsg} may be read")


def ptp(machine: Machine) -> Finding:
    """The PTP clocks, which the source ptp reads, and chronyd may follow."""
    directory = machine.sys / "class/ptp"
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        names = []
        if not os.access(machine.sys / "class", os.R_OK):
            return unreadable(machine.sys / "class", "mount sysfs there, or look from outside this container")
    except OSError as exc:
        return unreadable(directory, "look from outside this sandbox", exc)
    if not names:
        return missing(
            "no PTP clock",
            "not needed beside time servers; under KVM: modprobe ptp_kvm, on EC2: the ena driver's PHC; then publish "
            "with the source ptp",
        )
    return ok(", ".join(f"{name} ({_clock_name(machine, name)})" for name in names))


def _clock_name(machine: Machine, name: str) -> str:
    try:
        text = (machine.sys / "class/ptp" / name / "clock_name").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "its name cannot be read"
    return text.strip()
