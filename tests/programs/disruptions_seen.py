"""Read a segment as fast as possible, and print each body that differs from the one before, until stdin is closed."""

import json
import select
import sys

from vmclock_async import SegmentReader

seen, last = [], None
with SegmentReader(sys.argv[1]) as reader:
    while not select.select([sys.stdin], [], [], 0)[0]:
        snapshot = reader.snapshot()
        if snapshot.seq_count != last:
            body = snapshot.body
            seen.append([body.disruption_marker, int(body.clock_status), int(body.flags), body.counter_value])
            if last is None:
                print("ready", flush=True)
            last = snapshot.seq_count
print(json.dumps(seen))
