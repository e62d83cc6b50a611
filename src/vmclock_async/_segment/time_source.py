"""Where a segment's time comes from: the page has no field for it, so the publisher keeps it with the file.

A reader may want to know whether the time rests on this machine's own clock, CLOCK_REALTIME: whoever sets that clock
from such a time only moves both. The record is an extended attribute of the file, like that of the boot (``boot``).

There is no record if ClockBound's writer made the file, if its file system lacks such attributes (tmpfs before Linux
6.6), or while a writer has said nothing. A writer removes what an earlier one has left, and each change is recorded
in such an order that no time of another source is ever taken for that of the recorded one. One case is beyond it:
ClockBound's writer, which goes on in a file of ours, leaves the attribute in place.
"""

import os
from contextlib import suppress
from typing import Final, NamedTuple

__all__ = ("TimeSource", "record_time_source", "recorded_time_source")

_ATTRIBUTE: Final = "user.vmclock_async.time_source"
_KINDS: Final = {"system-clock": True, "independent": False, "unknown": None}


class TimeSource(NamedTuple):
    """The source of a segment's time."""

    name: str
    rests_on_system_clock: bool | None
    """Whether its time is made from CLOCK_REALTIME; None if the source does not say."""


def record_time_source(fd: int, source: TimeSource | None) -> None:
    """Record *source* at the file of *fd*; None removes the record."""
    with suppress(OSError):
        if source is None:
            os.removexattr(fd, _ATTRIBUTE)
        else:
            kind = next(kind for kind, rests in _KINDS.items() if rests is source.rests_on_system_clock)
            os.setxattr(fd, _ATTRIBUTE, f"{kind} {source.name}".encode(errors="replace"))


def recorded_time_source(fd: int) -> TimeSource | None:
    """The source that is recorded at the file of *fd*; None if there is none."""
    try:
        kind, _, name = os.getxattr(fd, _ATTRIBUTE).decode(errors="replace").partition(" ")
    except OSError:
        return None
    return TimeSource(name, _KINDS.get(kind))
