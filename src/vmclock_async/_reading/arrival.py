"""Waiting for a segment that is not there yet, or in which nothing is committed yet.

A segment may come at one of several places, some in directories that do not exist yet. So before each attempt to open
it, every place is watched: the last directory on the way to it that exists, and the file. What comes after the
attempt wakes the task, which tries again; each attempt decides the default path afresh. Where a place cannot be
watched (a device, a directory that may not be read, no inotify instance left), the attempts go by time.
"""

import os
import stat
from collections.abc import Awaitable, Callable
from contextlib import suppress
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
_QUEUE_BYTES: Final = 4096
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
            instance = FileIO(_core.inotify_open())
        except OSError:  # this user has none left
            return
        self._queue = Readable(instance, lambda: None)
        ways = [_watch(instance, path) for path in paths]
        self._wakes = all(way and way[-1] for way in ways)
        # Two paths may share a directory, and so its watch.
        kept = {
            watch
            for path, way in zip(paths, ways, strict=True)
            for watch in way[len(path.parents) - 1 :] or way[-1:]
        }
        for watch in {watch for way in ways for watch in way if watch} - kept:
            with suppress(OSError):  # it was removed meanwhile
                _core.inotify_unwatch(instance, watch)
        with suppress(BlockingIOError):
            while os.read(instance.fileno(), _QUEUE_BYTES):
                pass  # whatever came so far, the attempt that follows finds

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


def _watch(instance: FileIO, path: Path) -> list[int | None]:
    """The watches on what exists of the way to *path*, the root first; None for what cannot be watched.

    The walk goes down from the root, so nothing that is made meanwhile is missed.
    """
    way: list[int | None] = []
    for place in (*reversed(path.parents), path):
        try:
            way.append(_core.inotify_watch_path(instance.fileno(), place))
        except (FileNotFoundError, NotADirectoryError):
            return way
        except OSError:
            way.append(None)
    with suppress(OSError):  # it has gone since, which wakes
        if not stat.S_ISREG(os.stat(path).st_mode):
            way.append(None)  # what happens to a device is no event
    return way
