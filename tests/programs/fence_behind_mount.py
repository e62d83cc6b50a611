"""Read a clock whose fence is at a bind mount, close the mount, and read it again; then the device is disrupted.

Arguments: the paths of the segment, of the mount, and of the device's page outside of the mount.
"""

import os
import subprocess
import sys

from vmclock_async import Clock, ClockDisruptedError

segment, mounted, device = sys.argv[1:]
with Clock(segment, fence=mounted) as clock:
    subprocess.run(["umount", "--lazy", mounted], check=True)
    assert os.path.getsize(mounted) == 0, "the mount is still there"
    clock.now()
    print("told")
    with open(device, "r+b", buffering=0) as page:
        os.pwrite(page.fileno(), (2).to_bytes(8, "little"), 0x10)
    try:
        clock.now()
    except ClockDisruptedError as exc:
        print("refused:", str(exc).split(",")[0])
