"""Close a writer while another thread is closing it."""

import sys
import threading

from vmclock_async import SegmentInUseError, SegmentWriter

writer = SegmentWriter(sys.argv[1])
removing, go_on = threading.Event(), threading.Event()


def hold(event: str, arguments: object) -> None:
    if event == "os.remove" and threading.current_thread() is first:
        removing.set()
        go_on.wait()


first = threading.Thread(target=writer.close)
sys.addaudithook(hold)
first.start()
removing.wait()
writer.close()
try:
    SegmentWriter(sys.argv[1])
except SegmentInUseError:
    pass
else:
    raise AssertionError("two writers")
go_on.set()
first.join()
SegmentWriter(sys.argv[1]).close()
