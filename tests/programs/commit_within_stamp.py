"""Ask a clock for the time of a stamp of CLOCK_MONOTONIC while a commit lands inside the core's reading.

Arguments: the path of the segment; "same" or "moved", which the commit makes of the disruption marker. The stand-in
``kit/monotonic.c`` writes the commit when the core, which has copied the page already, reads CLOCK_MONOTONIC.
Prints how often Python was asked for the answer without and with the commit, and how that answer was.
"""

import ctypes
import os
import sys
import time
from typing import ClassVar

from vmclock_async import Clock, ClockDisruptedError, TimeInterval

_CONTROL, _MARKER = 8, 0x10  # offsets of the words with seq_count, in the upper half, and with the marker


class Counting(Clock):
    """A clock that counts the stamps which the core left to Python."""

    slow: ClassVar[int] = 0

    def _at_monotonic_slowly(self, ns: int, max_error_ns: int | None) -> TimeInterval:
        Counting.slow += 1
        return super()._at_monotonic_slowly(ns, max_error_ns)


path, marker = sys.argv[1:]
library = ctypes.CDLL(None)
fd = os.open(path, os.O_RDWR)
words = {offset: int.from_bytes(os.pread(fd, 8, offset), "little") for offset in (_CONTROL, _MARKER)}
words[_CONTROL] += 2 << 32
if marker == "moved":
    words[_MARKER] += 1
ctypes.c_int.in_dll(library, "file").value = fd
(ctypes.c_long * 4).in_dll(library, "offsets")[:2] = list(words)
(ctypes.c_ulonglong * 4).in_dll(library, "values")[:2] = list(words.values())
writes = ctypes.c_int.in_dll(library, "writes")

with Counting(path, fence=None) as clock:
    clock.now()
    stamp = time.monotonic_ns()
    clock.at_monotonic(stamp)
    without = Counting.slow
    writes.value = len(words)
    try:
        found = clock.at_monotonic(stamp)
    except ClockDisruptedError as exc:
        print(without, Counting.slow, "refused:", str(exc).split(":")[0])
    else:
        print(without, Counting.slow, "given" if found.error_ns < 10**9 else found)
    assert writes.value == 0, "no commit was played"
