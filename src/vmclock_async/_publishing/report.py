"""A report that contains no values of the page: the machine was disrupted, or restores will be reported.

Unlike an update, a report is waited for until it is committed, because the program that reports a disruption goes on
only when readers can see it.
"""

from dataclasses import dataclass, field
from typing import final

import anyio

from vmclock_async.errors import VMClockError

__all__ = ("Report",)


@final
@dataclass(slots=True, eq=False)
class Report:
    """A report to the writer task; without a reason, the announcement that each restore will be reported."""

    reporter: str
    """The source that reports; empty: the program that runs the publisher."""
    reason: str | None = None
    """What disrupted the machine, in words."""
    restored: bool = False
    """Whether the machine was restored from a snapshot."""
    refusal: VMClockError | None = None
    """Why the writer task did not commit it."""
    _settled: anyio.Event = field(default_factory=anyio.Event)

    def settle(self, refusal: VMClockError | None = None) -> None:
        """Note that it is committed, or refused with *refusal*."""
        self.refusal = refusal
        self._settled.set()

    async def wait(self, ended: anyio.Event) -> bool:
        """Wait until it is committed. False: the run *ended* before that.

        Raises:
            VMClockError: the writer task refused it.
        """
        async with anyio.create_task_group() as tasks:

            async def give_up() -> None:
                await ended.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(give_up)
            await self._settled.wait()
            tasks.cancel_scope.cancel()
        if self.refusal is not None:
            raise self.refusal
        return self._settled.is_set()
