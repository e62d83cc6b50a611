"""Read a clock before and after the kernel takes the counter for its clocksource."""

import sys

from vmclock_async import Clock, CounterNotSupportedError

with Clock(sys.argv[1], fence=None) as clock:
    try:
        clock.now()
    except CounterNotSupportedError:
        print("refused")
    with open(sys.argv[2], "w") as clocksource:
        print("tsc", file=clocksource)
    clock.now()
    print("told")
