"""Publish the marker of a device, until the parent ends."""

import os
import sys
import time

from kit.told_world import body_at
from vmclock_async import SegmentReader, SegmentWriter, _core

segment, page = sys.argv[1:]
with SegmentReader(page) as device, SegmentWriter(segment, size=112) as writer:
    print("ready", flush=True)
    while os.getppid() != 1:
        writer.write(
            body_at(_core.counter(), disruption_marker=device.disruption_marker), counter_id=_core.COUNTER_ID
        )
        time.sleep(0.0005)
