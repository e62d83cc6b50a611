"""Fork while another thread holds the lock of the incarnations."""

import os
import signal
import sys
import threading
import warnings

from vmclock_async import Clock, incarnation

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from 3.12 on
held, forked = threading.Event(), threading.Event()


def hold() -> None:
    with incarnation._lock:
        held.set()
        forked.wait()


with Clock(sys.argv[1], fence=None) as clock:
    before = clock.incarnation
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    if not (child := os.fork()):
        signal.alarm(10)
        os._exit(7 if clock.incarnation != before else 1)
    forked.set()
    thread.join()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
