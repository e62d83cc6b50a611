"""Every error that this package raises on purpose.

Branches follow what the caller can do: repair the file (``SegmentError``, ``RecordingError``), repair or retry
a source (``SourceError``), wait for better time (``ClockError``). Each message says what was seen, then the
remedy. ``args`` mirror the constructor, so that every error pickles.

A `reason` is one text, because people read it as one: what was seen, a semicolon, the remedy. Programs get the two
parts as `seen` and `remedy`. If a reason has no remedy, the class has one, because the classes of this tree follow what
the caller can do.
"""

import os
from typing import ClassVar, final

__all__ = (
    "ClockDisruptedError",
    "ClockError",
    "ClockNotSynchronizedError",
    "ClockStaleError",
    "ClockUnboundedError",
    "CounterNotSupportedError",
    "DisruptionRefusedError",
    "InvalidUpdateError",
    "LeaseLostError",
    "MetricsAddressError",
    "NobodyListensError",
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
    "SystemClockError",
    "UnknownSourceError",
    "VMClockError",
)


class VMClockError(Exception):
    """Base of every error this package raises on purpose; `reason` says what was seen, and then the remedy."""

    _remedy: ClassVar[str] = ""
    """The remedy if the reason has none."""
    reason: str

    @property
    def seen(self) -> str:
        """The part of `reason` that says what was seen."""
        return self._parts()[0]

    @property
    def remedy(self) -> str:
        """What to do: the text of `reason` after its last semicolon, else the remedy for this class of error."""
        return self._parts()[1]

    def _parts(self) -> tuple[str, str]:
        reason = str(getattr(self, "reason", self))  # a stranger's subclass may have any reason, or none
        seen, _, remedy = reason.rpartition("; ")
        if seen and remedy.count("(") == remedy.count(")"):  # otherwise the semicolon is inside parentheses
            return seen, remedy
        return reason, self._remedy


class SegmentError(VMClockError):
    """The segment at `path` cannot be used, for `reason`."""

    _remedy = "check the path and who may read it"

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(path, reason)
        self.path = os.fspath(path)
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@final
class SegmentNotInitializedError(SegmentError):
    """Nothing has been committed there yet: there is no file, an empty one, or version 0."""

    _remedy = "start a publisher, or wait for it"


@final
class SegmentMalformedError(SegmentError):
    """What is there is not a VMClock segment."""

    _remedy = "check the path, or let a publisher write a segment there"


@final
class SegmentVersionNotSupportedError(SegmentError):
    """The segment has a version other than 1."""

    _remedy = "read it with a newer version of vmclock-async"


@final
class SegmentInUseError(SegmentError):
    """Another live writer holds the segment."""

    _remedy = "stop the other writer, or choose another path"


@final
class NobodyListensError(SegmentError):
    """No publisher listens for reports of a disruption at `path`, at this moment."""

    _remedy = "start the publisher with the source told, as publish auto does"


@final
class DisruptionRefusedError(SegmentError):
    """The publisher that listens at `path` did not commit a reported disruption."""

    _remedy = "see the publisher's log"


@final
class SegmentUnstableError(SegmentError):
    """No whole copy could be read in time; `seq_count` is the number last seen."""

    _remedy = "try again, or start its writer again"

    def __init__(self, path: str | os.PathLike[str], reason: str, seq_count: int) -> None:
        super().__init__(path, reason)
        self.args = (path, reason, seq_count)
        self.seq_count = seq_count


class SourceError(VMClockError):
    """The source named `source` cannot deliver updates, for `reason`."""

    _remedy = "name another source, or repair this one"

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source = source
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


@final
class SourceUnavailableError(SourceError):
    """The source is absent for now; the publisher tries it again."""

    _remedy = "start what the source asks, or wait for it"


@final
class InvalidUpdateError(SourceError):
    """The source sent an update that fails validation; it is not tried again."""

    _remedy = "repair the source, or what it asks"


@final
class SourceSettingsError(SourceError):
    """The source does not take these settings."""

    _remedy = "correct the option; the command sources lists all"


@final
class UnknownSourceError(SourceError):
    """No installed distribution offers a source of this name."""

    _remedy = "install the source, or name another"


class ClockError(VMClockError):
    """There is no bounded time now, for `reason`."""

    _remedy = "wait for a new commit"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@final
class ClockNotSynchronizedError(ClockError):
    """clock_status is neither SYNCHRONIZED nor FREERUNNING."""


@final
class ClockUnboundedError(ClockError):
    """The segment gives a time without a bound on its error."""

    _remedy = "use a source that bounds its time"


@final
class ClockStaleError(ClockError):
    """The segment's reference is too old to be carried forward."""

    _remedy = "start the publisher again"


@final
class ClockDisruptedError(ClockError):
    """The counter no longer continues the one that the segment describes."""


@final
class CounterNotSupportedError(ClockError):
    """The counter cannot be used: it is another machine's, the kernel does not trust it, or it may not be read."""

    _remedy = "use a source that gives the time in this machine's counter"


@final
class LeaseLostError(ClockError):
    """The lease is over, for `reason`: it expired, or its measure is no longer reliable."""

    _remedy = "stop what the lease allowed, and acquire another"


@final
class SystemClockError(VMClockError):
    """CLOCK_REALTIME was not set, for `reason`: it must not be, or this process may not do it."""

    _remedy = "set it by other means"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@final
class MetricsAddressError(VMClockError):
    """Nothing can listen for scrapes of the metrics at an address, for `reason`."""

    _remedy = "choose another address"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@final
class RecordingError(VMClockError):
    """The recording at `path` cannot be used, for `reason`; `line` counts from 1, 0 means the file itself."""

    _remedy = "check the path, or correct the file"

    def __init__(self, path: str | os.PathLike[str], line: int, reason: str) -> None:
        super().__init__(path, line, reason)
        self.path = os.fspath(path)
        self.line = line
        self.reason = reason

    def __str__(self) -> str:
        where = f"{self.path}, line {self.line}" if self.line else self.path
        return f"{where}: {self.reason}"
