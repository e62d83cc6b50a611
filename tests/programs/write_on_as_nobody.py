"""Open a writer, become nobody, and commit on."""

import sys

from nobody import become_nobody
from vmclock_async import SegmentWriter, VMClockBody

writer = SegmentWriter(sys.argv[1])
become_nobody()
for number in range(1, 6):
    writer.write(VMClockBody(counter_value=number))
writer.close()
