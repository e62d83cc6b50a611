"""Tasks, threads and descriptors that a run may leave behind.

Other threads, loops and tasks of the process open and close their own things at the same time, and nothing shows
which thing belongs to whom. So three rules separate their things from those of the code under test:

* The number of each counts. A file that another thread opens again and again is one file.
* A leftover stays: only what is there at every look counts, while garbage is collected. (A loop without references
  closes its descriptors when it is collected.)
* Code that leaves something behind does so each time. The caller repeats a run that left something, and blames it
  only if each run left something of the same ``kind``.
"""

import gc
import os
import re
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple, Self, final

import anyio

__all__ = ("Held", "Thing")

_SETTLE_S: Final = 1.0
_LOOK_AGAIN_S: Final = 0.005
_POOLED: Final = ("Trio thread ", "asyncio_")
"""Names of threads that wait in a pool for work. Trio's threads have other names while they work."""


class Thing(NamedTuple):
    """A task, a thread, or a descriptor."""

    identity: str
    """The same for two descriptors of one file, because nothing shows that one was closed and opened again."""
    name: str
    """Its name in an error."""

    @property
    def kind(self) -> str:
        """The same for things that one piece of code leaves behind at each of its runs."""
        return re.sub(r"\d+", "", self.name)


@final
class Held:
    """The things that this process has at one moment."""

    def __init__(self, things: list[Thing]) -> None:
        self._things: Final = things
        self._count: Final = Counter(thing.identity for thing in things)

    @classmethod
    def now(cls) -> Self:
        """The things it has now."""
        return cls([*_tasks(), *_threads(), *_descriptors()])

    def exceeded_by_now(self) -> list[Thing]:
        """The things that there are now beyond these."""
        now, more = Held.now(), []
        excess = now._count - self._count
        known = set(self._things)
        # Among equal things, those that have another name than before.
        for thing in sorted(now._things, key=lambda thing: thing in known):
            if excess[thing.identity] > 0:
                excess[thing.identity] -= 1
                more.append(thing)
        return more

    async def exceeded_by(self) -> list[Thing]:
        """The same, once it has settled: a loop may need a moment to clean up what has ended."""
        give_up = anyio.current_time() + _SETTLE_S
        pause_s = _LOOK_AGAIN_S
        await anyio.sleep(pause_s)  # a thread that has just been given work looks idle until it begins
        more = self.exceeded_by_now()
        while more and anyio.current_time() < give_up:
            gc.collect()
            await anyio.sleep(pause_s)
            pause_s *= 2  # collecting garbage takes long in a large process
            still = {thing.identity for thing in self.exceeded_by_now()}
            more = [thing for thing in more if thing.identity in still]
        return more


def _tasks() -> Iterator[Thing]:
    for task in anyio.get_running_tasks():
        name = f"the task {task.name or task.id} ({task.id})"
        yield Thing(name, name)


def _threads() -> Iterator[Thing]:
    for thread in threading.enumerate():
        if not thread.name.startswith(_POOLED) and not _is_idle_worker(thread):
            name = f"the thread {thread.name} ({thread.ident})"
            yield Thing(name, name)


def _is_idle_worker(thread: threading.Thread) -> bool:
    """Whether it is a worker of anyio on asyncio that waits for work in ``queue.get``, called by its ``run``.

    An abandoned worker no longer has a token of the limiter, so only its stack shows it.
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


def _descriptors() -> Iterator[Thing]:
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except FileNotFoundError:  # the descriptor of the listing itself, or one closed since
            continue
        yield Thing(target, f"the descriptor {fd} ({target})")
