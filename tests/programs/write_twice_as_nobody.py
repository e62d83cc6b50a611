"""Open a writer as nobody, twice."""

import sys

from nobody import become_nobody
from vmclock_async import SegmentWriter, VMClockBody

become_nobody()
path = sys.argv[1]
with SegmentWriter(path) as writer:
    writer.write(VMClockBody(disruption_marker=1))
with SegmentWriter(path) as writer:
    print(writer.write(VMClockBody(disruption_marker=2)))
