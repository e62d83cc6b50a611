"""Kinds of PTP clocks, by the name that their driver gives them in ``/sys/class/ptp/*/clock_name``.

Sources: ``ptp_kvm_common.c`` and ``ptp_vmclock.c`` in the kernel's ``drivers/ptp``; ``drivers/hv/hv_util.c``;
``drivers/virtio/virtio_rtc_driver.c`` with ``include/uapi/linux/virtio_rtc.h``; the ENA driver's ``ena_phc.c`` and
its documentation, "PHC error bound".
"""

import re
from typing import Final, NamedTuple

from vmclock_async.abi import TimeType

__all__ = ("UNKNOWN", "Kind", "kind_of")


class Kind(NamedTuple):
    """What is known of a PTP clock by its name."""

    rank: int
    """Place in the order in which ``ptp.device=auto`` tries the clocks, from 0."""
    words: str
    """Whose clock it is, for people."""
    time_type: TimeType | None
    """UTC or TAI; None: not known."""
    unusable_because: str = ""
    claim: str = ""
    """Name of the file, in the directory of the clock's device, with the bound that the device claims, nanoseconds."""
    page: str = ""
    """Name of the VMClock device whose page the clock shows."""
    settles_s: float = 0.0
    """Seconds after a disruption during which the clock may still give a time from before it."""


UNKNOWN: Final = Kind(9, "a clock of unknown kind", None)

_VIRTIO_TYPES: Final = {0: TimeType.UTC, 1: TimeType.TAI}
_VIRTIO_UNUSABLE: Final = {
    2: "it counts from the host's start, not in UTC",
    3: "it smears leap seconds, so it is not UTC within a day of one",
    4: "it may smear leap seconds, so it may not be UTC within a day of one",
}


def kind_of(name: str, kernel_release: str) -> Kind:
    """The kind of the clock called *name*, on a Linux of *kernel_release* (``os.uname().release``)."""
    if re.fullmatch(r"ena-ptp-[0-9a-f]+", name):
        return Kind(0, "the clock of Amazon's Nitro card", TimeType.UTC, claim="phc_error_bound")
    if name == "KVM virtual PTP":
        return Kind(1, "CLOCK_REALTIME of the host", TimeType.UTC)
    if match := re.fullmatch(r"Virtio PTP type (\d+)/variant (\d+)", name):
        number = int(match[1])
        return Kind(
            2,
            "a clock of the host",
            _VIRTIO_TYPES.get(number),
            unusable_because=_VIRTIO_UNUSABLE.get(number, ""),
        )
    if name == "hyperv":
        # The driver adds to the host's last sample, which comes every few seconds, what a counter has counted since.
        return Kind(3, "the clock of the host", TimeType.UTC, settles_s=30.0)
    if re.fullmatch(r"vmclock\d+", name):
        return Kind(4, "the time of the page /dev/" + name, _vmclock_time_type(kernel_release), page=name)
    return UNKNOWN


def _vmclock_time_type(kernel_release: str) -> TimeType | None:
    """UTC before Linux 7.0, TAI since; a backport may differ, and ``ptp.timescale`` then says so."""
    major, _, _ = kernel_release.partition(".")
    if not major.isdecimal():
        return None
    return TimeType.TAI if int(major) >= 7 else TimeType.UTC
