"""Open a writer with one to three free descriptors."""

import os
import resource
import sys

from vmclock_async import SegmentError, SegmentWriter

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
first = os.open("/dev/null", os.O_RDONLY)
for spare in range(1, 4):
    resource.setrlimit(resource.RLIMIT_NOFILE, (first + spare, hard))
    try:
        SegmentWriter(sys.argv[1]).close()
    except SegmentError as exc:
        print(exc)
    else:
        print("opened with", spare)
