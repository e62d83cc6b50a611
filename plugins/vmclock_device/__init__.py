"""The kernel's VMClock device, or any captured page or segment, as a source."""

from vmclock_device.source import DeviceSettings, DeviceSource

__all__ = ("DeviceSettings", "DeviceSource")
