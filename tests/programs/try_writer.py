"""Open a writer, or print why not."""

import sys

from vmclock_async import SegmentError, SegmentWriter

try:
    SegmentWriter(sys.argv[1])
except SegmentError as exc:
    print(exc)
