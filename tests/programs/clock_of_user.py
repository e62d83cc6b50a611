"""Open a clock without a path: before there is a segment of this user, and after."""

from vmclock_async import Clock, SegmentError, SegmentWriter, VMClockBody
from vmclock_async._paths import user_path

try:
    Clock(fence=None)
except SegmentError as exc:
    print(exc)
with SegmentWriter(user_path()) as writer:
    writer.write(VMClockBody())
    with Clock(fence=None) as clock:
        print(clock.path == str(user_path()))
