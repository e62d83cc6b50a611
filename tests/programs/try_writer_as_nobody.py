"""Open a writer as nobody, or print why not."""

import sys

from nobody import become_nobody
from vmclock_async import SegmentError, SegmentWriter

become_nobody()
try:
    SegmentWriter(sys.argv[1])
except SegmentError as exc:
    print(exc)
