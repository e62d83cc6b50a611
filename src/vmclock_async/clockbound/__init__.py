"""ClockBound's own segments, which say how far CLOCK_REALTIME may be off: read, written, and kept by a clock.

* ``read_error_bound`` reads what a segment says; the source ``clockbound`` publishes that.
* ``ErrorBoundFollower`` keeps segments by a ``Clock``, so that ClockBound's clients, in C, Rust and other languages,
  read its time unchanged; on the command line ``vmclock-async follow``.
* ``ErrorBoundWriter`` writes any bound, for tests of such clients.

Layout 3 is experimental, because the meaning of some of its fields is inferred.
"""

from vmclock_async.clockbound._following import ErrorBoundFollower, Followed
from vmclock_async.clockbound._layout import ErrorBound, ErrorBoundStatus, Layout
from vmclock_async.clockbound._reading import read_error_bound
from vmclock_async.clockbound._writing import ErrorBoundWriter

__all__ = (
    "ErrorBound",
    "ErrorBoundFollower",
    "ErrorBoundStatus",
    "ErrorBoundWriter",
    "Followed",
    "Layout",
    "read_error_bound",
)

for _name in __all__:
    globals()[_name].__module__ = __name__
