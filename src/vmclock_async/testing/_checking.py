"""Whether a source keeps the promises in the docstring of ``Source``.

A source is run as the publisher runs it: once until it has said what it has to say, then to be cancelled at its first
await, its second, and so on, and then twice in a row. After each run there must be no more tasks, threads and
descriptors than before. The first run does not count for that: libraries open some things once and for all.
"""

import inspect
import math
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Final, NamedTuple, NoReturn, final

import anyio
import anyio.lowlevel
from pydantic import BaseModel

from vmclock_async.errors import VMClockError
from vmclock_async.models import BodyUpdate
from vmclock_async.reckoning import ticks_between
from vmclock_async.sources import Emit, Source
from vmclock_async.testing._held import Held
from vmclock_async.timebase import COUNTER_ID, counter_ticks

__all__ = ("check_source",)

_CANCELLED_AT: Final = range(1, 17)
_CONSTRUCTING_S: Final = 0.05
_AWAITS_TO_UNWIND: Final = 1000
_LONG: Final = 20
"""How many times as long a second run may take to say what the first said."""


async def check_source(make_source: Callable[[], Source], *, patience_s: float = 0.5) -> tuple[BodyUpdate, ...]:
    """Assert that the sources that *make_source* makes keep the promises of ``Source``; what the first one emitted.

    Takes a few times *patience_s* where the source has no end. A source that does not end when it is cancelled,
    because it blocks the event loop or shields a wait for ever, is not caught, but hangs.

    Args:
        make_source: gives a new source at each call, all alike, that can run here: what it reads is there.
        patience_s: how long a source is given to say what it has to say, seconds; more than one poll of it.

    Raises:
        AssertionError: a promise is broken; says which, and what was seen.
    """
    name = type(_construct(make_source)).__name__
    first = await _run(name, make_source(), patience_s=patience_s)
    for number in _CANCELLED_AT:
        before = Held.now()
        run = await _run(name, make_source(), patience_s=patience_s, cancel_at=number)
        where = f"cancelled at its await {number}" if run.was_cancelled else "when it had ended"
        if left := await before.exceeded_by():
            _broken(name, "run leaves no task, thread or descriptor behind", f"{where}, it left {left}")
        if not run.reached:
            break
        if run.error is None and not run.was_cancelled and (first.was_cancelled or run.says_less_than(first)):
            _broken(name, "run may be cancelled at any await", f"at await {number} it took that for its end")
    await _run_twice(name, make_source(), patience_s)
    return first.updates


check_source.__module__ = "vmclock_async.testing"


def _broken(name: str, promise: str, seen: str) -> NoReturn:
    raise AssertionError(f"{name} breaks a promise of Source: {promise}; but {seen}")


def _construct(make_source: Callable[[], Source]) -> Source:
    """A source, if making it was quick at least once in three times."""
    took_s = math.inf
    for _ in range(3):
        before, began = Held.now(), time.perf_counter()
        source = make_source()
        took_s = min(took_s, time.perf_counter() - began)
        name = type(source).__name__
        if left := before.exceeded_by_now():
            _broken(name, "constructing it does no work", f"it came with {left}")
    if took_s > _CONSTRUCTING_S:
        _broken(name, "constructing it does no work that waits", f"it took {took_s:.3f} s")
    settings_type = getattr(source, "settings_type", None)
    if not (isinstance(settings_type, type) and issubclass(settings_type, BaseModel)):
        _broken(name, "settings_type is a pydantic model", f"it is {settings_type!r}")
    return source


async def _run_twice(name: str, source: Source, patience_s: float) -> None:
    promise = "it may be run again after it has returned or raised"
    first = await _run(name, source, patience_s=patience_s)
    enough = len(first.updates) if not first.was_cancelled else min(1, len(first.updates))
    again = await _run(name, source, patience_s=patience_s * (_LONG if enough else 1), enough=enough)
    if len(again.updates) < enough:
        how = f"raised {again.error!r}" if again.error else "was patiently waited for"
        _broken(
            name,
            promise,
            f"the first run emitted {len(first.updates)}, the second {len(again.updates)}, and {how}",
        )


class _Run(NamedTuple):
    """How a run ended."""

    updates: tuple[BodyUpdate, ...]
    error: VMClockError | None
    was_cancelled: bool
    reached: bool
    """Whether the await at which it was to be cancelled came."""

    def says_less_than(self, other: "_Run") -> bool:
        return len(self.updates) < len(other.updates)


async def _run(
    name: str, source: Source, *, patience_s: float, cancel_at: int | None = None, enough: int | None = None
) -> _Run:
    """Run *source* until it ends, until *patience_s* is over, until its await *cancel_at* or *enough* updates."""
    error: VMClockError | None = None
    with anyio.move_on_after(patience_s) as scope:
        emit = _Listener(scope, enough)
        awaits = _Awaits(scope, cancel_at)
        running = source.run(emit)
        if not inspect.isawaitable(running):
            _broken(name, "run is an async function", f"it returned {running!r}")
        try:
            await awaits.counted(running)
        except VMClockError as exc:
            error = exc
        except _WentOn:
            emit.broken.append(
                ("run may be cancelled at any await", f"it went on for {_AWAITS_TO_UNWIND} awaits after that")
            )
        except Exception as exc:  # a stranger's code: whatever it is, it is what was seen
            emit.broken.append(
                ("run raises SourceUnavailableError, or another VMClockError", f"it raised {exc!r}")
            )
    if emit.broken:
        _broken(name, *emit.broken[0])
    reached = cancel_at is not None and awaits.number >= cancel_at
    return _Run(tuple(emit.updates), error, scope.cancelled_caught, reached)


@final
class _Listener(Emit):
    """Looks at what a source says; notes the promise that it breaks, for the source may not let the error out."""

    def __init__(self, scope: anyio.CancelScope, enough: int | None) -> None:
        self._scope: Final = scope
        self._enough: Final = enough
        self._epoch_read_at: int | None = None
        self.updates: Final[list[BodyUpdate]] = []
        self.broken: Final[list[tuple[str, str]]] = []

    @property
    def epoch(self) -> int:
        if self._epoch_read_at is None:
            self._epoch_read_at = counter_ticks()
        return 0  # a publisher's first

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        if not isinstance(update, BodyUpdate):
            self._refuse("it emits BodyUpdates", f"it emitted {update!r}")
        # One that has a marker of its own says itself in which epoch it is.
        if update.measures and "disruption_marker" not in update.model_fields_set:
            self._look_at_epoch(update, epoch)
        self.updates.append(update)
        if len(self.updates) == self._enough:
            self._scope.cancel()

    def _look_at_epoch(self, update: BodyUpdate, epoch: int | None) -> None:
        promise = "a source of time reads emit.epoch before it measures, and passes it on"
        if epoch is None:
            self._refuse(promise, f"it emitted a measurement without an epoch: {update!r}")
        if self._epoch_read_at is None or epoch != 0:
            self._refuse(promise, f"it emitted a measurement with epoch {epoch}, which emit.epoch did not give it")
        if update.counter_id == COUNTER_ID and update.counter_value is not None:
            late = ticks_between(update.counter_value, self._epoch_read_at)
            if late > 0:
                self._refuse(promise, f"it read emit.epoch {late} ticks after the counter_value that it emitted")

    def _refuse(self, promise: str, seen: str) -> NoReturn:
        self.broken.append((promise, seen))
        raise AssertionError(seen)


class _WentOn(BaseException):
    """Ends a run that does not let itself be cancelled."""


@final
class _Awaits:
    """Counts the times that an awaitable lets others run, and cancels *scope* at one of them."""

    def __init__(self, scope: anyio.CancelScope, cancel_at: int | None) -> None:
        self._scope: Final = scope
        self._cancel_at: Final = cancel_at
        self._since_cancelled = 0
        self.number = 0

    async def counted(self, awaitable: Awaitable[Any]) -> None:
        await _Stepped(awaitable, self._count)

    def _count(self) -> None:
        self.number += 1
        self._since_cancelled += self._scope.cancel_called
        if self.number == self._cancel_at:
            self._scope.cancel()
        if self._since_cancelled > _AWAITS_TO_UNWIND:
            raise _WentOn


@final
class _Stepped:
    """An awaitable that calls *on_suspend* each time that it is about to let others run."""

    def __init__(self, awaitable: Awaitable[Any], on_suspend: Callable[[], None]) -> None:
        self._awaitable: Final = awaitable
        self._on_suspend: Final = on_suspend

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._awaitable.__await__()
        resume: Callable[[], Any] = steps.__next__
        while True:
            try:
                waits_for = resume()
            except StopIteration as stop:
                return stop.value
            try:
                self._on_suspend()
            except BaseException:
                with suppress(RuntimeError):  # it ignored that, too
                    steps.close()
                raise
            resume = yield from _resumed(steps, waits_for)


def _resumed(steps: Generator[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Callable[[], Any]]:
    """Let others run; then how *steps* goes on."""
    try:
        value = yield waits_for
    except BaseException as exc:
        error = exc
        return lambda: steps.throw(error)
    return lambda: steps.send(value)
