"""A stepped play of one segment's writer and its waiters: each run of it follows a list of moves, and nothing else.

What is played is the event loop's order and its time. The reader, its watch, the file and inotify are the real ones,
and they are deterministic: what a commit queues is queued when the call that wakes has returned. The loop has the turns
of asyncio's own: it polls once, and then runs what was ready by then; what becomes ready meanwhile waits for the next.
"""

import asyncio
import os
import queue
import select
from collections import Counter, deque
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from pathlib import Path
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import anyio

from vmclock_async import SegmentReader, VMClockBody, _core

if TYPE_CHECKING:
    from _typeshed import HasFileno

    _Loop = Any  # it lacks forty methods that nothing here calls
else:
    _Loop = asyncio.AbstractEventLoop

T = TypeVar("T")
_AT_ONCE: Final = 6
"""Readers that are being closed, of the 128 inotify instances that a user may have for all tests at once."""
Move = tuple[str, int]
FAR_S: Final = 1e6
"""A poll interval that no play reaches."""


def callback_of(handle: Any) -> Any:
    """What *handle* calls."""
    return handle._callback


def named(callback: Any) -> str:
    """The name of what a handle calls."""
    return str(getattr(callback, "__qualname__", type(callback).__name__))


class SteppedLoop(_Loop):  # type: ignore[misc]
    """An event loop that runs one callback when it is told to."""

    def __init__(self) -> None:
        self.ready: deque[asyncio.Handle] = deque()
        self.in_turn = 0
        """How many of `ready` are of this turn."""
        self.timers: list[asyncio.TimerHandle] = []
        self.readers: dict[int, asyncio.Handle] = {}
        self.now = 0.0
        self.of_threads: queue.SimpleQueue[asyncio.Handle] = queue.SimpleQueue()

    # What tasks, futures and anyio ask for.

    def time(self) -> float:
        return self.now

    def get_debug(self) -> bool:
        return False

    def is_closed(self) -> bool:
        return False

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> "asyncio.Task[Any]":
        return asyncio.Task(coro, loop=self, **options)

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        self.ready.append(asyncio.Handle(callback, args, self, context))
        return self.ready[-1]

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self.of_threads.put(handle)
        return handle

    def call_at(
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self.timers.append(timer)
        return timer

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        if timer in self.timers:  # else it is due, and `ready` has it
            self.timers.remove(timer)

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:
        self.readers[fd] = asyncio.Handle(callback, args, self, None)

    def remove_reader(self, fd: Any) -> bool:
        handle = self.readers.pop(fd, None)
        if handle is not None:
            handle.cancel()
        return handle is not None

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        raise AssertionError(context)

    # What a play does.

    def readable(self) -> list[int]:
        """The descriptors that a poll would find."""
        poll = select.poll()
        for fd in self.readers:
            poll.register(fd, select.POLLIN)
        return [fd for fd, _ in poll.poll(0)]

    def step(self) -> None:
        """Begin the next turn if none is in progress, else run its next callback."""
        if not self.in_turn:
            self.ready.extend(self.readers[fd] for fd in self.readable())
            due = sorted(
                (timer for timer in self.timers if timer.when() <= self.now), key=lambda timer: timer.when()
            )
            for timer in due:
                self.timers.remove(timer)
                self.ready.append(timer)
            self.in_turn = len(self.ready)
            return
        self.in_turn -= 1
        handle = self.ready.popleft()
        if not handle.cancelled():
            self.within(handle._run)

    def has_to_do(self) -> bool:
        """Whether a step changes anything."""
        return bool(
            self.ready or self.in_turn or self.readable() or any(t.when() <= self.now for t in self.timers)
        )

    def state(self, tasks: dict[Any, int]) -> Hashable:
        """What decides how it goes on, with the numbers of *tasks* in place of them."""
        return (
            self.in_turn,
            tuple(
                (
                    named(callback_of(each)),
                    tasks.get(getattr(callback_of(each), "__self__", None)),
                    each.cancelled(),
                )
                for each in self.ready
            ),
            tuple(sorted((timer.when() - self.now, named(callback_of(timer))) for timer in self.timers)),
            len(self.readable()),
        )

    def within(self, call: Callable[[], T]) -> T:
        """Call as if a callback of this loop did."""
        asyncio._set_running_loop(self)
        try:
            return call()
        finally:
            asyncio._set_running_loop(None)


class Allowed(NamedTuple):
    """How many waiters there are, and how often each other move may be made."""

    waiters: int = 3
    commits: int = 1
    cancels: int = 1
    replacements: int = 0
    time_outs: int = 0
    together: bool = False
    """Whether the waiters start before anything else."""
    natively: bool = False
    """Whether cancelling is asyncio's own, which no scope of anyio's has to do with."""


class Play:
    """A segment in *folder*, and waiters for it: each waits until it has seen the last change, or is cancelled.

    Moves: the loop makes a step; a waiter starts, or is cancelled; its thread is heard by the loop; a commit; another
    segment takes the path; the next time-out falls due.
    """

    def __init__(self, folder: Path, allowed: Allowed) -> None:
        self._folder: Final = folder
        self._allowed: Final = allowed
        self._loop: Final = SteppedLoop()
        self._made: Final = Counter[str]()
        self._tasks: Final[list[asyncio.Task[None]]] = []
        self._scopes: Final[dict[int, anyio.CancelScope]] = {}
        self._cancelled: Final[set[int]] = set()
        self._seen: Final = [0] * allowed.waiters
        self._in_thread: Final[dict[int, asyncio.Handle | None]] = {}
        """By waiter whose call is in a thread: the result, until the loop has been handed it."""
        self._page = self._put_segment(0)
        self.reader: Final = SegmentReader(folder / "shm0")
        self._first: Final = self.reader.snapshot()

    def _put_segment(self, number: int) -> _core.Page:
        """Move a new segment that shows *number* over the path, with the seq_count that every one has at first."""
        fd = os.open(self._folder / "new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        os.posix_fallocate(fd, 0, 104)
        page = _core.Page(fd, writable=True)
        page.reset(104)
        page.commit(VMClockBody(counter_value=number).pack(), None, None)
        (self._folder / "new").rename(self._folder / "shm0")
        return page

    async def _wait(self, waiter: int) -> None:
        snapshot = self._first
        patience_s = 10.0 - waiter if self._allowed.time_outs else FAR_S
        with anyio.CancelScope() as self._scopes[waiter]:
            while self._seen[waiter] < self._allowed.commits + self._allowed.replacements:
                snapshot = await self.reader.wait_changed(snapshot, poll_interval=patience_s)
                self._seen[waiter] = snapshot.body.counter_value

    def moves(self) -> list[Move]:
        """What may come next."""
        if self._allowed.together and len(self._tasks) < self._allowed.waiters:
            return [("start", len(self._tasks))]
        moves: list[Move] = [("step", 0)] if self._loop.has_to_do() else []
        moves += [("thread", waiter) for waiter, handle in self._in_thread.items() if handle is not None]
        if len(self._tasks) < self._allowed.waiters:
            moves.append(("start", len(self._tasks)))
        if self._made["commit"] < self._allowed.commits:
            moves.append(("commit", 0))
        if self._made["replace"] < self._allowed.replacements:
            moves.append(("replace", 0))
        if self._made["time-out"] < self._allowed.time_outs and self._loop.timers:
            moves.append(("time-out", 0))
        if self._made["cancel"] < self._allowed.cancels:
            waiting = set(self._scopes) - self._cancelled
            moves += [("cancel", waiter) for waiter in sorted(waiting) if not self._tasks[waiter].done()]
        return moves

    def make(self, move: Move) -> None:
        """Make one move."""
        kind, waiter = move
        self._made[kind] += 1
        number = self._made["commit"] + self._made["replace"]
        match kind:
            case "step":
                self._loop.step()
            case "thread":
                handle = self._in_thread[waiter]
                assert handle is not None
                self._loop.ready.append(handle)
                self._in_thread[waiter] = None
            case "start":
                self._tasks.append(self._loop.within(lambda: self._loop.create_task(self._wait(waiter))))
            case "commit":
                self._page.commit(VMClockBody(counter_value=number).pack(), None, None)
                os.utime(self._page.fileno())  # as the core's thread does, but here and now
            case "replace":
                self._page.close()
                self._page = self._put_segment(number)
            case "time-out":
                self._loop.now = max(self._loop.now, min(timer.when() for timer in self._loop.timers))
            case "cancel":
                self._cancelled.add(waiter)
                task, scope = self._tasks[waiter], self._scopes[waiter]
                self._loop.within(task.cancel if self._allowed.natively else scope.cancel)
        self._hear_threads()

    def _hear_threads(self) -> None:
        """Let a thread that a waiter has just begun come to its end: only when the loop is told is a move."""
        for waiter in range(len(self._tasks)):
            is_in_thread = self._places(waiter)[-1:] and self._places(waiter)[-1][0] == "run_sync_in_worker_thread"
            if not is_in_thread:
                self._in_thread.pop(waiter, None)
            elif waiter not in self._in_thread:
                self._in_thread[waiter] = self._loop.of_threads.get(timeout=10)

    def _places(self, waiter: int) -> list[tuple[str, int]]:
        """Where *waiter* is suspended: each function, from the outermost, and how far it has come."""
        places: list[tuple[str, int]] = []
        coroutine: Any = self._tasks[waiter].get_coro()
        while isinstance(coroutine, CoroutineType) and coroutine.cr_frame is not None:
            places.append((coroutine.cr_frame.f_code.co_name, coroutine.cr_frame.f_lasti))
            coroutine = coroutine.cr_await
        return places

    def state(self) -> Hashable:
        """What decides how it goes on: of two plays in one state, both go on alike."""
        tasks = {task: waiter for waiter, task in enumerate(self._tasks)}
        followed = list(self.reader._followed.values())
        watch: Any = followed[0].watch if followed else None
        assert watch is None or watch.polling_because is None, watch.polling_because
        places: dict[Any, object] = {}  # in the watch, of who waits behind
        if watch is not None:
            places = {woken: at for at, woken in enumerate(watch._others)} | {watch._next: "next"}
        return (
            tuple(sorted(self._made.items() - {("step", self._made["step"])})),
            tuple(sorted(self._cancelled)),
            tuple((*self._places(waiter), self._seen[waiter]) for waiter in range(len(self._tasks))),
            tuple(places.get(woken, "woken") for woken in map(self._event, range(len(self._tasks)))),
            tuple((waiter, handle is None) for waiter, handle in self._in_thread.items()),
            self._loop.state(tasks),
            self.reader.statistics().reopened,
            None
            if watch is None
            else (watch._in_front, watch._queue._loop is not None, is_readable(watch._inotify)),
        )

    def _event(self, waiter: int) -> object:
        """What *waiter* waits for behind others."""
        coroutine: Any = self._tasks[waiter].get_coro()
        while isinstance(coroutine, CoroutineType) and coroutine.cr_frame is not None:
            if coroutine.cr_frame.f_code.co_name == "_wait_behind":
                return coroutine.cr_frame.f_locals.get("woken")
            coroutine = coroutine.cr_await
        return self

    def asleep(self) -> list[int]:
        """The waiters that have not ended."""
        return [waiter for waiter, task in enumerate(self._tasks) if not task.done()]

    def end(self) -> None:
        """End the waiters. What is left to close is the reader."""
        for task in self._tasks:
            self._loop.within(task.cancel)
        while self.asleep():
            self._hear_threads()
            for waiter, handle in self._in_thread.items():
                if handle is not None:
                    self.make(("thread", waiter))
            self._loop.step()
        while self._loop.has_to_do():
            self._loop.step()
        self._page.close()


def is_readable(file: "HasFileno") -> bool:
    """Whether a poll would find *file* readable."""
    return bool(select.select([file], [], [], 0)[0])


class Explored(NamedTuple):
    """What a search has found."""

    states: int
    plays: int
    asleep: list[tuple[list[int], list[Move]]]
    """The waiters that were left asleep, and by which moves."""


def explore(folder: Path, allowed: Allowed) -> Explored:
    """Make every move in every state that can be reached; a state that was reached before is not gone on from."""
    reached: set[Hashable] = set()
    plays, asleep = 0, []
    # To close an inotify instance takes the kernel milliseconds, in which it does nothing.
    closing: deque[Future[None]] = deque()
    closers = ThreadPoolExecutor(_AT_ONCE)
    to_come: list[list[Move]] = [[]]
    while to_come:
        made = to_come.pop()
        plays += 1
        play = Play(folder, allowed)
        try:
            for move in made:
                play.make(move)
            while (state := play.state()) not in reached:
                reached.add(state)
                moves = play.moves()
                if not {kind for kind, _ in moves} - {"cancel", "time-out"} and play.asleep():
                    asleep.append((play.asleep(), made))
                if not moves:
                    break
                to_come += [[*made, other] for other in moves[1:]]
                made = [*made, moves[0]]
                play.make(moves[0])
        finally:
            play.end()
            closing.append(closers.submit(play.reader.close))
        if len(closing) > _AT_ONCE:
            closing.popleft().result()
    closers.shutdown()
    return Explored(len(reached), plays, asleep)
