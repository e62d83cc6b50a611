"""Waiting for a segment that is not there yet."""

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import anyio

from vmclock_async.errors import SegmentNotInitializedError

__all__ = ("until_there",)

_POLL_S: Final = 0.05
_Opened = TypeVar("_Opened")


async def until_there(
    attempt: Callable[[], Awaitable[_Opened]], say: Callable[[SegmentNotInitializedError], None]
) -> _Opened:
    """What *attempt* opens, once it can; *say* gets the first error that says that nothing is there.

    Raises:
        SegmentError: what is there is no segment.
    """
    said = False
    while True:
        try:
            return await attempt()
        except SegmentNotInitializedError as exc:
            if not said:
                say(exc)
            said = True
        await anyio.sleep(_POLL_S)
