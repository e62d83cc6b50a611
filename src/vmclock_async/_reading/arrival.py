"""Waiting for a segment that is not there yet, or in which nothing is committed yet.

A segment may come at one of several places, some in directories that do not exist yet. So before each attempt to open
it, every place is watched: the directories on the way to it, as far as they exist, and the file. What comes after the
attempt wakes the task, which tries again; each attempt decides the default path afresh. Where a place cannot be
watched (a device, a directory that may not be read, no inotify instance left), the attempts go by time.
"""

import os
import stat
from collections.abc import Awaitable, Callable
from io import FileIO
from pathlib import Path
from typing import Final, Self, TypeVar, final

import anyio

from vmclock_async import _core
from vmclock_async._paths import absolute, places
from vmclock_async._reading.segment_feed import Fence, PathLike
from vmclock_async._segment.descriptor import Readable
from vmclock_async.errors import SegmentNotInitializedError

__all__ = ("until_there",)

_POLL_S: Final = 0.05
_LOOK_S: Final = 1.0
"""Longest time between two attempts while every place is watched: a mount, or another target of a link, is no event."""
_PAUSE_S: Final = 0.01
"""Shortest time between two attempts, because other programs' files wake too."""
_Opened = TypeVar("_Opened")


async def until_there(
    path: PathLike | None,
    attempt: Callable[[], Awaitable[_Opened]],
    say: Callable[[SegmentNotInitializedError], None] | None = None,
    *,
    fence: Fence = None,
) -> _Opened:
    """What *attempt* opens, once it can. Cancelling leaves nothing open.

    Args:
        path: path of the segment; None: the default places.
        attempt: opens the segment.
        say: gets the first error that says that nothing is there.
        fence: the fence that *attempt* opens too; a missing one is not waited for.

    Raises:
        SegmentError: what is there is no segment.
        SegmentNotInitializedError: nothing is at the path that *fence* is.
    """
    try:
        return await attempt()  # most often it is there, and nothing has to be watched
    except SegmentNotInitializedError as exc:
        if fence not in (None, "auto") and exc.path == absolute(fence):
            raise
        if say is not None:
            say(exc)
    while True:
        with _Watched(places(path)) as watched:
            try:
                return await attempt()
            except SegmentNotInitializedError as exc:
                if fence not in (None, "auto") and exc.path == absolute(fence):
                    raise
            await watched.wait()
        await anyio.sleep(_PAUSE_S)


@final
class _Watched:
    """A watch of *paths*, which may or may not exist; a context manager."""

    def __init__(self, paths: list[Path]) -> None:
        self._queue: Readable | None = None
        self._wakes = False
        try:
            instance = _core.inotify_open()
        except OSError:  # this user has none left
            return
        self._queue = Readable(FileIO(instance), lambda: None)
        woken = [_watch(instance, path) for path in paths]
        self._wakes = all(woken)

    async def wait(self) -> None:
        """Return when something may have come, or after a while."""
        if self._queue is None:
            await anyio.sleep(_POLL_S)
        else:
            await self._queue.wait(_LOOK_S if self._wakes else _POLL_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._queue is not None:
            self._queue.close()


def _watch(instance: int, path: Path) -> bool:
    """Watch for what comes at *path*; return whether all of it wakes.

    The walk goes down from the root, so that a name that is made meanwhile is seen by the watch on its directory.
    """
    is_watched = False
    for place in (*reversed(path.parents), path):
        try:
            _core.inotify_watch_path(instance, place)
        except (FileNotFoundError, NotADirectoryError):
            return is_watched
        except OSError:
            is_watched = False
        else:
            is_watched = True
    try:
        return is_watched and stat.S_ISREG(os.stat(path).st_mode)
    except OSError:  # it has gone since, which wakes
        return is_watched
