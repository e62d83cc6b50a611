"""Ask for times where the kernel forbids reading the counter."""

import ctypes
import sys
from collections.abc import Callable

from vmclock_async import Clock, CounterNotSupportedError, SegmentReader, timebase

prctl, path = ctypes.CDLL(None).prctl, sys.argv[1]
said: list[str | None] = []
reader = SegmentReader(path)
ways: tuple[Callable[[], object], ...]
if sys.argv[2] == "later":
    reader.sample()
    ways = lambda: Clock(path), reader.sample
else:  # in a thread that never asked
    ways = timebase.counter_ticks, lambda: timebase.pair(1), lambda: Clock(path), reader.sample
# From here on nearly all of Python that asks for a time dies, and each lock does that.
assert not prctl(26, 2, 0, 0, 0)  # PR_SET_TSC, PR_TSC_SIGSEGV
for way in ways:
    try:
        way()
    except CounterNotSupportedError as exc:
        said.append(str(exc))
said.append(timebase.counter_unfit_because())
seq_count = reader.snapshot().seq_count
assert not prctl(26, 1, 0, 0, 0)
assert len(said) == len(ways) + 1
assert len(set(said)) == 1
assert seq_count == reader.seq_count
print(said[0])
Clock(path).close()
