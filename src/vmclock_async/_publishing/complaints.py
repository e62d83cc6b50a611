"""Log lines that repeat: the first at once, then one a minute with a count, and one when it is over.

A source that contradicts the published time may do so with each update, once a second or faster; a daemon may come and
go as often; and anybody may send a source what is no report. A line for each would bury the rest of the log. This is
the only place where a publisher's lines are limited; sources write theirs as usual, see ``source_lines``.
"""

import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, final, get_args

__all__ = ("CHANGES_AT_ONCE", "EVERY_S", "ComplaintKind", "Complaints", "without_numbers")

ComplaintKind = Literal["contradiction", "time in other constants", "time of no use", "time that cannot be true"]

EVERY_S: Final = 60.0
CHANGES_AT_ONCE: Final = 10
"""Number of changes of one thing, such as the source of the time, that have a line at once within a minute."""
_NUMBER: Final = re.compile("[0-9]+")


def without_numbers(text: str) -> str:
    """*text* as the kind of a line: about another process, or after another time, it is no other line."""
    return _NUMBER.sub("N", text)


@final
@dataclass(slots=True)
class _Repeated:
    """One line that repeats."""

    text: Callable[[], str]
    """Gives the words for its last occurrence."""
    said_at: float
    left: int
    """Number of times that it may be written at once before the minute is over."""
    level: int
    fields: dict[str, str]
    """Further fields of the record."""
    is_fault: bool
    """Whether the log says that it is over, even if each occurrence had a line."""
    prefix: str = ""
    """Comes before the words."""
    unsaid: int = 0
    """Number of occurrences since the last line."""
    seen: int = 1
    was_held_back: bool = False

    def hold_back(self, text: Callable[[], str]) -> None:
        """Count an occurrence, which *text* describes and which has no line of its own."""
        self.text = text
        self.seen += 1
        self.unsaid += 1
        self.was_held_back = True


@final
class Complaints:
    """Lines in *log*, each at most once a minute once it repeats.

    Any thread may add one, and then a count may be off by one. They are said by the thread that calls
    ``say_what_is_due``.

    Args:
        log: the logger to which they are written.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, log: logging.Logger, *, now: Callable[[], float] = time.monotonic) -> None:
        self._log: Final = log
        self._now: Final = now
        self._open: Final[dict[tuple[str, str], _Repeated]] = {}
        self._counts: Final[dict[tuple[str, ComplaintKind], int]] = {}

    def counts(self, source: str) -> dict[ComplaintKind, int]:
        """Number of faults of each kind that *source* had so far."""
        return {kind: self._counts.get((source, kind), 0) for kind in get_args(ComplaintKind)}

    def add(self, source: str, kind: ComplaintKind, text: Callable[[], str]) -> None:
        """Note that *source* had a fault of this *kind* once more; *text* describes it, if a line is written."""
        key = source, kind
        self._counts[key] = self._counts.get(key, 0) + 1
        repeated = self._open.get(key)
        if repeated is not None:  # holds_back() would do the same, and a source may be at fault in each update
            repeated.hold_back(text)
            return
        fields = {"source": source}
        self._open[key] = _Repeated(
            text, self._now(), 0, logging.WARNING, fields, is_fault=True, prefix=f"{source} "
        )
        self._log.warning("%s %s", source, text(), extra=fields)

    def say(
        self,
        about: str,
        kind: str,
        text: str,
        *,
        source: str | None = None,
        level: int = logging.INFO,
        at_once: int = CHANGES_AT_ONCE,
    ) -> bool:
        """Write *text*, unless lines of its *kind* have been written; see ``holds_back``. Returns whether it did."""
        if self.holds_back(about, kind, lambda: text, source=source, level=level, at_once=at_once):
            return False
        self._log.log(level, "%s", text, extra={} if source is None else {"source": source})
        return True

    def holds_back(
        self,
        about: str,
        kind: str,
        text: Callable[[], str],
        *,
        source: str | None = None,
        level: int = logging.WARNING,
        at_once: int = 1,
    ) -> bool:
        """Whether a line must not be written now, because lines of its *kind* *about* something have been.

        If so, it is counted, and the line that becomes due has the *text* of the last one.

        Args:
            about: what has or does it; the last line, which says that it is over, begins with this.
            kind: what repeats, for "no ... for 60 s".
            text: gives the words of the whole line.
            source: the source, if it is one's line.
            level: the level of the line.
            at_once: the number of lines that may be written at once in a minute.
        """
        repeated = self._open.get((about, kind))
        if repeated is None:
            fields = {} if source is None else {"source": source}
            self._open[about, kind] = _Repeated(text, self._now(), at_once - 1, level, fields, is_fault=False)
            return False
        if repeated.left:
            repeated.text = text
            repeated.seen += 1
            repeated.left -= 1
            return False
        repeated.hold_back(text)
        return True

    def say_what_is_due(self, *, at_the_end: bool = False) -> None:
        """Write the lines that have become due; to be called once a second or more often.

        With *at_the_end*, all that were held back are due.
        """
        if not self._open:
            return
        now = self._now()
        for (about, kind), repeated in list(self._open.items()):
            passed_s = now - repeated.said_at
            if passed_s < EVERY_S and not (at_the_end and repeated.unsaid):
                continue
            if repeated.unsaid:
                self._log.log(
                    repeated.level,
                    "%s%s (%d times in %.0f s; this is the last)",
                    repeated.prefix,
                    repeated.text(),
                    repeated.unsaid,
                    passed_s,
                    extra=repeated.fields,
                )
                repeated.said_at, repeated.unsaid, repeated.left = now, 0, 0
            else:
                if repeated.is_fault or repeated.was_held_back:
                    self._log.info(
                        "%s: no %s for %.0f s; there were %d in all",
                        about,
                        kind,
                        passed_s,
                        repeated.seen,
                        extra=repeated.fields,
                    )
                self._open.pop((about, kind), None)
