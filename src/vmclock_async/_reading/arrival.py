"""Waiting for a segment that is not there yet, or in which nothing is committed yet.

Nothing wakes a task when a file appears at one of several places, some in directories that do not exist yet. So the
caller tries again and again to open the segment. Each try decides the default path afresh.
"""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from vmclock_async._paths import absolute
from vmclock_async._reading.segment_feed import Fence
from vmclock_async.errors import SegmentNotInitializedError

__all__ = ("until_there",)

_POLL_S: Final = 0.05
_Opened = TypeVar("_Opened")


async def until_there(
    attempt: Callable[[], Awaitable[_Opened]],
    say: Callable[[SegmentNotInitializedError], None] | None = None,
    *,
    fence: Fence = None,
) -> _Opened:
    """What *attempt* opens, once it can. Cancelling leaves nothing open.

    Args:
        attempt: opens the segment.
        say: gets the first error that says that nothing is there.
        fence: the fence that *attempt* opens too; a missing one is not waited for.

    Raises:
        SegmentError: what is there is no segment.
        SegmentNotInitializedError: nothing is at the path that *fence* is.
    """
    while True:
        try:
            return await attempt()
        except SegmentNotInitializedError as exc:
            if fence not in (None, "auto") and exc.path == absolute(fence):
                raise
            if say is not None:
                say(exc)
            say = None
        await anyio.sleep(_POLL_S)
