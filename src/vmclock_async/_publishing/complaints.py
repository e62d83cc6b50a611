"""Complaints: a fault that repeats is logged at once, then in one line a minute with a count, and when it ends.

A source that contradicts the published time may do so with each update, once a second or faster. A line for each would
bury the rest of the log.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, final, get_args

__all__ = ("ComplaintKind", "Complaints")

ComplaintKind = Literal["contradiction", "time in other constants", "time of no use", "time that cannot be true"]

EVERY_S: Final = 60.0


@final
@dataclass(slots=True)
class _Complaint:
    """One fault that repeats."""

    text: Callable[[], str]
    """Gives the words for its last occurrence."""
    said_at: float
    unsaid: int = 0
    """Number of occurrences since the last line."""
    seen: int = 1


@final
class Complaints:
    """Warnings in *log*, each at most once a minute.

    Args:
        log: the logger to which they are written.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, log: logging.Logger, *, now: Callable[[], float] = time.monotonic) -> None:
        self._log: Final = log
        self._now: Final = now
        self._open: Final[dict[tuple[str, ComplaintKind], _Complaint]] = {}
        self._counts: Final[dict[tuple[str, ComplaintKind], int]] = {}

    def counts(self, source: str) -> dict[ComplaintKind, int]:
        """Number of faults of each kind that *source* had so far."""
        return {kind: self._counts.get((source, kind), 0) for kind in get_args(ComplaintKind)}

    def add(self, source: str, kind: ComplaintKind, text: Callable[[], str]) -> None:
        """Note that *source* had a fault of this *kind* once more; *text* describes it, if a line is written."""
        self._counts[source, kind] = self._counts.get((source, kind), 0) + 1
        complaint = self._open.get((source, kind))
        if complaint is None:
            self._open[source, kind] = _Complaint(text, self._now())
            self._log.warning("%s %s", source, text())
        else:
            complaint.text = text
            complaint.unsaid += 1
            complaint.seen += 1

    def say_what_is_due(self) -> None:
        """Write the lines that have become due; to be called once a second or more often."""
        if not self._open:
            return
        now = self._now()
        for (source, kind), complaint in list(self._open.items()):
            passed_s = now - complaint.said_at
            if passed_s < EVERY_S:
                continue
            if complaint.unsaid:
                self._log.warning(
                    "%s %s (%d times in %.0f s; this is the last)",
                    source,
                    complaint.text(),
                    complaint.unsaid,
                    passed_s,
                )
                complaint.said_at, complaint.unsaid = now, 0
            else:
                self._log.info(
                    "%s: no %s for %.0f s; there were %d in all", source, kind, passed_s, complaint.seen
                )
                del self._open[source, kind]
