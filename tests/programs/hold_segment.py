"""Hold a segment, until stdin ends."""

import sys

from vmclock_async import SegmentWriter, VMClockBody

writer = SegmentWriter(sys.argv[1])
print(writer.write(VMClockBody(disruption_marker=77)), flush=True)
sys.stdin.read()
