"""Callbacks before a snapshot and after a restore: registered anywhere in a program, run beside one clock.

The registry is the process's, as that of ``snapshot_restore_py`` is, so that a library can register its own. They run
beside the clock of one ``callbacks()`` block, because two clocks would run them twice for one restore.
"""

import inspect
import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple, TypeVar

import anyio

from vmclock_async._reading.background import beside
from vmclock_async._segment.belonging import this_process
from vmclock_async.abi import Flags, device_marker
from vmclock_async.clock import Clock
from vmclock_async.events import Disrupted, Event, EventStream, MaintenanceAnnounced
from vmclock_async.models import Snapshot

__all__ = ("callbacks", "register_after_restore", "register_before_snapshot")

Function = TypeVar("Function", bound=Callable[..., object])

_log: Final = logging.getLogger("vmclock_async.restore")


class _Callback(NamedTuple):
    function: Callable[..., object]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    async def run(self) -> None:
        result = self.function(*self.args, **self.kwargs)
        if inspect.isawaitable(result):
            await result

    def __str__(self) -> str:
        return str(getattr(self.function, "__qualname__", self.function))


_before: Final[list[_Callback]] = []
_after: Final[list[_Callback]] = []
_run_by: tuple[object, str] | None = None
"""The process in which a ``callbacks()`` block runs them, and the path of its clock's segment."""


def register_before_snapshot(function: Function, *args: Any, **kwargs: Any) -> Function:
    """Let *function* be called before a snapshot or a migration that the machine announces; also a decorator.

    It is called each time that DISRUPTION_IMMINENT is raised, about an hour before at most, while a block of
    ``callbacks()`` runs. The last one registered is called first. A machine that announces nothing calls none: what
    must be done on each restore belongs to ``register_after_restore``.

    Args:
        function: a function, or an async one, which is awaited. Both run in the event loop's thread; one that blocks
            belongs into ``anyio.to_thread.run_sync``.
        args: its arguments.
        kwargs: its keyword arguments.

    Returns:
        *function*.
    """
    _before.append(_Callback(function, args, kwargs))
    return function


def register_after_restore(function: Function, *args: Any, **kwargs: Any) -> Function:
    """Let *function* be called after each restore of the machine from a snapshot; also a decorator.

    It is called once a restore, while a block of ``callbacks()`` runs. The first one registered is called first, and
    ``Clock.incarnation`` is the new one inside it; others see that when all callbacks have finished. If the machine is
    restored again meanwhile, all are called again.

    Args:
        function: as for ``register_before_snapshot``.
        args: its arguments.
        kwargs: its keyword arguments.

    Returns:
        *function*.
    """
    _after.append(_Callback(function, args, kwargs))
    return function


@asynccontextmanager
async def callbacks(clock: Clock) -> AsyncIterator[None]:
    """Run the registered callbacks for the length of the block, by what *clock* sees.

    They run one after the other, and never those before a snapshot beside those after a restore. If one fails, the log
    has its traceback, the others run, and then the block ends with all that failed. After a restore that is a must: a
    program that is half of its clone must not go on. A callback that may fail without harm catches its own errors.

    Restores count from the moment before the block begins. They are seen as by ``Clock.on_restore``, which this uses: a
    clock can have either, or ``open_clock(on_restore=...)``.

    Args:
        clock: the only clock of this process that runs them.

    Raises:
        ExceptionGroup: callbacks failed.
        RuntimeError: another block of this process runs them already, or *clock* has callbacks of its own.
        SegmentError: as for ``Clock.now``.
    """
    global _run_by
    if _run_by is not None and _run_by[0] is this_process():
        raise RuntimeError(f"the callbacks of this process run already, beside the clock of {_run_by[1]}")
    _run_by = mine = this_process(), clock.path
    turn = anyio.Lock()

    async def after(_: Snapshot) -> None:
        async with turn:
            await _run(tuple(_after), "after a restore")

    async def before(events: EventStream) -> None:
        seen = events.snapshot
        is_announced = _is_imminent(seen)
        while True:
            if is_announced:
                async with turn:
                    await _run(_before[::-1], "before a snapshot")
            event = await events.receive()
            is_announced = _announces(event) and event.snapshot is not seen  # one commit may show it in two events
            seen = event.snapshot if is_announced else seen

    try:
        async with clock.events() as events, clock.on_restore(after), beside(lambda: before(events)):
            yield
    finally:
        if _run_by is mine:
            _run_by = None


def _announces(event: Event) -> bool:
    """Whether *event* says that a disruption is imminent."""
    match event:
        case MaintenanceAnnounced(imminent=True):
            return True
        case Disrupted(before, after) if device_marker(before) != device_marker(after):
            return _is_imminent(event.snapshot)  # the announced one is over, so this is the next
    return False


def _is_imminent(snapshot: Snapshot) -> bool:
    return bool(int(snapshot.body.flags) & Flags.DISRUPTION_IMMINENT.value)


async def _run(registered: Iterable[_Callback], when: str) -> None:
    """Run all of *registered*.

    Raises:
        ExceptionGroup: what failed.
    """
    failures: list[Exception] = []
    for callback in registered:
        try:
            await callback.run()
        except Exception as exc:  # a stranger's code, and the others have to run all the same
            _log.exception("the callback %s %s failed", callback, when)
            exc.add_note(f"in the callback {callback} {when}")
            failures.append(exc)
    if failures:
        raise ExceptionGroup(f"callbacks {when} failed", failures)
