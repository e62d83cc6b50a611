"""The kernel source: the time of the kernel's own clock, with the bound that its daemon wrote.

Any Linux machine or container has it, and it needs no privilege.
"""

from vmclock_kernel.source import KernelSettings, KernelSource

__all__ = ("KernelSettings", "KernelSource")
