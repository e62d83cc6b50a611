"""Take a segment 200 times, in competition with others, and count in it."""

import sys

from vmclock_async import SegmentWriter, VMClockBody
from vmclock_async.errors import SegmentInUseError

print("ready", flush=True)
sys.stdin.readline()
held = 0
while held < 200:
    try:
        writer = SegmentWriter(sys.argv[1])
    except SegmentInUseError:
        continue
    with writer:
        writer.write(VMClockBody(counter_value=writer.body.counter_value + 1))
    held += 1
print(held, flush=True)
