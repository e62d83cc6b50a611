"""Fork a process with a writer, and print what the child may do with it."""

import json
import os
import sys

from vmclock_async import SegmentWriter, VMClockBody
from vmclock_async.errors import SegmentError

path = sys.argv[1]
writer = SegmentWriter(path)
writer.write(VMClockBody(disruption_marker=1))
results, answer = os.pipe()
pid = os.fork()
if pid == 0:
    found = {}
    for name, use in (
        ("write", lambda: writer.write(VMClockBody())),
        ("seq_count", lambda: writer.seq_count),
        ("open", lambda: SegmentWriter(path)),
    ):
        try:
            use()
        except SegmentError as exc:
            found[name] = [type(exc).__name__, str(exc)]
    writer.close()
    os.write(answer, json.dumps(found).encode())
    os._exit(0)
os.close(answer)
found = json.loads(os.read(results, 4096))
os.waitpid(pid, 0)
lock_is_there = os.path.exists(path + ".lock")
print(json.dumps([os.getpid(), found, lock_is_there, writer.write(VMClockBody(disruption_marker=2))]))
