"""Open a clock, or a writer, in a directory that another user made in this user's name."""

import os
import sys

import nobody  # noqa: F401  loads what is needed while it may be read
from vmclock_async import Clock, SegmentError, SegmentWriter
from vmclock_async._paths import user_path

user, how = int(sys.argv[1]), sys.argv[2]
os.setgroups([])
os.setgid(user)
os.setuid(user)
os.environ.pop("XDG_RUNTIME_DIR", None)
os.environ.pop("VMCLOCK_ASYNC_SEGMENT", None)
try:
    Clock() if how == "Clock" else SegmentWriter(user_path())
except SegmentError as exc:
    print(exc)
