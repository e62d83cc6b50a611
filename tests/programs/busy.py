"""Keep a processor busy for as many seconds as the argument says, or until the parent ends."""

import os
import sys
import time

parent, end = os.getppid(), time.monotonic() + float(sys.argv[1])
while os.getppid() == parent and time.monotonic() < end:
    sum(range(100_000))
