"""Write to a ClockBound segment in the child of a fork, and then in the parent; print what each gets."""

import os
import sys

from vmclock_async.clockbound import ErrorBoundWriter, read_error_bound
from vmclock_async.errors import SegmentError

path = sys.argv[1]
bound = read_error_bound(path)
with ErrorBoundWriter(path) as writer:
    if not os.fork():
        try:
            print(writer.write(bound), flush=True)
        except SegmentError as exc:
            print(exc.reason, flush=True)
        os._exit(0)
    os.wait()
    print(writer.write(bound))
