"""The source ``vmgenid``: restores that the kernel's driver of the VM generation device reports."""

from vmclock_vmgenid.source import VmgenidSettings, VmgenidSource

__all__ = ("VmgenidSettings", "VmgenidSource")
