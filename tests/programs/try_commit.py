"""Commit to a segment, or print why not."""

import sys

from vmclock_async import SegmentError, SegmentWriter, VMClockBody

try:
    with SegmentWriter(sys.argv[1]) as writer:
        writer.write(VMClockBody())
except SegmentError as error:
    print(error)
