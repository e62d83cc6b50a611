"""The kernel source's view of the machine: all of its input, in one place."""

import os
import time
from pathlib import Path
from typing import Final

from vmclock_async.errors import SourceUnavailableError
from vmclock_async.timebase import Pairing, Timex, adjtimex, counter_unfit_because, pair

__all__ = ("Machine",)

_PROC: Final = Path("/proc")


class Machine:
    """This machine; a test may play another by overriding methods."""

    def counter_unfit_because(self) -> str | None:
        """Why no time may be given in terms of the counter; None if it is fit."""
        return counter_unfit_because()

    def timex(self) -> Timex:
        """The kernel's clock discipline.

        Raises:
            SourceUnavailableError: adjtimex is refused.
        """
        try:
            return adjtimex()
        except OSError as exc:
            raise SourceUnavailableError(
                "kernel",
                f"{exc}: reading the kernel's clock state needs no privilege, so a seccomp filter forbids it; "
                "allow the system call adjtimex there, or use the source chrony",
            ) from exc

    def pair(self, clock_id: int) -> Pairing:
        """The counter paired with *clock_id*."""
        return pair(clock_id)

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC, which advances exactly while the kernel counts seconds."""
        return time.monotonic_ns()

    def chronyd_runs(self, proc: Path = _PROC) -> bool:
        """Whether a visible chronyd may steer the clock; reads some hundred files of *proc*.

        A chronyd that was started with -x does not steer it, and an ended one that was not waited for has no
        arguments. If *proc* cannot be read, none is visible.
        """
        try:
            entries = os.listdir(proc)
        except OSError:  # no /proc in this container: what is invisible is unknown
            return False
        for entry in entries:
            if entry.isdecimal():
                try:
                    if (proc / entry / "comm").read_bytes().rstrip(b"\n") != b"chronyd":
                        continue
                    arguments = (proc / entry / "cmdline").read_bytes().split(b"\0")
                except OSError:  # it has ended, or may not be seen
                    continue
                if arguments[0] and not any(word[:1] == b"-" and b"x" in word for word in arguments):
                    return True
        return False
