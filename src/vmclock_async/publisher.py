"""The publisher: supervised sources on one side, the one task that writes on the other.

Sources run as tasks of one task group. Each hands its updates over a stream without a buffer to the writer task,
which makes one body of them and commits it. So there is no queue in which a time could grow old, and one place
where the segment changes.

Each step of an update's way has a module of its own in ``_publishing``: relaying, merging, disruptions and epochs,
nesting, sources that go quiet.

Invariants:
    * Only the writer task touches the segment. A commit has no await in it: cancelling at any point leaves a whole
      body, an even seq_count and no lock.
    * Updates are taken in order, none skipped or joined with another. That of a sole source is a commit each; of
      several, one that changes nothing of what is published is none.
    * Right before each commit, and once a second, the device's marker and the counter's continuity are looked at:
      no time from before a disruption is committed after it was to be seen.
    * The segment is opened when the first source has been heard (an update, or that it is unavailable for now). A
      run that fails before that, on a recording that does not exist for one, has written nothing.
"""

import logging
import math
import os
import random
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from types import FrameType
from typing import Final, Literal, final

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from vmclock_async._paths import absolute
from vmclock_async._publishing.committer import Committer
from vmclock_async._publishing.loop_watch import InterruptedSource, LoopWatch, holders, package_of, place, run_as
from vmclock_async._strangers import source_error
from vmclock_async.abi import SEGMENT_SIZE_WITH_GENERATION, CounterId
from vmclock_async.errors import (
    InvalidUpdateError,
    SourceError,
    SourceUnavailableError,
    VMClockError,
)
from vmclock_async.models import BodyUpdate
from vmclock_async.segment import SegmentWriter
from vmclock_async.sources import Source

__all__ = ("Publisher", "PublisherStatistics", "SourceState", "SourceStatistics")

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 30.0
LONG_ENOUGH_S: Final = 5.0
"""A source that ran as long was there; what it says next is news, and it is tried again soon."""
LOOK_EVERY_S: Final = 1.0
"""How often the writer looks at markers, suspends and quiet sources while no update comes."""
HELD_AFTER_S: Final = 2.0
"""How long a source holds the event loop before the log names it."""

_log: Final = logging.getLogger("vmclock_async.publisher")

SourceState = Literal["new", "running", "unavailable", "finished", "failed"]


@final
@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """What one source has done so far."""

    state: SourceState
    updates: int
    """Updates taken from it."""
    dropped: int
    """Of these, dropped because a disruption had ended their epoch."""
    restarts: int
    """Times it was run again after a ``SourceUnavailableError``."""
    update_age_s: float | None
    """Seconds since its last update; None before the first."""
    last_error: str | None


@final
@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """What a publisher has done so far."""

    commits: int
    seq_count: int | None
    """Of the last commit; None before the first."""
    sources: Mapping[str, SourceStatistics]
    groups: Mapping[str, str | None]
    """Which source ``disruption``, ``time`` and ``calendar`` come from; None where nobody has it, or where what
    was published before is held."""


@final
@dataclass(slots=True)
class _Supervised:
    """A source and what is known of it."""

    name: str
    source: Source
    state: SourceState = "new"
    updates: int = 0
    dropped: int = 0
    restarts: int = 0
    updated_at: float | None = None
    last_error: str | None = None
    outage: str | None = None
    """Why it is unavailable, as the log says, until it is heard again."""
    outage_since: float = 0.0

    def statistics(self) -> SourceStatistics:
        age = None if self.updated_at is None else time.monotonic() - self.updated_at
        return SourceStatistics(self.state, self.updates, self.dropped, self.restarts, age, self.last_error)


@final
@dataclass(slots=True)
class _Message:
    """From a source's task to the writer's: an update, or what keeps the source from sending one.

    Errors go the same way as updates, so that all that was sent before them is committed first.
    """

    sender: _Supervised
    update: BodyUpdate | None = None
    epoch: int | None = None
    error: SourceError | None = None

    def raise_if_final(self) -> None:
        """Raise the error that ends the run, if this is one."""
        if self.error is not None and not isinstance(self.error, SourceUnavailableError):
            raise self.error


@final
@dataclass(slots=True)
class _Emit:
    """``Emit``, as one source sees it."""

    publisher: "Publisher"
    sender: _Supervised
    stream: MemoryObjectSendStream[_Message]
    over: bool = False
    """Whether the run of the source that it was made for has ended."""

    @property
    def epoch(self) -> int:
        committer = self.publisher._committer
        return committer.epoch if committer else 0

    async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
        if self.over:
            await anyio.lowlevel.checkpoint()
            raise self._too_late()
        if not isinstance(update, BodyUpdate):
            raise InvalidUpdateError(self.sender.name, f"sent a {type(update).__name__}, not a BodyUpdate")
        if not (epoch is None or isinstance(epoch, int)):
            raise InvalidUpdateError(
                self.sender.name,
                f"sent an update with an epoch of {type(epoch).__name__}, not what emit.epoch gave",
            )
        if epoch is None and update.measures and "disruption_marker" not in update.model_fields_set:
            epoch = self.epoch  # all that can be known of when it was measured
        await self.post(_Message(self.sender, update, epoch))

    async def post(self, message: _Message) -> None:
        try:
            await self.stream.send(message)
        except anyio.BrokenResourceError:
            # The writer has failed. The run is being cancelled, and with it whoever waits here, unless that is a
            # task of somebody else.
            await self.publisher._ended.wait()
            raise self._too_late() from None
        except anyio.ClosedResourceError:
            raise self._too_late() from None

    def _too_late(self) -> SourceError:
        return SourceError(
            self.sender.name,
            "called emit when its run had ended; emit is good for the run that it was given to, alone",
        )


@final
@dataclass(slots=True)
class _Backoff:
    """Growing pauses between tries: each twice the one before, less up to a half, 30 s at most."""

    tries: int = 0

    def next_pause_s(self) -> float:
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * float(1 << self.tries))
        self.tries = min(self.tries + 1, 16)
        return pause * random.uniform(0.5, 1.0)


@final
class Publisher:
    """Publishes what sources say into one segment; the only thing that writes it.

    A sole source of whole bodies (the device, a recording) is relayed verbatim. Otherwise what the sources say is
    merged: disruptions, time and calendar each come from the first listed source that has them; a change of the
    disruption marker voids, in the same commit, every time measured before it; and a later interval agrees with
    the earlier ones. See the modules of ``_publishing``.

    Args:
        path: of the segment; see ``SegmentWriter``. A new one has 112 bytes.
        sources: in order of rank, by name; or just the sources, which then go by the names of their classes.

    Raises:
        ValueError: *sources* is empty.
    """

    def __init__(self, path: str | os.PathLike[str], sources: Mapping[str, Source] | Iterable[Source]) -> None:
        self.path: Final = absolute(path)
        self._sources: Final = [_Supervised(name, source) for name, source in _by_name(sources).items()]
        if not self._sources:
            raise ValueError("a publisher needs at least one source")
        self._committer: Committer | None = None
        self._running = False
        self._failure: Exception | None = None
        self._ended = anyio.Event()
        self._held_by: Final[set[str]] = set()
        """The sources of which the log says that they hold the event loop."""

    async def run(self) -> None:
        """Publish until every source has returned. Cancelling it stops cleanly at any point.

        Raises:
            SourceError: a source failed in a way that trying again cannot mend; it names the source, and the
                error behind it is its ``__cause__``.
            InvalidUpdateError: a source sent something else than a valid update.
            SegmentInUseError: another writer holds the segment.
            SegmentError: the segment cannot be written.
            RuntimeError: it is running already.
        """
        if self._running:
            raise RuntimeError(f"the publisher of {self.path} is running already")
        self._running = True
        self._failure = None
        self._ended = anyio.Event()
        self._held_by.clear()
        try:
            # Each task closes its end when it is done. The stack closes those of tasks that never came to begin.
            with ExitStack() as stack:
                send, receive = anyio.create_memory_object_stream[_Message](0)
                ends = [stack.enter_context(send.clone()) for _ in self._sources]
                stack.enter_context(receive)
                send.close()
                async with anyio.create_task_group() as watching:
                    await watching.start(LoopWatch(HELD_AFTER_S, self._tell_holder).run)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._write, tasks, receive)
                        for supervised, end in zip(self._sources, ends, strict=True):
                            tasks.start_soon(self._supervise, supervised, end)
                    watching.cancel_scope.cancel()
        finally:
            self._running = False
            self._ended.set()
        if self._failure is not None:
            raise self._failure  # bare, not in the group's exception

    def statistics(self) -> PublisherStatistics:
        """What has been done so far, by source."""
        committer = self._committer
        return PublisherStatistics(
            commits=committer.commits if committer else 0,
            seq_count=committer.seq_count if committer else None,
            groups=committer.groups if committer else dict.fromkeys(("disruption", "time", "calendar")),
            sources={supervised.name: supervised.statistics() for supervised in self._sources},
        )

    async def _supervise(self, supervised: _Supervised, stream: MemoryObjectSendStream[_Message]) -> None:
        backoff = _Backoff()
        with stream:
            while True:
                supervised.state = "running"
                began = time.monotonic()
                emit = _Emit(self, supervised, stream)
                try:
                    error = await self._run_source(supervised, emit)
                finally:
                    emit.over = True
                if error is None:
                    supervised.state = "finished"
                    return
                unavailable = isinstance(error, SourceUnavailableError)
                supervised.state = "unavailable" if unavailable else "failed"
                supervised.last_error = error.reason
                if isinstance(error.__cause__, InterruptedSource):
                    await anyio.sleep_forever()  # until this run is cancelled, because it was told to end
                await emit.post(_Message(supervised, error=error))
                if not unavailable:
                    return
                if time.monotonic() - began > LONG_ENOUGH_S:
                    backoff, supervised.outage = _Backoff(), None
                if error.reason != supervised.outage:
                    if supervised.outage is None:
                        supervised.outage_since = time.monotonic()
                    supervised.outage = error.reason
                    _log.warning("%s; it is tried again", error)
                await anyio.sleep(backoff.next_pause_s())
                supervised.restarts += 1

    async def _run_source(self, supervised: _Supervised, emit: _Emit) -> SourceError | None:
        """Run the source until it ends; the error with which it did, if it was one.

        Whatever a stranger's code raises becomes an error that names the source, except for what is not its own to
        raise: the cancellation of this run, Ctrl-C, and the end of the coroutine.
        """
        name = supervised.name
        not_its_own = (anyio.get_cancelled_exc_class(), KeyboardInterrupt, GeneratorExit)
        try:
            await run_as(name, supervised.source, emit)
        except BaseExceptionGroup as group:
            passed_on, own = group.split(not_its_own)
            if passed_on is None:
                return source_error(name, group)
            if own is not None:
                self._failure = self._failure or source_error(name, own)
            raise
        except not_its_own as exc:
            # If it is not the run that is cancelled, the source leaked a CancelledError of its own, which would end
            # the run without a word.
            if not isinstance(exc, KeyboardInterrupt | GeneratorExit):
                self._failure = self._failure or SourceError(name, "was cancelled from within")
            raise
        except BaseException as exc:
            return source_error(name, exc)
        return None

    def _tell_holder(self, frame: FrameType, held_s: float) -> None:
        """Log, once a run, which source holds the event loop; called in the thread of the ``LoopWatch``."""
        sources = {supervised.name: supervised.source for supervised in self._sources}
        names = " or ".join(holders(frame, sources))
        if not names or names in self._held_by:
            return  # held by nobody here: by another part of the program, or by a machine that is too busy
        self._held_by.add(names)
        _log.warning(
            "%s has held the event loop for %.0f s, in %s: meanwhile no source is heard and nothing is published; what "
            "blocks belongs into a thread (anyio.to_thread.run_sync)",
            names,
            held_s,
            place(frame, {package_of(source) for source in sources.values()}),
        )

    async def _write(self, tasks: TaskGroup, stream: MemoryObjectReceiveStream[_Message]) -> None:
        with stream, closing(_Opener(self.path)) as opener:
            try:
                message = await stream.receive()
                message.raise_if_final()
                await anyio.to_thread.run_sync(opener.open)  # a cold start waits for the disk
                sources = {supervised.name: supervised.source for supervised in self._sources}
                _log.info("publishing %s to %s", ", ".join(sources), self.path)
                self._committer = committer = Committer(opener.opened, sources, previous=self._committer)
                try:
                    await self._commit(committer, message, stream)
                finally:
                    committer.close()
            except anyio.EndOfStream:
                return  # every source has returned
            except VMClockError as exc:
                self._failure = exc
                self._note_failure(exc)
                tasks.cancel_scope.cancel()

    def _note_failure(self, error: VMClockError) -> None:
        """Note in the statistics what a source did that the writer could not take."""
        for supervised in self._sources:
            if isinstance(error, SourceError) and supervised.name == error.source:
                supervised.state, supervised.last_error = "failed", error.reason

    async def _commit(
        self, committer: Committer, message: _Message | None, stream: MemoryObjectReceiveStream[_Message]
    ) -> None:
        """Commit *message* and all that come after it, and what becomes due between them."""
        while True:
            if message is None:
                committer.look()
            else:
                message.raise_if_final()
                self._take(committer, message)
            message = None
            with anyio.move_on_after(math.inf if committer.relaying else LOOK_EVERY_S):
                message = await stream.receive()

    def _take(self, committer: Committer, message: _Message) -> None:
        update, sender = message.update, message.sender
        if update is None:
            return
        sender.updates += 1
        sender.updated_at = time.monotonic()
        if sender.outage is not None and update.counter_id != CounterId.INVALID:
            _log.info("%s: is there again, after %.1f s", sender.name, sender.updated_at - sender.outage_since)
            sender.outage = None
        if not committer.take(sender.name, update, message.epoch):
            sender.dropped += 1


def _by_name(sources: Mapping[str, Source] | Iterable[Source]) -> dict[str, Source]:
    """*sources* by name: a mapping's own, otherwise the class's name, numbered where it comes twice."""
    if isinstance(sources, Mapping):
        return dict(sources)
    named: dict[str, Source] = {}
    for source in sources:
        name = base = type(source).__name__
        number = 1
        while name in named:
            number += 1
            name = f"{base}-{number}"
        named[name] = source
    return named


@final
class _Opener:
    """Opens the segment in a worker thread, and closes it, also if the task was cancelled before it was open."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._writer: SegmentWriter | None = None
        self._closed = False

    @property
    def opened(self) -> SegmentWriter:
        assert self._writer is not None
        return self._writer

    def open(self) -> None:
        self._writer = SegmentWriter(self._path, size=SEGMENT_SIZE_WITH_GENERATION)
        if self._closed:
            self._writer.close()

    def close(self) -> None:
        self._closed = True
        if self._writer is not None:
            self._writer.close()
