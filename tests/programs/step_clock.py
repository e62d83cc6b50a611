"""Step CLOCK_REALTIME from a segment that the caller calls independent, and print the result or the error."""

import sys

from vmclock_async import Clock, VMClockError
from vmclock_async.restore import step_system_clock

with Clock(sys.argv[1], fence=None) as clock:
    try:
        print(step_system_clock(clock, beside_daemon=True, independent=True))
    except VMClockError as exc:
        print(repr(exc))
