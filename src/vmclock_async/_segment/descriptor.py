"""Waiting for a descriptor, with little between its readiness and the task that waits.

This is the way from a commit to the reader that it wakes. anyio.wait_readable() inside move_on_after() takes the
descriptor out of the loop and the scope apart before the task goes on, which on asyncio is a fifth of the whole time
from commit to event. So there, and on uvloop, the loop is asked directly, and tidied up after the task has gone on.
Elsewhere it is anyio's.

Invariants:
    * What is queued is read by the loop's callback, before the task that it wakes: a change after that wakes again.
    * The descriptor is in the loop while a task waits, and at most until the end of the turn in which it was woken:
      only then, and in the loop's own thread, may it be closed.
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
"""Sixteen events of a watch on a file; equal ones that follow each other are merged, and what is left wakes again."""


def _asyncio_loop() -> "AbstractEventLoop | None":
    """The event loop of the task that asks; None where that is not asyncio's."""
    asyncio = sys.modules.get("asyncio")  # whoever runs a loop of its has imported it; others are not made to
    loop: AbstractEventLoop | None = (
        asyncio._get_running_loop() if asyncio else None
    )  # raises nothing, which is dear
    if asyncio is None or loop is None or asyncio.current_task(loop) is None:
        return None  # a loop without a task: trio, as a guest in asyncio's loop
    return loop


def event_loop() -> object:
    """The event loop of the task that asks, as an object that lives no longer and can be weakly referred to."""
    loop = _asyncio_loop()
    # Not anyio's current_token(): on the way from a commit to the reader that it wakes, it takes microseconds.
    return sys.modules["trio"].lowlevel.current_trio_token() if loop is None else loop


@final
class Readable:
    """Waits until *file*, which is non-blocking, is readable, and reads what is there; for one task at a time.

    Args:
        file: owned; ``close`` closes it.
        on_readable: called when it has been read, before the waiting task goes on, even if that is cancelled meanwhile.
    """

    def __init__(self, file: FileIO, on_readable: Callable[[], None]) -> None:
        self._file: Final = file
        self._on_readable: Final = on_readable
        self._loop: AbstractEventLoop | None = None
        """That has the descriptor."""
        self._waiter: Future[bool] | None = None
        self._timer: TimerHandle | None = None
        """The waiter's."""
        self._waits_by_anyio = False
        self._closing = False

    async def wait(self, timeout: float) -> bool:
        """Whether it was readable within *timeout* seconds.

        Raises:
            anyio.ClosedResourceError: it was closed, before or meanwhile.
        """
        if self._closing:
            raise anyio.ClosedResourceError
        loop = _asyncio_loop()
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
            return  # nothing there after all
        self._on_readable()
        if self._waiter is not None:
            self._end_wait(self._waiter, True)

    def _end_wait(self, waiter: "Future[bool]", readable: bool, /) -> None:
        self._waiter = None
        if not waiter.done():  # else it was cancelled
            waiter.set_result(readable)
        waiter.get_loop().call_soon(self._tidy_up, self._timer)  # its turn comes after the task's

    def _tidy_up(self, timer: "TimerHandle | None") -> None:
        if timer is not None:
            timer.cancel()
        if self._waiter is None:  # else the task waits again already
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
                if self._closing:  # in the same turn
                    raise anyio.ClosedResourceError
                os.read(self._file.fileno(), _BYTES)
                self._on_readable()
                return True
        except BlockingIOError:
            pass  # nothing there after all
        finally:
            self._waits_by_anyio = False
        return False

    def stop(self) -> None:
        """Wake the task that waits, in this thread's loop, with a ``ClosedResourceError``."""
        waiter = self._waiter
        if waiter is not None:
            if not waiter.done():
                waiter.set_exception(anyio.ClosedResourceError())
            self._leave_loop()
        elif self._waits_by_anyio:
            anyio.notify_closing(self._file)

    def close(self) -> None:
        """Close the file: now, or at the end of the turn if a loop has it still. No task waits; from any thread."""
        self._closing = True
        if self._loop is None:
            self._file.close()

    def abandon(self) -> None:
        """Close the file though a task waits: it is the parent's of this fork, or its event loop is closed."""
        self._closing = True
        self._file.close()
