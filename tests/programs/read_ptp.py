"""Read a PTP clock, which is an hour ahead, and print in which way, and by how much it is ahead of CLOCK_REALTIME.

Arguments: sets of calls that are answered, one after the other; see ``ptp.c``.
"""

import json
import os
import sys
import time
from fractions import Fraction

from vmclock_async.timebase import Calibration, pair, ticks_between
from vmclock_ptp.machine import Machine
from vmclock_ptp.reading import read

calibration = Calibration()
descriptor = os.open("/dev/null", os.O_RDONLY)
for answered in sys.argv[1:]:
    os.environ["PTP_STAND_IN"] = answered
    before = pair(time.CLOCK_REALTIME)
    try:
        reading = read(Machine(), descriptor)
    except OSError as exc:
        print(json.dumps([type(exc).__name__, exc.errno]))
        continue
    ticks = ticks_between(before.counter_ticks, reading.pairing.counter_ticks)
    rate = calibration.rate()
    ahead_ns = reading.pairing.clock_ns - before.clock_ns - ticks * rate.ns_per_tick
    allowed_ns = (reading.pairing.window_ticks + before.window_ticks) * rate.ns_per_tick / 2
    allowed_ns += ticks * (rate.error + rate.ns_per_tick * Fraction(500, 10**6))  # CLOCK_REALTIME may be slewed
    print(json.dumps([reading.way, float(ahead_ns), float(allowed_ns)]))
