"""Open a writer of a segment that this user may not write."""

import json
import sys

import vmclock_async
from nobody import become_nobody
from vmclock_async import SegmentWriter

become_nobody()
try:
    SegmentWriter(sys.argv[1])
except vmclock_async.SegmentError as exc:
    print(json.dumps([type(exc).__name__, str(exc)]))
