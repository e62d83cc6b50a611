"""Detects code that holds the event loop, so that no other task runs.

A task beats while the loop runs; a thread looks whether it still beats. The thread counts its own looks, not seconds,
because a process that was stopped, or a machine that was suspended, holds no loop.
"""

import inspect
import sys
import threading
from collections.abc import Callable, Container, Iterator, Mapping
from contextvars import ContextVar
from types import FrameType
from typing import Final, final

import anyio
from anyio.abc import TaskStatus

from vmclock_async._publishing.standstill import Standstill
from vmclock_async.sources import Emit, Source

__all__ = (
    "SOURCE",
    "InterruptedSource",
    "LoopWatch",
    "holders",
    "package",
    "package_of",
    "place",
    "run_as",
    "stack",
)

_LOOPS: Final = ("asyncio", "trio")
_LOOKS: Final = 4
"""Number of looks in a row that must find the loop held before a report."""

SOURCE: Final[ContextVar[str | None]] = ContextVar("SOURCE", default=None)
"""Name of the source whose code runs in this context; tasks and worker threads that a source starts inherit it."""


class InterruptedSource(BaseException):
    """Ends code that holds the event loop; no ``Exception``, because such code often catches these and goes on."""


async def run_as(name: str, source: Source, emit: Emit) -> None:
    """Run *source*, whose name is *name*.

    Raises:
        TypeError: its ``run`` is no async function; a call of such a function could hold the event loop for ever.
    """
    SOURCE.set(name)
    run = source.run
    if not inspect.iscoroutinefunction(run):
        raise TypeError(
            f"run is {run!r}, which is no async function; declare it with async def, and emit with await"
        )
    await run(emit)


_RUN_AS: Final = run_as.__code__


def holders(frame: FrameType, sources: Mapping[str, Source]) -> list[str]:
    """Names of the *sources* that may run *frame*: one by the task that runs it, or more by the package of its code."""
    callers = list(stack(frame))
    for caller in callers:
        if caller.f_code is _RUN_AS:
            name, source = caller.f_locals["name"], caller.f_locals["source"]
            return [name] if sources.get(name) is source else []
    packages = {package(caller) for caller in callers}
    return [name for name, source in sources.items() if package_of(source) in packages]


def stack(frame: FrameType) -> Iterator[FrameType]:
    """*frame*, its caller, and so on up to the event loop; the loop's own callers belong to no task."""
    caller: FrameType | None = frame
    while caller is not None and (caller is frame or package(caller) not in _LOOPS):
        yield caller
        caller = caller.f_back


def package(frame: FrameType) -> str:
    """The package to which the code of *frame* belongs."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def package_of(source: object) -> str | None:
    """The package whose code shows that *source* runs; None for this package, because its code runs all the time."""
    name = type(source).__module__.partition(".")[0]
    return None if name == __name__.partition(".")[0] else name


def place(frame: FrameType, packages: Container[str | None]) -> str:
    """Function, file and line of *frame*, or of its innermost caller in *packages* if *frame* is in none of them."""
    callers = list(stack(frame))
    at = next((caller for caller in callers if package(caller) in packages), callers[0])
    return f"{at.f_code.co_qualname} ({at.f_code.co_filename}:{at.f_lineno})"


@final
class LoopWatch:
    """Watches the event loop in which ``run`` runs.

    Args:
        held_after_s: shortest time in seconds for which the loop is held before *on_held* is called.
        on_held: called in a thread, at each look while the loop is held, with the innermost frame of the loop's
            thread and the time for which the loop has been held, in seconds. It must not raise.
    """

    def __init__(self, held_after_s: float, on_held: Callable[[FrameType, float], None]) -> None:
        self._every_s: Final = held_after_s / _LOOKS
        self._on_held: Final = on_held
        self._beats = 0
        self.standstill: Final = Standstill(self._every_s)
        """Its ticks are the looks of the thread."""

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled. Where no thread can be started, nothing is watched."""
        ended = threading.Event()
        thread = threading.Thread(
            target=self._look, args=(threading.get_ident(), ended), name="vmclock-async loop watch", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:
            task_status.started()
            return
        try:
            self.standstill.begin()
            task_status.started()
            while True:
                await anyio.sleep(self._every_s)
                self._beats += 1
        finally:
            self.standstill.end()
            ended.set()
            thread.join()  # it waits for nothing but *ended*

    def _look(self, loop_thread: int, ended: threading.Event) -> None:
        looks, seen = 0, self._beats
        while not ended.wait(self._every_s):
            self.standstill.tick()
            beats = self._beats
            looks = looks + 1 if beats == seen else 0
            seen = beats
            # It takes one look more, because the first of them may have come right after a beat.
            if looks > _LOOKS and (frame := sys._current_frames().get(loop_thread)) is not None:
                self._on_held(frame, looks * self._every_s)
                del frame  # it would keep that code's objects alive
