"""Whether a source keeps the promises in the docstring of ``Source``.

A source runs as in the publisher: once until it has emitted its updates, and once more while epochs end. Then it is
cancelled at its first await, its second, and so on, and then it runs twice in a row. After each run there must be no
more tasks, threads and descriptors than before. The first run does not count for that, because libraries open some
things once and for all.

If the rest of the process may be the cause of a finding, the run is repeated, and only what is found each time counts.
"""

import ctypes
import inspect
import math
import os
import threading
import time
from collections.abc import Callable, Coroutine
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any, Final, NamedTuple, NoReturn, final

import anyio
import anyio.lowlevel
from pydantic import BaseModel

from vmclock_async._publishing.loop_watch import LoopWatch, package, package_of, place, stack
from vmclock_async._publishing.plausibility import Plausibility
from vmclock_async._wording import failure
from vmclock_async.errors import VMClockError
from vmclock_async.models import BodyUpdate
from vmclock_async.reckoning import ticks_between
from vmclock_async.sources import Emit, Source
from vmclock_async.testing._awaits import AWAITS_TO_UNWIND, STEP, Awaits, WentOn
from vmclock_async.testing._held import Held, Thing
from vmclock_async.timebase import COUNTER_ID, counter_ticks

__all__ = ("check_source",)

_CANCELLED_AT: Final = range(1, 17)
_TRIES: Final = 3
"""Number of times in a row that something must be found before it is believed."""
_CONSTRUCTING_S: Final = 0.05
_BLOCKING_S: Final = 0.1
_BLOCKED_FOR_GOOD_S: Final = 2.0
_MANY: Final = 1000
_FORGOTTEN: Final = ("it emits with await emit(update)", "it called emit without await")
_LONG: Final = 20
"""How many times as long a second run may take to emit what the first run emitted."""


async def check_source(make_source: Callable[[], Source], *, patience_s: float = 0.5) -> tuple[BodyUpdate, ...]:
    """Assert that the sources that *make_source* makes keep the promises of ``Source``; return the first one's updates.

    This takes a few times *patience_s* if the source has no end. A source that shields a wait for ever is not found,
    but hangs.

    Args:
        make_source: returns a new source at each call. All are alike and can run here: what they read is there.
        patience_s: time, in seconds, in which a source must emit its updates; more than one poll of it.

    Raises:
        AssertionError: a promise is broken; the message says which, and what was seen.
    """
    name = type(await _construct(make_source)).__name__
    first = await _first_run(name, make_source, patience_s)
    if any(update.measures for update in first.updates):
        await _run(name, make_source(), patience_s=patience_s, epochs_end=True)
    for number in _CANCELLED_AT:
        run = await _leaving_nothing(name, make_source, patience_s, number)
        if not run.reached:
            break
        if run.error is None and not run.was_cancelled and run.says_less_than(first):
            _broken(name, "run may be cancelled at any await", f"at await {number} it took that for its end")
    await _run_twice(name, make_source(), patience_s)
    return first.updates


def _broken(name: str, promise: str, seen: str) -> NoReturn:
    raise AssertionError(f"{name} breaks a promise of Source: {promise}; but {seen}")


async def _construct(make_source: Callable[[], Source]) -> Source:
    """A source, if its construction was quick and left nothing, at least once in three times."""
    took_s = math.inf
    left: list[Thing] = []
    made = []  # keeps all of them: otherwise making the next one closes what one has
    for number in range(_TRIES):
        before, began = Held.now(), time.perf_counter()
        source = make_source()
        made.append(source)
        took_s = min(took_s, time.perf_counter() - began)
        left = _each_time(left, await before.exceeded_by(), first=number == 0)
    name = type(source).__name__
    if left:
        _broken(name, "constructing it does no work", f"it came with {_listed(left)}")
    if took_s > _CONSTRUCTING_S:
        _broken(name, "constructing it does no work that waits", f"it took {took_s:.3f} s")
    settings_type = getattr(source, "settings_type", None)
    if not (isinstance(settings_type, type) and issubclass(settings_type, BaseModel)):
        _broken(name, "settings_type is a pydantic model", f"it is {settings_type!r}")
    if not inspect.iscoroutinefunction(source.run):
        _broken(name, "run is an async function", f"it is {source.run!r}")
    return source


async def _first_run(name: str, make_source: Callable[[], Source], patience_s: float) -> "_Run":
    """The end of a run that emits something, and does not block the loop each time."""
    for _ in range(_TRIES):
        run = await _run(name, make_source(), patience_s=patience_s)
        if run.blocked is None:
            break
    else:
        _broken(
            name, "run never blocks the event loop", f"it held it for {_BLOCKING_S:g} s and more in {run.blocked}"
        )
    if run.says_nothing and run.was_told_to_end:
        run = await _run(name, make_source(), patience_s=patience_s * _LONG, enough=1)
    if run.says_nothing and run.error is None:
        seen = (
            f"it did neither within {patience_s * _LONG:g} s" if run.was_cancelled else "it returned with neither"
        )
        _broken(name, "run emits an update or a report, or raises what keeps it from that", seen)
    return run


async def _leaving_nothing(
    name: str, make_source: Callable[[], Source], patience_s: float, cancel_at: int
) -> "_Run":
    """The end of a run that is cancelled at its await *cancel_at*, if it does not leave something each time."""
    left: list[Thing] = []
    for number in range(_TRIES):
        before = Held.now()
        patient_s = patience_s * (_LONG if left else 1)  # once something was left, the await is known to come
        run = await _run(name, make_source(), patience_s=patient_s, cancel_at=cancel_at)
        left = _each_time(left, await before.exceeded_by(), first=number == 0)
        if not left:
            return run
    where = f"cancelled at its await {cancel_at}" if run.was_cancelled else "when it had ended"
    _broken(name, "run leaves no task, thread or descriptor behind", f"{where}, it left {_listed(left)}")


def _each_time(left: list[Thing], now: list[Thing], *, first: bool) -> list[Thing]:
    """Things that are left *now*, of the kinds of what was *left* before."""
    kinds = {thing.kind for thing in left}
    return [thing for thing in now if first or thing.kind in kinds]


def _listed(things: list[Thing]) -> str:
    return ", ".join(sorted(thing.name for thing in things))


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
    """The end of a run."""

    updates: tuple[BodyUpdate, ...]
    reports: int
    error: VMClockError | None
    was_told_to_end: bool
    """Whether it was cancelled, by the end of the patience too, whatever it made of that."""
    was_cancelled: bool
    reached: bool
    """Whether the await came at which the run was to be cancelled."""
    blocked: str | None
    """Place where it held the event loop."""

    @property
    def says_nothing(self) -> bool:
        return not (self.updates or self.reports)

    def says_less_than(self, other: "_Run") -> bool:
        return len(self.updates) < len(other.updates)


async def _run(
    name: str,
    source: Source,
    *,
    patience_s: float,
    cancel_at: int | None = None,
    enough: int | None = None,
    epochs_end: bool = False,
) -> _Run:
    """Run *source* until it ends, until *patience_s* is over, until its await *cancel_at* or *enough* updates."""
    error: VMClockError | None = None
    blocking = _Blocking(source)
    async with anyio.create_task_group() as tasks:
        if cancel_at is None:
            await tasks.start(LoopWatch(_BLOCKING_S, blocking.is_held).run)
        with (
            TemporaryDirectory(prefix="vmclock-async-check-") as directory,
            anyio.move_on_after(patience_s) as scope,
        ):
            emit = _Listener(os.path.join(directory, "shm0"), scope, enough, epochs_end=epochs_end)
            awaits = Awaits(scope, cancel_at)
            not_its_own = (anyio.get_cancelled_exc_class(), KeyboardInterrupt, GeneratorExit)
            try:
                await awaits.counted(source.run(emit))
            except VMClockError as exc:
                error = exc
            except WentOn:
                emit.broken.append(
                    ("run may be cancelled at any await", f"it went on for {AWAITS_TO_UNWIND} awaits after that")
                )
            except not_its_own:
                raise
            except BaseException as exc:  # a stranger's code: whatever it raises is the finding
                if isinstance(exc, BaseExceptionGroup) and exc.subgroup(not_its_own):
                    raise
                emit.broken.append(
                    ("run raises SourceUnavailableError, or another VMClockError", f"it raised {failure(exc)}")
                )
        tasks.cancel_scope.cancel()
    emit.note_forgotten()
    if blocking.for_good:
        _broken(name, "run never blocks the event loop", f"it held it for good in {blocking.place}")
    if emit.broken:
        _broken(name, *emit.broken[0])
    reached = cancel_at is not None and awaits.number >= cancel_at
    return _Run(
        tuple(emit.updates),
        emit.reports,
        error,
        scope.cancel_called,
        scope.cancelled_caught,
        reached,
        blocking.place,
    )


class _BlockedForGood(BaseException):
    """Ends code that never lets the loop run again."""


@final
class _Blocking:
    """Notes where *source* holds the event loop, and ends it if it holds the loop for good."""

    def __init__(self, source: Source) -> None:
        self._loop_thread: Final = threading.get_ident()
        self._package: Final = package_of(source)
        self.place: str | None = None
        self.for_good = False

    def is_held(self, frame: FrameType, held_s: float) -> None:
        """Called by a ``LoopWatch``."""
        if not any(caller.f_code is STEP or package(caller) == self._package for caller in stack(frame)):
            return  # held by another task of this loop
        self.place = place(frame, (self._package,))
        if held_s > _BLOCKED_FOR_GOOD_S and not self.for_good:
            self.for_good = True
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(self._loop_thread), ctypes.py_object(_BlockedForGood)
            )


@final
class _Listener(Emit):
    """Receives a source's updates; notes each broken promise, because the source may not let the error out."""

    def __init__(self, segment: str, scope: anyio.CancelScope, enough: int | None, *, epochs_end: bool) -> None:
        self._segment: Final = segment
        self._scope: Final = scope
        self._enough: Final = enough
        self._epochs_end: Final = epochs_end
        self._epoch = 0  # a publisher's first
        self._given: Final[set[int]] = set()
        self._reads: list[tuple[int, int]] = []
        """The reads of the epoch since the last measurement: the counter at each, and the epoch."""
        self._measured_at: int | None = None
        """counter_value of the last measurement."""
        self._plausibility: Final = Plausibility()
        self._not_awaited: Final[dict[object, Coroutine[Any, Any, None]]] = {}
        self.updates: Final[list[BodyUpdate]] = []
        self.reports = 0
        """Number of reported disruptions and announcements."""
        self.broken: Final[list[tuple[str, str]]] = []

    @property
    def epoch(self) -> int:
        self._reads.append((counter_ticks(), self._epoch))
        self._given.add(self._epoch)
        return self._epoch

    @property
    def segment(self) -> str:
        return self._segment

    async def disrupt(self, reason: str, *, restored: bool = False) -> None:
        await anyio.lowlevel.checkpoint()
        if not (isinstance(reason, str) and reason):
            self._refuse("a disruption has a reason, in words", f"it reported {reason!r}")
        self._epoch += 1
        self.reports += 1

    async def announce_restores(self) -> None:
        await anyio.lowlevel.checkpoint()
        self.reports += 1

    def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> Coroutine[Any, Any, None]:
        if len(self._not_awaited) >= _MANY:
            self._refuse(*_FORGOTTEN)
        number = object()
        call = self._not_awaited[number] = self._take(number, update, epoch)
        return call

    def note_forgotten(self) -> None:
        """Note a call of this object that was not awaited; the run is over."""
        forgotten = [
            call
            for call in self._not_awaited.values()
            if inspect.getcoroutinestate(call)
            == inspect.CORO_CREATED  # its task was not cancelled before it began
        ]
        for call in forgotten:
            call.close()  # otherwise Python warns of it too
        if forgotten:
            self.broken.append(_FORGOTTEN)

    async def _take(self, number: object, update: BodyUpdate, epoch: int | None) -> None:
        del self._not_awaited[number]
        await anyio.lowlevel.checkpoint()
        if not isinstance(update, BodyUpdate):
            self._refuse("it emits BodyUpdates", f"it emitted {update!r}")
        # A whole body is passed on as it is, because it may be another machine's.
        if not update.verbatim and (objection := self._plausibility.objection(update)):
            self._refuse("a time is complete, and in the ABI's units", f"it {objection.reason}")
        # An update with its own marker says by itself which epoch it belongs to.
        if update.measures and "disruption_marker" not in update.model_fields_set:
            self._look_at_epoch(update, epoch)
        self.updates.append(update)
        if len(self.updates) == self._enough:
            self._scope.cancel()

    def _look_at_epoch(self, update: BodyUpdate, epoch: int | None) -> None:
        promise = "a source of time reads emit.epoch before it measures, and passes it on"
        if epoch is None:
            self._refuse(promise, f"it emitted a measurement without an epoch: {update!r}")
        if epoch not in self._given:
            self._refuse(promise, f"it emitted a measurement with epoch {epoch}, which emit.epoch did not give it")
        if update.counter_id == COUNTER_ID and update.counter_value is not None:
            self._look_at_reads(update.counter_value, epoch)
        self._epoch += self._epochs_end

    def _look_at_reads(self, measured_at: int, epoch: int) -> None:
        last = self._measured_at
        if last is not None and ticks_between(last, measured_at) <= 0:
            return  # the same measurement as before, emitted again
        since = [ticks_between(measured_at, at) for at, given in self._reads if given == epoch]
        if not since:
            self._refuse(
                "a source of time reads emit.epoch before each measurement",
                f"it emitted a measurement with epoch {epoch}, which it had read before the measurement before",
            )
        if min(since) > 0:
            self._refuse(
                "a source of time reads emit.epoch before it measures, and passes it on",
                f"it read emit.epoch {min(since)} ticks after the counter_value that it emitted",
            )
        self._measured_at = measured_at
        self._reads = [(at, given) for at, given in self._reads if ticks_between(measured_at, at) > 0]

    def _refuse(self, promise: str, seen: str) -> NoReturn:
        self.broken.append((promise, seen))
        raise AssertionError(seen)
