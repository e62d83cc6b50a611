"""Fork a process with a clock, and compare the incarnations."""

import os
import sys

from vmclock_async import Clock

clock = Clock(sys.argv[1], fence=None)
clock.now()
mine = clock.incarnation
pid = os.fork()
if pid == 0:
    clock.now()
    print("child", clock.incarnation != mine, flush=True)
    clock.close()
    os._exit(0)
os.waitpid(pid, 0)
clock.now()
print("parent", clock.incarnation == mine)
