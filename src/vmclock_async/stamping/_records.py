"""Records of ``logging`` and of structlog; the latter is not imported, because its processors are plain callables."""

import logging
from collections.abc import MutableMapping
from typing import Any, Final, final

from vmclock_async.clock import Clock
from vmclock_async.stamping._fields import TimeFields

__all__ = ("TimeFilter", "TimeProcessor")


@final
class TimeFilter(logging.Filter):
    """A filter of ``logging`` that gives each record the fields of ``TimeValues`` as attributes; it lets all pass.

    A handler's filter sees every record that the handler gets; a logger's filter only those that are logged with this
    very logger. A formatter takes the attributes by name: ``%(clock_status)s``. A record that another such filter has
    seen keeps the fields that it has.

    Args:
        clock: see ``TimeFields``.
        strings: see ``TimeFields``.
    """

    def __init__(self, clock: Clock, *, strings: bool = False) -> None:
        super().__init__()
        self._fields: Final = TimeFields(clock, strings=strings)

    def filter(self, record: logging.LogRecord) -> bool:
        """Give *record* the fields. Nothing is raised."""
        if "clock_status" not in record.__dict__:
            record.__dict__.update(self._fields.now())
        return True


@final
class TimeProcessor:
    """A processor of structlog that adds the fields of ``TimeValues`` to each event, unless it has them already.

    Args:
        clock: see ``TimeFields``.
        strings: see ``TimeFields``.
    """

    def __init__(self, clock: Clock, *, strings: bool = False) -> None:
        self._fields: Final = TimeFields(clock, strings=strings)

    def __call__(
        self, logger: object, name: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        """Add the fields to *event_dict*, and return it. Nothing is raised."""
        if "clock_status" not in event_dict:
            event_dict.update(self._fields.now())
        return event_dict
