"""Commit a marker for each line on stdin."""

import sys

from vmclock_async import SegmentWriter, VMClockBody

with SegmentWriter(sys.argv[1]) as writer:
    print("open", flush=True)
    for line in sys.stdin:
        print(writer.write(VMClockBody(disruption_marker=int(line))), flush=True)
