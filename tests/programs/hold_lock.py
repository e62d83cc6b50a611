"""Hold the lock of a segment as nobody, until stdin ends."""

import fcntl
import os
import sys

from nobody import become_nobody

fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o666)
os.write(fd, b"1\n")
become_nobody()
fcntl.flock(fd, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
