"""Every error that this package raises on purpose.

Branches follow what the caller can do: repair the file (``SegmentError``, ``RecordingError``), repair or retry
a source (``SourceError``), wait for better time (``ClockError``). Each message says what was seen, then the
remedy. ``args`` mirror the constructor, so that every error pickles.
"""

import os
from typing import final

__all__ = (
    "ClockDisruptedError",
    "ClockError",
    "ClockNotSynchronizedError",
    "ClockStaleError",
    "ClockUnboundedError",
    "CounterNotSupportedError",
    "InvalidUpdateError",
    "LeaseLostError",
    "RecordingError",
    "SegmentError",
    "SegmentInUseError",
    "SegmentMalformedError",
    "SegmentNotInitializedError",
    "SegmentUnstableError",
    "SegmentVersionNotSupportedError",
    "SourceError",
    "SourceSettingsError",
    "SourceUnavailableError",
    "UnknownSourceError",
    "VMClockError",
)


class VMClockError(Exception):
    """Base of every error this package raises on purpose."""

    __module__ = "vmclock_async"


class SegmentError(VMClockError):
    """The segment at `path` cannot be used, for `reason`."""

    __module__ = "vmclock_async"

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(path, reason)
        self.path = os.fspath(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@final
class SegmentNotInitializedError(SegmentError):
    """Nothing has been committed there yet: no file, an empty one, or version 0."""

    __module__ = "vmclock_async"


@final
class SegmentMalformedError(SegmentError):
    """What is there is not a VMClock segment."""

    __module__ = "vmclock_async"


@final
class SegmentVersionNotSupportedError(SegmentError):
    """The segment has a version other than 1."""

    __module__ = "vmclock_async"


@final
class SegmentInUseError(SegmentError):
    """Another live writer holds the segment."""

    __module__ = "vmclock_async"


@final
class SegmentUnstableError(SegmentError):
    """No whole copy could be read in time; `seq_count` is the number last seen."""

    __module__ = "vmclock_async"

    def __init__(self, path: str | os.PathLike[str], reason: str, seq_count: int) -> None:
        super().__init__(path, reason)
        self.args = (path, reason, seq_count)
        self.seq_count = seq_count


class SourceError(VMClockError):
    """The source named `source` cannot deliver updates, for `reason`."""

    __module__ = "vmclock_async"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


@final
class SourceUnavailableError(SourceError):
    """The source is absent for now; the publisher tries it again."""

    __module__ = "vmclock_async"


@final
class InvalidUpdateError(SourceError):
    """The source sent an update that fails validation; it is not tried again."""

    __module__ = "vmclock_async"


@final
class SourceSettingsError(SourceError):
    """The source does not take these settings."""

    __module__ = "vmclock_async"


@final
class UnknownSourceError(SourceError):
    """No installed distribution offers a source of this name."""

    __module__ = "vmclock_async"


class ClockError(VMClockError):
    """There is no bounded time now, for `reason`."""

    __module__ = "vmclock_async"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@final
class ClockNotSynchronizedError(ClockError):
    """clock_status is neither SYNCHRONIZED nor FREERUNNING."""

    __module__ = "vmclock_async"


@final
class ClockUnboundedError(ClockError):
    """The segment gives a time without a bound on its error."""

    __module__ = "vmclock_async"


@final
class ClockStaleError(ClockError):
    """The segment's reference is too old to be carried forward."""

    __module__ = "vmclock_async"


@final
class ClockDisruptedError(ClockError):
    """The counter no longer continues the one that the segment describes."""

    __module__ = "vmclock_async"


@final
class CounterNotSupportedError(ClockError):
    """The segment counts with a counter that this machine does not have."""

    __module__ = "vmclock_async"


@final
class LeaseLostError(ClockError):
    """The lease is over, for `reason`: it expired, or what it was measured by is not to be relied on any more."""

    __module__ = "vmclock_async"


@final
class RecordingError(VMClockError):
    """The recording at `path` cannot be used, for `reason`; `line` counts from 1, 0 means the file itself."""

    __module__ = "vmclock_async"

    def __init__(self, path: str | os.PathLike[str], line: int, reason: str) -> None:
        super().__init__(path, line, reason)
        self.path = os.fspath(path)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        where = f"{self.path}, line {self.line}" if self.line else self.path
        return f"{where}: {self.reason}"
