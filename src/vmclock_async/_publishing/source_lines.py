"""Log lines that sources write while they run: with the name of the source, and none that repeats without limit.

A source logs as any module does, and knows nothing of this. A filter on the loggers of its package holds back a line
that repeats, by the rule of ``Complaints``: one line has one format, whatever is filled in, because a stranger may
choose what is. A record that is not of a source of this run, or that a source writes to another logger, passes; so does
one of a logger that was made after the run began.
"""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Final, final

from vmclock_async._publishing.complaints import CHANGES_AT_ONCE, Complaints, without_numbers
from vmclock_async._publishing.loop_watch import SOURCE, package_of
from vmclock_async._wording import logged_message
from vmclock_async.sources import Source

__all__ = ("RUN", "limited")

RUN: Final[ContextVar[Complaints | None]] = ContextVar("RUN", default=None)
"""Where the source that runs in this context has its lines limited."""
_OWN: Final = "vmclock_async"
_PUBLISHER: Final = "vmclock_async.publisher"
"""Its lines are limited where they are written."""


@final
class _Limit(logging.Filter):
    """Holds back lines of the sources whose lines *complaints* limits."""

    def __init__(self, complaints: Complaints) -> None:
        super().__init__()
        self._complaints: Final = complaints

    def filter(self, record: logging.LogRecord) -> bool:
        source = SOURCE.get()
        if source is None or RUN.get() is not self._complaints or record.name == _PUBLISHER:
            return True
        record.__dict__.setdefault("source", source)
        return not self._complaints.holds_back(
            source,
            f"line like {_form_of(record)!r}",
            partial(logged_message, record),
            source=source,
            level=record.levelno,
            at_once=1 if record.levelno >= logging.WARNING else CHANGES_AT_ONCE,
        )


def _form_of(record: logging.LogRecord) -> str:
    """The format of *record*; without numbers, because an author may have filled them in."""
    return without_numbers(record.msg if isinstance(record.msg, str) else logged_message(record))


@contextmanager
def limited(sources: Iterable[Source], complaints: Complaints) -> Iterator[None]:
    """For the length of the block, limit the lines of *sources* by *complaints*, in contexts where ``RUN`` is that."""
    packages = {_OWN, *(package_of(source) for source in sources)} - {None}
    names = [name for name in list(logging.root.manager.loggerDict) if name.partition(".")[0] in packages]
    loggers, limit = [logging.getLogger(name) for name in names], _Limit(complaints)
    for logger in loggers:
        logger.addFilter(limit)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(limit)
        complaints.say_what_is_due(at_the_end=True)
