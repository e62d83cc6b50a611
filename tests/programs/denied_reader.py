"""Open a reader of a segment that this user may not read."""

import json
import sys

import vmclock_async
from nobody import become_nobody
from vmclock_async import SegmentReader

become_nobody()
try:
    SegmentReader(sys.argv[1])
except vmclock_async.SegmentError as exc:
    print(json.dumps([type(exc).__name__, str(exc)]))
