"""Commit bounds to the ClockBound segment at a path, each with one number in all fields, until killed.

Between two commits is time enough for a reader, and of changing length, so that it meets each moment of a commit.
"""

import os
import sys

from vmclock_async import _core
from vmclock_async.clockbound import ErrorBound, ErrorBoundStatus, Layout
from vmclock_async.clockbound._layout import pack

page = _core.Page(os.open(sys.argv[1], os.O_RDWR), writable=True)
commits = [
    pack(
        Layout.V2,
        ErrorBound(
            as_of_ns=n * 10**9 + n,
            void_after_ns=n * 10**9 + n,
            bound_ns=n,
            max_drift_ppb=n,
            status=ErrorBoundStatus.SYNCHRONIZED,
            disruption_marker=n,
        ),
    )
    for n in range(1, 1000)
]
print("ready", flush=True)
while True:
    for number, contents in enumerate(commits):
        _core.clockbound_commit(page, contents)
        for _ in range(number % 300):
            pass
