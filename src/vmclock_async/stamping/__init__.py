"""Bounded time and the incarnation on log records, for ``logging`` and structlog.

Each record gets four fields: between which nanoseconds of UTC it was made (`earliest_ns`, `latest_ns`), how good that
time is (`clock_status`), and in which life of the machine (`incarnation`). Lines of several machines can then be put
in order where their intervals do not overlap, and lines of a clone can be told from those of its original. For spans
and log records of OpenTelemetry: ``vmclock_async.stamping.opentelemetry``.

A record never waits and never fails because of its clock: where there is no bounded time, the fields say so. The time
is that of the call of the filter or processor. So put a filter on the handler that first gets the record, such as a
``QueueHandler``, and not on one in another thread behind it.

A clock belongs to one process. In the child of a fork it goes on, with an incarnation of that process; another program
opens a clock of its own.
"""

from vmclock_async.stamping._fields import TimeFields, TimeValues
from vmclock_async.stamping._records import TimeFilter, TimeProcessor

__all__ = ("TimeFields", "TimeFilter", "TimeProcessor", "TimeValues")

for _name in __all__:
    globals()[_name].__module__ = __name__
