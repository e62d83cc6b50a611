"""The source ``vmgenid``: reports each restore that the kernel's driver of the VM generation device notices.

The device (ACPI or device tree) of QEMU, Firecracker, Hyper-V and others changes its number when a machine is restored
from a snapshot. Linux has a driver for it since 5.18, which seeds the random generator again and says so: in the
kernel's log, and on some kernels by a uevent. The log is the better of the two: each restore has a line there, and it
also holds restores from before the publisher began. A new number of the device is taken for a restore, though some
hypervisors draw one for a live migration too.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Final, final

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from vmclock_async import BodyUpdate, Emit, SourceUnavailableError
from vmclock_vmgenid.kernel_log import KernelLog
from vmclock_vmgenid.memory import Memory
from vmclock_vmgenid.uevents import Uevents

__all__ = ("VmgenidSettings", "VmgenidSource")

_RESTORED: Final = "the kernel's vmgenid driver reports that the machine was restored"
_MISSED: Final = f"{_RESTORED} before this publisher began"

_log: Final = logging.getLogger("vmclock_async.vmgenid")


@final
class VmgenidSettings(BaseModel):
    """Options of the source vmgenid."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kmsg: Path = Field(Path("/dev/kmsg"), description="the kernel's log")
    sysfs: Path = Field(Path("/sys"), description="where sysfs is mounted")


@final
class VmgenidSource:
    """Reports restores; it gives no time.

    Raises from ``run``:
        SourceUnavailableError: the machine has no such device, or neither log nor uevents can be read.
    """

    settings_type: ClassVar[type[BaseModel]] = VmgenidSettings

    def __init__(self, settings: VmgenidSettings) -> None:
        self._settings = settings

    def probe(self) -> str:
        """What is there, in words.

        Raises:
            SourceUnavailableError: the machine has no such device.
        """
        device = self._device()
        try:
            with KernelLog(self._settings.kmsg):
                return f"{device}, read from {self._settings.kmsg}"
        except OSError as exc:
            return f"{device}, by uevents alone, because {self._settings.kmsg} cannot be read ({exc.strerror})"

    async def run(self, emit: Emit) -> None:
        """Report each restore, until cancelled."""
        device = await anyio.to_thread.run_sync(self._device)
        await emit(BodyUpdate())  # it says nothing, but the source is there, whatever the kernel says next
        try:
            log = KernelLog(self._settings.kmsg)
        except OSError as exc:
            _log.warning(
                "%s cannot be read (%s), so that restores are seen only if this kernel sends uevents to this process; "
                "run with CAP_SYSLOG (systemd: AmbientCapabilities=CAP_SYSLOG), or set the sysctl "
                "kernel.dmesg_restrict to 0",
                self._settings.kmsg,
                exc.strerror,
            )
            with _unavailable("uevents cannot be read"):
                await self._follow_uevents(emit)
        else:
            with _unavailable(f"{self._settings.kmsg} cannot be read"), log:
                _log.info("restores of the device %s are read from %s", device, self._settings.kmsg)
                await self._follow(log, emit)

    async def _follow(self, log: KernelLog, emit: Emit) -> None:
        await emit.announce_restores()
        memory = Memory(f"{emit.segment}.vmgenid")
        line = await log.latest()
        reason = _MISSED
        while True:
            if line is not None and not await anyio.to_thread.run_sync(memory.holds, line):
                await emit.disrupt(reason, restored=True)
                try:
                    await anyio.to_thread.run_sync(memory.keep, line)
                except OSError as exc:
                    _log.warning(
                        "%s.vmgenid cannot be written (%s): the next publisher will report this restore again",
                        emit.segment,
                        exc.strerror,
                    )
            line, reason = await log.receive(), _RESTORED

    async def _follow_uevents(self, emit: Emit) -> None:
        with Uevents() as uevents:
            while True:
                await uevents.receive()
                await emit.disrupt(_RESTORED, restored=True)
                await emit.announce_restores()  # not before: whether any come can only be seen

    def _device(self) -> str:
        """Name of the device.

        Raises:
            SourceUnavailableError: there is none.
        """
        bus = self._settings.sysfs / "bus"
        for driver in ("platform/drivers/vmgenid", "acpi/drivers/vmgenid"):  # the latter until Linux 6.9
            for entry in _listed(bus / driver):
                if entry.is_symlink() and entry.name != "module":
                    return entry.name
        raise SourceUnavailableError(
            "vmgenid",
            f"no device in {bus}/platform/drivers/vmgenid; the hypervisor has to offer one (QEMU: -device vmgenid), "
            "and the driver is in Linux 5.18 and later (CONFIG_VMGENID)",
        )


def _listed(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


@contextmanager
def _unavailable(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise SourceUnavailableError(
            "vmgenid", f"{what} ({exc.strerror or exc}); see who may read the kernel's log"
        ) from exc
