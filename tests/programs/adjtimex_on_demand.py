"""Print the kernel's clock state for each line on stdin."""

import json
import sys

from vmclock_async.timebase import adjtimex

for _ in sys.stdin:
    print(json.dumps(adjtimex()._asdict()), flush=True)
