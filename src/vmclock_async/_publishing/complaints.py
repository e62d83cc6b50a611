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

    text: Callable[[], str] = str
    """Gives the words for its last occurrence."""
    said_at: float = 0.0
    unsaid: int = 0
    """Number of occurrences since the last line."""
    seen: int = 0
    """Number of occurrences since it began; 0: it has ended."""
    seen_before: int = 0
    """Number of occurrences of earlier times, which have ended."""


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
        self._complaints: Final[dict[tuple[str, ComplaintKind], _Complaint]] = {}

    def counts(self, source: str) -> dict[ComplaintKind, int]:
        """Number of faults of each kind that *source* had so far."""
        return {kind: self._count(source, kind) for kind in get_args(ComplaintKind)}

    def _count(self, source: str, kind: ComplaintKind) -> int:
        complaint = self._complaints.get((source, kind))
        return complaint.seen_before + complaint.seen if complaint else 0

    def add(self, source: str, kind: ComplaintKind, text: Callable[[], str]) -> None:
        """Note that *source* had a fault of this *kind* once more; *text* describes it, if a line is written."""
        complaint = self._complaints.get((source, kind))
        if complaint is None:
            complaint = self._complaints[source, kind] = _Complaint()
        complaint.text = text
        complaint.seen += 1
        if complaint.seen > 1:
            complaint.unsaid += 1
        else:
            complaint.said_at = self._now()
            self._log.warning("%s %s", source, text())

    def say_what_is_due(self) -> None:
        """Write the lines that have become due; to be called once a second or more often."""
        now = self._now()
        for (source, kind), complaint in self._complaints.items():
            passed_s = now - complaint.said_at
            if not complaint.seen or passed_s < EVERY_S:
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
                complaint.seen_before += complaint.seen
                complaint.seen = 0
