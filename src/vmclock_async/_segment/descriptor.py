"""Waiting for a descriptor, with little work between its readiness and the waiting task.

This code lies between a commit and the reader that it wakes. anyio.wait_readable() inside move_on_after() removes the
descriptor from the loop and closes the scope before the task goes on; on asyncio that takes a fifth of the whole time
from commit to event. So on asyncio and uvloop this module asks the loop directly and tidies up after the task has gone
on. On trio it uses anyio.

Invariants:
    * The loop's callback reads what is queued before the task that it wakes runs: a later change wakes again.
    * The descriptor is in the loop while a task waits, and at most until the end of the turn in which the task was
      woken. It may be closed only after that, and only in the loop's own thread.
"""

import os
import sys
from collections.abc import Callable
from io import FileIO
from typing import TYPE_CHECKING, Final, final

import anyio

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future, TimerHandle

_BYTES: Final = 256
"""Room for sixteen events of a watch. The kernel merges equal events in a row, and events left unread wake again."""


def loop_of_asyncio() -> "AbstractEventLoop | None":
    """The running event loop of asyncio; None if the calling task runs in another kind of loop."""
    in_trio_run = getattr(sys.modules.get("trio.lowlevel"), "in_trio_run", None)  # it may be half imported
    if in_trio_run is not None and in_trio_run():
        return None  # it may run within a task of asyncio, as in a notebook's cell
    asyncio = sys.modules.get("asyncio")  # whoever runs one of its loops has imported it; nobody else has to
    loop: AbstractEventLoop | None = (
        asyncio._get_running_loop() if asyncio else None
    )  # raises nothing, because an exception is slow
    if asyncio is None or loop is None or asyncio.current_task(loop) is None:
        return None  # a loop without a task: trio runs as a guest in asyncio's loop
    return loop


def event_loop() -> object:
    """The event loop of the calling task, as an object that lives as long as the loop and can be weakly referenced."""
    loop = loop_of_asyncio()
    # Not anyio's current_token(), because it takes microseconds between a commit and the reader that it wakes.
    return sys.modules["trio"].lowlevel.current_trio_token() if loop is None else loop


@final
class Readable:
    """Waits until *file*, which is non-blocking, is readable, and reads what is there. One task at a time may wait.

    Args:
        file: owned; ``close`` closes it.
        on_readable: called after a read, before the waiting task goes on, even if that task is cancelled meanwhile.
    """

    def __init__(self, file: FileIO, on_readable: Callable[[], None]) -> None:
        self._file: Final = file
        self._on_readable: Final = on_readable
        self._loop: AbstractEventLoop | None = None
        """The loop that watches the descriptor."""
        self._waiter: Future[bool] | None = None
        self._timer: TimerHandle | None = None
        """Time-out of the waiting task."""
        self._waits_by_anyio = False
        self._closing = False

    async def wait(self, timeout: float) -> bool:
        """Whether the file became readable within *timeout* seconds.

        Raises:
            anyio.ClosedResourceError: the file was closed, before or during the wait.
        """
        if self._closing:
            raise anyio.ClosedResourceError
        loop = loop_of_asyncio()
        if loop is None:
            return await self._wait_by_anyio(timeout)
        if self._loop is not loop:
            self._leave_loop()
            loop.add_reader(self._file.fileno(), self._read)
            self._loop = loop
        waiter: Future[bool] = loop.create_future()
        self._waiter = waiter
        self._timer = loop.call_later(timeout, self._end_wait, waiter, False)
        try:
            return await waiter
        except BaseException:
            self._leave_loop()
            raise

    def _read(self) -> None:
        try:
            os.read(self._file.fileno(), _BYTES)
        except BlockingIOError:
            return  # nothing was there after all
        self._on_readable()
        if self._waiter is not None:
            self._end_wait(self._waiter, True)

    def _end_wait(self, waiter: "Future[bool]", readable: bool, /) -> None:
        self._waiter = None
        if not waiter.done():  # a done waiter was cancelled
            waiter.set_result(readable)
        waiter.get_loop().call_soon(self._tidy_up, self._timer)  # runs after the task's turn

    def _tidy_up(self, timer: "TimerHandle | None") -> None:
        if timer is not None:
            timer.cancel()
        if self._waiter is None:  # otherwise the task waits again already
            self._leave_loop()

    def _leave_loop(self) -> None:
        loop, self._loop, self._waiter = self._loop, None, None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if loop is not None:
            loop.remove_reader(self._file.fileno())
        if self._closing:
            self._file.close()

    async def _wait_by_anyio(self, timeout: float) -> bool:
        self._waits_by_anyio = True
        try:
            with anyio.move_on_after(timeout):
                await anyio.wait_readable(self._file)
                if self._closing:  # closed in the same turn
                    raise anyio.ClosedResourceError
                os.read(self._file.fileno(), _BYTES)
                self._on_readable()
                return True
        except BlockingIOError:
            pass  # nothing was there after all
        finally:
            self._waits_by_anyio = False
        return False

    def stop(self) -> None:
        """Wake the waiting task, in this thread's loop, with a ``ClosedResourceError``."""
        waiter = self._waiter
        if waiter is not None:
            if not waiter.done():
                waiter.set_exception(anyio.ClosedResourceError())
            self._leave_loop()
        elif self._waits_by_anyio:
            anyio.notify_closing(self._file)

    def close(self) -> None:
        """Close the file now, or at the end of the turn if a loop watches it. No task waits. Any thread may call."""
        self._closing = True
        if self._loop is None:
            self._file.close()

    def abandon(self) -> None:
        """Close the file though a task waits: one of the parent's in a fork's child, or one of a closed event loop."""
        self._closing = True
        self._file.close()
