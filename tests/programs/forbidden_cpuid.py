"""Ask whether the counter is invariant, and for random bytes, where the kernel forbids CPUID."""

import ctypes

from vmclock_async import _core

if ctypes.CDLL(None).syscall(158, 0x1012, 0):  # arch_prctl(ARCH_SET_CPUID, 0)
    print("the processor has no such thing")
else:
    print(_core.tsc_is_invariant(), _core.processor_random())
