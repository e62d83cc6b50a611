"""Open a clock whose fence is the machine's device, if there is one, and read it."""

import logging
import sys

from vmclock_async import Clock, ClockDisruptedError

logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
with Clock(sys.argv[1]) as clock:
    try:
        clock.now()
        print(clock.fenced, "told")
    except ClockDisruptedError:
        print(clock.fenced, "refused")
