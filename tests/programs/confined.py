"""Run a command under the seccomp filters of a systemd unit.

Arguments: a file with the names of the calls that are allowed, the socket families, and the command. Others fail with
EPERM, as SystemCallErrorNumber= has it; so does memory that is both writable and executable, or made executable.
"""

import ctypes
import mmap
import os
import socket
import sys
from pathlib import Path

ALLOW, EPERM = 0x7FFF0000, 0x00050001  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(EPERM)
EQUAL, MASKED = 4, 7  # enum scmp_compare
W_X = mmap.PROT_WRITE | mmap.PROT_EXEC


class Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``."""

    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
filters = ctypes.c_void_p(library.seccomp_init(EPERM))


def allow(name: str, *comparisons: Comparison) -> None:
    """Allow the call *name*, with such arguments."""
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:  # otherwise this architecture has no such call
        array = (Comparison * len(comparisons))(*comparisons)
        failed = library.seccomp_rule_add_array(filters, ALLOW, number, len(comparisons), array)
        assert not failed, (name, failed)


for name in Path(sys.argv[1]).read_text(encoding="ascii").split():
    if name == "socket":
        for family in sys.argv[2].split(","):
            allow(name, Comparison(0, EQUAL, getattr(socket, family), 0))
    elif name == "mmap":
        for protection in (0, mmap.PROT_WRITE, mmap.PROT_EXEC):
            allow(name, Comparison(2, MASKED, W_X, protection))
    elif name in ("mprotect", "pkey_mprotect"):
        allow(name, Comparison(2, MASKED, mmap.PROT_EXEC, 0))
    else:
        allow(name)
assert not library.seccomp_load(filters)
os.execv(sys.executable, [sys.executable, "-W", "error", *sys.argv[3:]])
