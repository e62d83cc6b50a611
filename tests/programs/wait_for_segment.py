"""Return once there is a segment to read."""

import sys
import time

from vmclock_async import SegmentError, SegmentReader

while True:
    try:
        SegmentReader(sys.argv[1]).snapshot()
        break
    except SegmentError:
        time.sleep(0.02)
