"""For the tests of programs that use this package, and of sources; needs no pytest.

``PlayedSegment`` and ``ManualClock`` are two stages for one play: a machine that is migrated or restored, and a
publisher that loses its time, dies or is stopped. The one plays it in files, for the real ``Clock`` in this process
and in others; the other in memory and in virtual time. ``RecordedClock`` plays a recording. ``check_source`` holds a
source to its promises.

With pytest, the fixture ``segment`` is a ``PlayedSegment``.
"""

from vmclock_async.testing._bodies import make_body
from vmclock_async.testing._checking import check_source
from vmclock_async.testing._manual import ManualClock
from vmclock_async.testing._played import PlayedMachine
from vmclock_async.testing._recorded import RecordedClock
from vmclock_async.testing._segment import PlayedSegment

__all__ = ("ManualClock", "PlayedMachine", "PlayedSegment", "RecordedClock", "check_source", "make_body")

for _name in __all__:
    globals()[_name].__module__ = __name__
