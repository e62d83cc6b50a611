"""Tools for tests of programs that use this package, and of sources; they need no pytest.

``PlayedSegment`` and ``ManualClock`` are two stages for one play: a machine that is migrated or restored, and a
publisher that loses its time, dies or is stopped. ``PlayedSegment`` plays it in files, for the real ``Clock`` in this
process and in others; ``ManualClock`` plays it in memory and in virtual time. ``RecordedClock`` plays a recording.
``check_source`` tests the promises of a source, and ``Heard`` keeps what one says.

With pytest, the fixture ``segment`` is a ``PlayedSegment``.
"""

from vmclock_async.testing._bodies import make_body
from vmclock_async.testing._checking import check_source
from vmclock_async.testing._heard import Heard
from vmclock_async.testing._manual import ManualClock
from vmclock_async.testing._played import PlayedMachine
from vmclock_async.testing._recorded import RecordedClock
from vmclock_async.testing._segment import PlayedSegment

__all__ = ("Heard", "ManualClock", "PlayedMachine", "PlayedSegment", "RecordedClock", "check_source", "make_body")

for _name in __all__:
    globals()[_name].__module__ = __name__
