"""What goes wrong again and again, in the log: at once, then one line a minute with a count, and its end.

A source that contradicts what was published may do so with each update, once a second or faster. A line for each would
bury what else the log has to say.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

__all__ = ("Complaints",)

EVERY_S: Final = 60.0


@final
@dataclass(slots=True)
class _Complaint:
    """One thing that goes wrong."""

    text: Callable[[], str]
    """Gives the last that was to be said of it."""
    said_at: float
    unsaid: int = 0
    """How often it came since the last line."""
    seen: int = 1


@final
class Complaints:
    """Warnings in *log*, each at most once a minute.

    Args:
        log: where they are written.
        now: a clock that goes on, in seconds.
    """

    def __init__(self, log: logging.Logger, *, now: Callable[[], float] = time.monotonic) -> None:
        self._log: Final = log
        self._now: Final = now
        self._open: Final[dict[tuple[str, str], _Complaint]] = {}

    def add(self, source: str, kind: str, text: Callable[[], str]) -> None:
        """Of *source*, something of this *kind* went wrong once more: *text* says what, if it is to be written."""
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
