"""Print what a reader and a writer take the boot of a segment for."""

import os
import sys

from vmclock_async import SegmentReader, SegmentWriter, VMClockBody

with SegmentReader(sys.argv[1]) as reader:
    print(reader.of_this_boot)
with SegmentWriter(sys.argv[1], size=112) as writer:
    print(writer.cold)
    writer.write(VMClockBody(disruption_marker=6))
print(os.listxattr(sys.argv[1]))
