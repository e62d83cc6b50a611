"""Commit each disruption to a segment right after the device has it, as fast as possible."""

import os
import sys

from kit.told_world import body_at
from vmclock_async import SegmentWriter, _core

segment, device = sys.argv[1:]
fd, parent = os.open(device, os.O_RDWR), os.getppid()
body = body_at(_core.counter())
with SegmentWriter(segment, size=112) as writer:
    marker = 1
    while os.getppid() == parent:
        marker += 1
        os.pwrite(fd, marker.to_bytes(8, "little"), 0x10)
        packed = body.model_copy(update={"disruption_marker": marker}).pack().ljust(96, b"\0")
        writer._page.commit(packed, None, None)
