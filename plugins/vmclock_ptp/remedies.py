"""What went wrong with a PTP clock, and what to do, on one line."""

import errno
from collections.abc import Mapping
from typing import Final

from vmclock_ptp.machine import PtpClock

__all__ = ("NONE_THERE", "failed")

NONE_THERE: Final = (
    "under KVM: modprobe ptp_kvm; on EC2: the ena driver with its PHC enabled; on Hyper-V: the time synchronization "
    "service; or name a network card's clock with ptp.device"
)

_OPENING: Final[Mapping[int, str]] = {
    errno.ENOENT: f"look into /sys/class/ptp; {NONE_THERE}",
    errno.EACCES: "only root may read it by default; run as root, or have the udev rule that vmclock-async "
    "install-units writes (for a network card's clock one of your own)",
    errno.EPERM: "a device policy forbids it; in a unit of systemd: DeviceAllow=char-ptp r",
}
_ANYWHERE: Final[Mapping[int, str]] = {
    errno.ENODEV: "the clock is gone: its driver was unloaded, or its device removed; it is looked for again",
    errno.ENXIO: "no driver is behind this device; load it, or remove the stale file",
}
_READING: Final[Mapping[int, str]] = {
    errno.EBUSY: "the device refuses to be read for a moment, as after an error; it is asked again",
    errno.EOPNOTSUPP: "its driver cannot tell the time, in a confidential guest for example; use another clock",
    errno.EINVAL: "either this is no PTP clock, or its driver has no reliable time: for a vmclock, see the status with "
    "vmclock-async show /dev/vmclock0, and whether the kernel trusts the TSC",
    errno.ETIMEDOUT: "the hypervisor does not finish an update of its page; it is asked again",
    errno.ESTALE: "the host has sent no time for ten minutes; enable the time synchronization service of this guest",
}


def failed(clock: PtpClock, error: OSError, *, opening: bool = False) -> str:
    """What *clock* did wrong, and the remedy; *opening*: *error* comes from opening it, not from reading it."""
    number = error.errno or 0
    remedy = ({**_ANYWHERE, **(_OPENING if opening else _READING)}).get(number, "see the kernel's log")
    name = f" ({clock.name})" if clock.name else ""
    reason = error.strerror or str(error)
    return f"{clock.path}{name} cannot be {'opened' if opening else 'read'} ({reason}): {remedy}"
