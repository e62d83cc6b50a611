"""The identity of a process on a machine that may be cloned: no two lives of the machine share it.

A machine that is restored from a snapshot lives twice: whatever its processes drew at random before (keys, session
numbers, UUIDs), the other life has too. The generation counter shows that a restore happened, but two clones get the
same new value. The kernel's random source is seeded again on a restore (the vmgenid driver, Linux 5.18), but only after
processes have run for some milliseconds, and on many machines not at all. So an incarnation is drawn from that source
and from what a snapshot does not hold; ``_segment/entropy.py`` lists it, and says what remains.

An incarnation is a UUID of version 4. RFC 9562 gives that version to random and pseudorandom bits, and a hash over
random bytes is such. Version 8, for layouts of one's own, would tell a reader nothing, and programs refuse it where
they expect a random UUID.

If the page has no generation counter, that of the fence's device is used. If that has none either, every disruption
that the device reports counts as a restore, because it may be one: this looks at the low 32 bits of disruption_marker,
which are the device's.

These cases are no restore, though marker or generation look new:

* A page may lack its generation for a while, because a publisher that begins again has not heard from its device yet.
  The last generation is remembered, and compared once there is one again.
* A page may have marker 0 for a while, for the same reason. Where another marker was seen, 0 says nothing.
* A page that first had no generation, and now has one, still has its old marker. If its marker is another one too, it
  may be a restore, and counts as one.
* The publisher's own generation counter takes the place of a device's, or the other way round.
* A marker that the fence's device contradicts may come from a page that begins again. It says nothing until the two
  agree.
* The publisher's own disruptions move the marker by multiples of 2**32.
"""

import inspect
import logging
import os
import threading
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from functools import partial
from typing import Any, Final, NamedTuple, final

from vmclock_async import _core
from vmclock_async._reading.feed import Witness
from vmclock_async._reading.readings import Readings
from vmclock_async._reading.waiting import Waiting
from vmclock_async._segment.belonging import this_process
from vmclock_async._segment.entropy import Ingredients
from vmclock_async.abi import device_marker, shows_restore
from vmclock_async.errors import ClockDisruptedError, SegmentUnstableError
from vmclock_async.models import Snapshot

__all__ = ("Incarnation", "OnRestore")

OnRestore = Callable[[Snapshot], Awaitable[None]]
"""A function that is awaited after a restore, with the snapshot that showed it, before others see the new incarnation.

Inside the function ``Clock.incarnation`` is already the new one, so that it can authenticate with it."""

_log: Final = logging.getLogger("vmclock_async.clock")

_LONGEST_POLL_S: Final = 60.0
_POLL_WHILE_ONLY_THE_DEVICE_TELLS_S: Final = 0.25
_upcoming: Final[ContextVar[uuid.UUID | None]] = ContextVar("upcoming", default=None)
"""In a callback and the tasks it starts: the incarnation that others see once the callbacks have finished."""


_lock = threading.RLock()
"""Re-entrant, because a signal handler or a finalizer may write a log line that has the incarnation in it."""


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # the parent's lock may be held by a thread that this process lacks


os.register_at_fork(after_in_child=_after_fork)


class _Life(NamedTuple):
    """The machine's life as one look shows it: another life has another incarnation."""

    generation: int | None
    """The generation counter; None if neither page nor device has one."""
    marker: int | None
    """The disruption marker; None if it is uncertain."""
    device_marker: int | None
    """The device's part of the last marker in which it was not 0; None if it is uncertain."""

    @classmethod
    def of(cls, snapshot: Snapshot, generation: int | None) -> "_Life":
        marker = snapshot.body.disruption_marker
        return cls(generation, marker, device_marker(marker))

    @classmethod
    async def seen_by(cls, waiting: Waiting, snapshot: Snapshot) -> "_Life":
        """The life that *snapshot* shows, without its marker if the fence contradicts it or stays in mid-update."""
        try:
            life = cls.of(snapshot, await waiting.patiently(partial(waiting.readings.generation, snapshot, 0)))
            waiting.readings.require_fence(snapshot)
        except SegmentUnstableError:
            return cls(None, None, None)
        except ClockDisruptedError:
            return life._replace(marker=None, device_marker=None)
        return life

    def is_restored(self, before: "_Life") -> bool:
        """Whether this look is from after a restore that *before* does not know, or may be."""
        if self.marker is None or before.marker is None:  # then only two counters of one origin show a restore
            restored = shows_restore(before.generation, 0, self.generation, 0)
        else:
            restored = shows_restore(before.generation, before.marker, self.generation, self.marker)
        if restored:
            return True
        if self.generation is not None and before.generation is not None:
            return False
        # Without a counter, each disruption that the device reports may be a restore.
        return before.device_marker is not None and self.device_marker not in (None, 0, before.device_marker)

    def remembering(self, before: "_Life") -> "_Life":
        """What is known after this look, which belongs to the same life as *before*."""
        return _Life(
            before.generation if self.generation is None else self.generation,
            before.marker if not self.marker and before.marker else self.marker,
            before.device_marker if not self.device_marker and before.device_marker else self.device_marker,
        )

    def __str__(self) -> str:
        if self.generation is None:
            return f"disruption marker is now {self.marker}"
        return f"generation is now {self.generation}"


class _Known(NamedTuple):
    """An incarnation that holds as long as the pages do not change."""

    drawn: uuid.UUID
    process: object
    witness: Witness
    counter: int
    until: int


@final
class Incarnation:
    """The present incarnation of one clock.

    Args:
        gather: gives what an incarnation is drawn from.
    """

    def __init__(self, *, gather: Callable[[int | None, int], Ingredients] = Ingredients.gather) -> None:
        self._gather: Final = gather
        self._drawn: uuid.UUID | None = None
        """Drawn when `_life` is seen, not before: a snapshot taken in between would copy it."""
        self._drawn_by: object = None
        self._life: _Life | None = None
        """All that was seen of the present life so far."""
        self._next: tuple[_Life, object, uuid.UUID] | None = None
        self._known: _Known | None = None
        self.on_restore: tuple[OnRestore, ...] = ()
        self._is_blindness_told = False
        self._awaited_by: object = None
        """The process whose event loop awaits the callbacks; the child of a fork has none that does."""

    @staticmethod
    def callbacks_in(given: Iterable[OnRestore | Iterable[OnRestore]]) -> tuple[OnRestore, ...]:
        """The callbacks in *given*, one after the other.

        One that is no async function is found here, and not at the first restore.
        """
        callbacks: list[OnRestore] = []
        for one in given:
            if isinstance(one, Iterable) and not callable(one):
                callbacks.extend(one)
            else:
                callbacks.append(one)
        for callback in callbacks:
            function: Any = callback
            while isinstance(function, partial):
                function = function.func
            called = getattr(type(function), "__call__", None)  # noqa: B004  not whether it is callable, but what is called
            if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)):
                name = getattr(function, "__qualname__", None) or repr(function)
                raise TypeError(
                    f"on_restore takes async functions, and {name} is none; write it as async def, or wrap it in one"
                )
        return tuple(callbacks)

    def now(self, readings: Readings) -> uuid.UUID:
        """The incarnation at this moment; see ``Clock.incarnation``."""
        known = self._known
        if (
            known is not None
            and self._next is None
            and known.process is this_process()
            and _core.unchanged(*known.witness, known.counter, known.until) is not None
        ):
            return known.drawn
        witness = readings.feed.witness()
        snapshot, counter = readings.sample()
        readings.require_fence(snapshot)
        readings.require_generation(snapshot)
        self._tell_blindness(readings, snapshot)
        drawn, until = self.of(snapshot, readings.generation(snapshot)), readings.asked_again_at(snapshot, counter)
        if witness is not None and until is not None and self._next is None:
            self._known = _Known(drawn, this_process(), witness, counter, until % 2**64)
        return drawn

    def of(self, snapshot: Snapshot, generation: int | None) -> uuid.UUID:
        """The incarnation for *snapshot* and *generation*.

        Inside an on_restore callback: the new one, which others do not see yet.

        Raises:
            ClockDisruptedError: a new one is due, and the callbacks have not finished.
        """
        with _lock:
            life, process = _Life.of(snapshot, generation), this_process()
            if self._next is not None:
                upcoming, upcoming_process, drawn = self._next
                if drawn == _upcoming.get() and process is upcoming_process and not life.is_restored(upcoming):
                    return drawn
            is_new = self._note(life)
            if is_new and self.on_restore and self._awaited_by is process:
                raise ClockDisruptedError(
                    f"the machine was restored (its {life}), and its on_restore callbacks have not finished; "
                    "try again when they have"
                )
            if is_new:
                self._life, self._drawn = life, None  # none of the life before, also if drawing fails
            if is_new or self._drawn is None or self._drawn_by is not process:
                before, drawn = self._drawn, self._draw(snapshot, generation)
                if self._drawn is before:  # else a signal handler has asked meanwhile, and has told the one it got
                    self._drawn, self._drawn_by = drawn, process
            assert self._drawn is not None
            return self._drawn

    def _tell_blindness(self, readings: Readings, snapshot: Snapshot) -> None:
        """Log, once, that restores are not seen: a clone that believes in a new identity is worse than none."""
        if not self._is_blindness_told and not readings.sees_restores(snapshot):
            self._is_blindness_told = True
            _log.warning(
                "%s: nothing reports restores of this machine, so that a clone keeps the incarnation of its original; "
                "publish the source vmgenid or device too, or told where each restore is reported",
                readings.feed.path,
            )

    def _draw(self, snapshot: Snapshot, generation: int | None) -> uuid.UUID:
        drawn = self._gather(generation, snapshot.body.disruption_marker).mix()
        return uuid.UUID(bytes=drawn[:16], version=4)

    def _note(self, life: _Life) -> bool:
        """Whether *life* is a new one; if not, it is remembered. The caller holds the lock."""
        if self._life is not None:
            if life.is_restored(self._life):
                return True
            life = life.remembering(self._life)
        self._life = life
        return False

    async def keep(self, waiting: Waiting, snapshot: Snapshot) -> None:
        """Await the callbacks after each restore that is seen after *snapshot*, for ever."""
        self._awaited_by = this_process()
        self._tell_blindness(waiting.readings, snapshot)
        while True:
            life = await _Life.seen_by(waiting, snapshot)
            with _lock:
                is_new = self._note(life)
            if is_new:
                try:
                    await self._begin(life, snapshot)
                except Exception as exc:  # a callback's
                    snapshot = await waiting.snapshot_once_there()
                    if not (await _Life.seen_by(waiting, snapshot)).is_restored(life):
                        raise
                    # Nobody may use what the callbacks began, so it does not matter that they failed.
                    _log.warning(
                        "a callback failed, and is called again: the machine was restored again (%r)", exc
                    )
                    continue
            # No commit announces a generation, or a contradicting marker, that only the device has.
            by_commits = snapshot.body.vm_generation_counter is not None and life.marker is not None
            poll_s = _LONGEST_POLL_S if by_commits else _POLL_WHILE_ONLY_THE_DEVICE_TELLS_S
            snapshot = await waiting.wait(snapshot, poll_s) or snapshot

    async def _begin(self, life: _Life, snapshot: Snapshot) -> None:
        drawn = self._draw(snapshot, life.generation)
        self._next = life, this_process(), drawn
        reset = _upcoming.set(drawn)
        try:
            for callback in self.on_restore:
                await callback(snapshot)
        finally:
            _upcoming.reset(reset)
            self._next = None
        with _lock:
            self._drawn, self._drawn_by, self._life = drawn, this_process(), life
