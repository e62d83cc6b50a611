"""Who a process is, where a machine may be cloned: an identity that no two lives of it share.

A machine that is restored from a snapshot lives twice: what its processes drew at random before, keys, session
numbers, UUIDs, the other life has too. The generation counter says that it happened, but two clones get the same new
value. So an incarnation comes from the kernel's random source, which the kernel seeds anew on a restore (the vmgenid
driver, Linux 5.18) before processes run again.

Where the page has no generation counter, that of the fence's device is looked at. Where that has none either, every
disruption that the device tells of may be a restore, and is taken for one: the low 32 bits of disruption_marker, which
are the device's.
"""

import os
import threading
import uuid
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple, final

from vmclock_async.errors import ClockDisruptedError
from vmclock_async.models import Snapshot

if TYPE_CHECKING:
    from vmclock_async._clockwork import Clockwork

__all__ = ("Incarnation", "OnRestore")

OnRestore = Callable[[Snapshot], Awaitable[None]]
"""What is awaited after a restore, with the snapshot that showed it, before the new incarnation is visible to others.

To the callbacks themselves it is: ``Clock.incarnation`` is the new one in them, to authenticate with."""

_LONGEST_WAIT_S: Final = 60.0
_DEVICE_POLL_S: Final = 0.25
_upcoming: Final[ContextVar[uuid.UUID | None]] = ContextVar("upcoming", default=None)
"""In a callback and the tasks it starts: the incarnation that others see once the callbacks have finished."""


_forks = 0
_lock = threading.Lock()


def _after_fork() -> None:
    global _forks, _lock
    _forks += 1
    _lock = threading.Lock()  # the parent's may be held by a thread that is not here


os.register_at_fork(after_in_child=_after_fork)


class _Life(NamedTuple):
    """What an incarnation is of: another life has another."""

    kind: str
    number: int
    process: tuple[int, int]

    @classmethod
    def of(cls, snapshot: Snapshot, generation: int | None) -> "_Life":
        process = os.getpid(), _forks
        if generation is not None:
            return cls("generation", generation, process)
        return cls("disruption marker", snapshot.body.disruption_marker % 2**32, process)

    def is_restored(self, before: "_Life") -> bool:
        """Whether it is after a restore, and not merely another process."""
        return self[:2] != before[:2]


@final
class Incarnation:
    """The present incarnation of one clock."""

    def __init__(self) -> None:
        self._drawn: uuid.UUID | None = None
        """Drawn along with the look at `_life`, not before: a snapshot taken in between would copy it."""
        self._life: _Life | None = None
        self._next: tuple[_Life, uuid.UUID] | None = None
        self.on_restore: tuple[OnRestore, ...] = ()

    def of(self, snapshot: Snapshot, generation: int | None) -> uuid.UUID:
        """That of a process which sees *snapshot* on a machine of *generation*; in a callback the one to come.

        Raises:
            ClockDisruptedError: a new one is due, and the callbacks have not finished.
        """
        with _lock:
            life = _Life.of(snapshot, generation)
            if self._next is not None and self._next[0] == life and self._next[1] == _upcoming.get():
                return self._next[1]
            if self._life is not None and self.on_restore and life.is_restored(self._life):
                raise ClockDisruptedError(
                    f"the machine was restored (its {life.kind} is now {life.number}), and what is to be done on that "
                    "is not finished; try again when it is"
                )
            if self._drawn is None or life != self._life:
                self._drawn, self._life = uuid.uuid4(), life
            return self._drawn

    async def keep(self, clock: "Clockwork", snapshot: Snapshot) -> None:
        """Await the callbacks after each restore that *clock* sees after *snapshot*, for ever."""
        while True:
            life = _Life.of(snapshot, clock._generation(snapshot))
            if self._life is None or life.is_restored(self._life):
                try:
                    await self._begin(life, snapshot)
                except ClockDisruptedError:
                    snapshot, _ = await clock._look_until_there()
                    if _Life.of(snapshot, clock._generation(snapshot)) == life:
                        raise
                    continue  # restored again meanwhile: what they began is for nobody
            # Of a generation that only the device has, no commit tells.
            wait_s = _LONGEST_WAIT_S if snapshot.body.vm_generation_counter is not None else _DEVICE_POLL_S
            snapshot = await clock._wait(snapshot, wait_s) or snapshot

    async def _begin(self, life: _Life, snapshot: Snapshot) -> None:
        drawn = uuid.uuid4()
        self._next = life, drawn
        reset = _upcoming.set(drawn)
        try:
            for callback in self.on_restore:
                await callback(snapshot)
        finally:
            _upcoming.reset(reset)
            self._next = None
        with _lock:
            self._drawn, self._life = drawn, life
