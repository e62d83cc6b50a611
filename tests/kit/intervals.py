"""Any interval, and the ends of what one can hold."""

import datetime

from hypothesis import strategies as st

from vmclock_async import TimeInterval

LEAST, LARGEST = -(2**63), 2**63 - 1
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
NS = st.integers(LEAST, LARGEST) | st.sampled_from([LEAST, -1, 0, 1, LARGEST])


@st.composite
def intervals(draw: st.DrawFn, times: st.SearchStrategy[int] = NS) -> TimeInterval:
    """Any interval with ends out of *times*."""
    earliest, latest = sorted((draw(times), draw(times)))
    return TimeInterval(earliest, latest, draw(st.integers(0, 255)))


CLOSE = intervals(st.integers(0, 30))
"""Intervals that often overlap."""
