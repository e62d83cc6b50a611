"""Commit to a segment as nobody."""

import sys

from nobody import become_nobody
from vmclock_async import SegmentWriter, VMClockBody

become_nobody()
with SegmentWriter(sys.argv[1]) as writer:
    print(writer.write(VMClockBody(disruption_marker=1)))
