"""What a run may leave behind: tasks, threads and descriptors."""

import os
import sys
import threading
from typing import Final, NamedTuple, Self

import anyio

__all__ = ("Held",)

_SETTLE_S: Final = 1.0
_LOOK_AGAIN_S: Final = 0.005
_POOLED: Final = ("Trio thread ", "asyncio_")
"""Names of threads that wait in a pool for work. Trio's have another while they are at work."""


class Held(NamedTuple):
    """What this process has at one moment, by what it is called in an error."""

    names: frozenset[str]

    @classmethod
    def now(cls) -> Self:
        tasks = {f"the task {task.name or task.id} ({task.id})" for task in anyio.get_running_tasks()}
        return cls(frozenset(tasks | _threads() | _descriptors()))

    def exceeded_by_now(self) -> str:
        """What there is more than this, at this moment; empty: nothing."""
        return ", ".join(sorted(Held.now().names - self.names))

    async def exceeded_by(self) -> str:
        """The same, once it has settled: a loop may need a moment to bury what has ended."""
        give_up = anyio.current_time() + _SETTLE_S
        while True:
            more = self.exceeded_by_now()
            if not more or anyio.current_time() > give_up:
                return more
            await anyio.sleep(_LOOK_AGAIN_S)


def _threads() -> set[str]:
    return {
        f"the thread {thread.name} ({thread.ident})"
        for thread in threading.enumerate()
        if not thread.name.startswith(_POOLED) and not _is_idle_worker(thread)
    }


def _is_idle_worker(thread: threading.Thread) -> bool:
    """Whether it is a worker of anyio's on asyncio, which waits for work in ``queue.get``, called by its ``run``.

    An abandoned one has no token of the limiter any more, so its stack has to tell.
    """
    frame = sys._current_frames().get(thread.ident or 0)
    called = ""
    while frame is not None:
        module, function = frame.f_globals.get("__name__", ""), frame.f_code.co_name
        if module.startswith("anyio.") and function == "run":
            return called == "queue.get"
        called = f"{module}.{function}"
        frame = frame.f_back
    return False


def _descriptors() -> set[str]:
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.add(f"the descriptor {fd} ({os.readlink(f'/proc/self/fd/{fd}')})")
        except FileNotFoundError:  # that of the listing itself
            continue
    return found
