"""Runs each source as a task, tries it again while it is unavailable, and hands its updates to the writer task.

Errors go the same way as updates, so that all updates sent before them are committed first. Whatever a stranger's code
raises becomes an error that names the source.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Final, Literal, final

import anyio
import anyio.lowlevel

from vmclock_async._publishing.complaints import EVERY_S, Complaints, without_numbers
from vmclock_async._publishing.handover import Handover
from vmclock_async._publishing.loop_watch import InterruptedSource, LoopWatch, holders, package_of, place, run_as
from vmclock_async._publishing.report import Report
from vmclock_async._publishing.source_lines import RUN, limited
from vmclock_async._wording import source_error
from vmclock_async.abi import CounterId
from vmclock_async.errors import InvalidUpdateError, SourceError, SourceUnavailableError, VMClockError
from vmclock_async.models import BodyUpdate
from vmclock_async.sources import Source

__all__ = ("Message", "SourceState", "Supervised", "Supervisor")

_FIRST_RETRY_PAUSE_S: Final = 0.1
_LONGEST_RETRY_PAUSE_S: Final = 30.0
_RECOVERED_AFTER_S: Final = 5.0
"""A source that ran this long, and sent an update in that run, was available: it is tried again soon."""
_LOOP_HELD_AFTER_S: Final = 2.0
"""Time for which a source holds the event loop before the log names it."""

_log: Final = logging.getLogger("vmclock_async.publisher")

SourceState = Literal["new", "running", "unavailable", "finished", "failed"]


@final
@dataclass(slots=True)
class Supervised:
    """A source, with its state and its counts."""

    name: str
    source: Source
    complaints: Complaints
    """Limits what the log says of its outages."""
    state: SourceState = "new"
    updates: int = 0
    dropped: int = 0
    restarts: int = 0
    updated_at: float | None = None
    last_error: str | None = None
    failed_at: float | None = None
    """The time of ``last_error``, by ``time.monotonic()``."""
    outage: str | None = None
    """The reason why it is unavailable, as the log says; None once an update has come again."""
    outage_since: float = 0.0
    is_outage_said: bool = False
    """Whether the log said at once that the outage began."""

    def note_update(self, update: BodyUpdate) -> None:
        """Note that the writer task has taken *update*; if that ends an outage, the log says so."""
        self.updates += 1
        self.updated_at = time.monotonic()
        if self.outage is not None and update.counter_id != CounterId.INVALID:
            self.note_there()

    def note_error(self, error: SourceError) -> None:
        """Note that the run of the source ended with *error*."""
        self.state = "unavailable" if isinstance(error, SourceUnavailableError) else "failed"
        self.last_error, self.failed_at = error.reason, time.monotonic()

    def note_there(self) -> None:
        """Note that the source works; if that ends an outage of which the log has a line, the log says so."""
        if self.outage is not None:
            lasted_s = time.monotonic() - self.outage_since
            if self.is_outage_said or lasted_s > EVERY_S:  # by then a line that was held back was due
                _log.info("%s: is there again, after %.1f s", self.name, lasted_s, extra={"source": self.name})
            self.outage = None

    def note_outage(self, error: SourceError) -> None:
        """Note that the source is unavailable; the log says so once for each reason, and at most once a minute."""
        if error.reason != self.outage:
            if self.outage is None:
                self.outage_since = time.monotonic()
                self.is_outage_said = False
            self.outage = error.reason
            kind = f"new outage ({without_numbers(error.reason)})"
            text = f"{error}; it is tried again"
            self.is_outage_said |= self.complaints.say(
                self.name, kind, text, source=self.name, level=logging.WARNING, at_once=1
            )


@final
@dataclass(slots=True)
class Message:
    """A message to the writer task: an update, a report, or the end of a run, with its error if it had one."""

    sender: Supervised | None
    """The source; None: the program that runs the publisher."""
    update: BodyUpdate | None = None
    epoch: int | None = None
    error: SourceError | None = None
    report: Report | None = None

    def raise_if_final(self) -> None:
        """Raise this message's error, if it is one that ends the run."""
        if self.error is not None and not isinstance(self.error, SourceUnavailableError):
            raise self.error


@final
@dataclass(slots=True)
class _Emit:
    """``Emit``, as one source sees it."""

    supervisor: "Supervisor"
    sender: Supervised
    handover: Handover[Message]
    over: bool = False
    """Whether the source's run, for which it was made, has ended."""
    has_announced: bool = False
    """Whether that run has announced that it reports each restore."""

    @property
    def epoch(self) -> int:
        return self.supervisor.epoch()

    @property
    def segment(self) -> str:
        return self.supervisor.segment

    async def disrupt(self, reason: str, *, restored: bool = False) -> None:
        await self._report(Report(self.sender.name, f"{self.sender.name}: {reason}", restored))

    async def announce_restores(self) -> None:
        self.has_announced = True
        await self._report(Report(self.sender.name))

    async def _report(self, report: Report) -> None:
        if self.over:
            await anyio.lowlevel.checkpoint()
            raise self._too_late()
        if not await self.supervisor.deliver(Message(self.sender, report=report), self.handover):
            raise self._too_late()

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
        if epoch is None and update.measures and "disruption_marker" not in update.__pydantic_fields_set__:
            epoch = self.supervisor.epoch()  # nothing more is known about the time of the measurement
        try:
            await self.handover.send(Message(self.sender, update, epoch))
        except anyio.BrokenResourceError:
            # The writer has failed. The run is being cancelled, and with it the task that waits here, unless that task
            # belongs to other code.
            await self.supervisor.ended.wait()
            raise self._too_late() from None

    def _too_late(self) -> SourceError:
        return SourceError(
            self.sender.name,
            "called emit when its run had ended; emit is good for the run that it was given to, alone",
        )


@final
@dataclass(slots=True)
class _Backoff:
    """Growing pauses between tries: each is twice the one before, at most 30 s, and then less by up to a half."""

    tries: int = 0

    def next_pause_s(self) -> float:
        pause = min(_LONGEST_RETRY_PAUSE_S, _FIRST_RETRY_PAUSE_S * float(1 << self.tries))
        self.tries = min(self.tries + 1, 16)
        return pause * random.uniform(0.5, 1.0)


@final
class Supervisor:
    """Runs *sources* of *segment*, each as a task of the publisher's run; *epoch* gives the present epoch's number."""

    def __init__(self, segment: str, sources: Mapping[str, Source], epoch: Callable[[], int]) -> None:
        self.segment: Final = segment
        self.sources: Final = dict(sources)
        self.complaints: Final = Complaints(_log)
        """Limits the log lines of the publisher and its sources, in all runs."""
        self.supervised: Final = [Supervised(name, source, self.complaints) for name, source in sources.items()]
        self.epoch: Final = epoch
        self.begin()

    def begin(self) -> None:
        """Begin another run."""
        self.failure: Exception | None = None
        """The error that ends the run, once there is one."""
        self.ended = anyio.Event()
        """Set when the run is over."""
        self.loop_watch = LoopWatch(_LOOP_HELD_AFTER_S, self._tell_holder)
        self._held_by: set[str] = set()
        """The sources that the log has named because they hold the event loop."""

    def limited_log(self) -> AbstractContextManager[None]:
        """For the length of the block, limit the lines that the sources write themselves."""
        return limited(self.sources.values(), self.complaints)

    def fail(self, error: VMClockError) -> None:
        """End the run with *error*, from the writer task; if it names a source, that source's statistics have it."""
        self.failure = error
        for supervised in self.supervised:
            if isinstance(error, SourceError) and supervised.name == error.source:
                supervised.note_error(error)
                supervised.state = "failed"  # for good, because it ended the run

    async def deliver(self, message: Message, handover: Handover[Message]) -> bool:
        """Hand over *message*, which has a report, and wait until it is committed. False: the run ended before that.

        Raises:
            VMClockError: the writer task refused the report.
        """
        assert message.report is not None
        try:
            await handover.send(message)
        except anyio.BrokenResourceError:
            await self.ended.wait()
            return False
        return await message.report.wait(self.ended)

    async def supervise(self, supervised: Supervised, handover: Handover[Message]) -> None:
        """Run the source until it returns or fails for good, and then note in *handover* that it is done."""
        backoff = _Backoff()
        RUN.set(self.complaints)
        try:
            while True:
                supervised.state = "running"
                began, updates = anyio.current_time(), supervised.updates
                emit = _Emit(self, supervised, handover)
                try:
                    error = await self._run_source(supervised, emit)
                finally:
                    emit.over = True
                if error is None:
                    supervised.state = "finished"
                    if emit.has_announced:
                        await self._hand_over_end(supervised, None, handover)
                    return
                supervised.note_error(error)
                if isinstance(error.__cause__, InterruptedSource):
                    await anyio.sleep_forever()  # the run was asked to end, and will cancel this
                await self._hand_over_end(supervised, error, handover)
                if not isinstance(error, SourceUnavailableError):
                    return
                if supervised.updates > updates and anyio.current_time() - began > _RECOVERED_AFTER_S:
                    backoff = _Backoff()
                supervised.note_outage(error)
                await anyio.sleep(backoff.next_pause_s())
                supervised.restarts += 1
        finally:
            handover.sender_is_done()

    async def _hand_over_end(
        self, supervised: Supervised, error: SourceError | None, handover: Handover[Message]
    ) -> None:
        with suppress(anyio.BrokenResourceError):  # the writer has failed, and the run is being cancelled
            await handover.send(Message(supervised, error=error))

    async def _run_source(self, supervised: Supervised, emit: _Emit) -> SourceError | None:
        """Run the source until it ends. Returns its error, if it ended with one.

        Whatever a stranger's code raises becomes an error that names the source, with three exceptions that come from
        outside the source: the cancellation of this run, Ctrl-C, and the end of the coroutine.
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
                self.failure = self.failure or source_error(name, own)
            raise
        except not_its_own as exc:
            # If the run is not being cancelled, the source leaked a CancelledError of its own, which would end the run
            # without a message.
            if not isinstance(exc, KeyboardInterrupt | GeneratorExit):
                self.failure = self.failure or SourceError(name, "was cancelled from within")
            raise
        except BaseException as exc:
            return source_error(name, exc)
        return None

    def _tell_holder(self, frame: FrameType, held_s: float) -> None:
        """Log, once a run, which source holds the event loop; called in the thread of the ``LoopWatch``."""
        names = " or ".join(holders(frame, self.sources))
        if not names or names in self._held_by:
            return  # no source holds it, but another part of the program, or the machine is too busy
        self._held_by.add(names)
        _log.warning(
            "%s has held the event loop for %.0f s, in %s: meanwhile no source is heard and nothing is published; move "
            "the code that blocks to a thread (anyio.to_thread.run_sync)",
            names,
            held_s,
            place(frame, {package_of(source) for source in self.sources.values()}),
        )
