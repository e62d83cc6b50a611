"""The publisher: supervised sources on one side, the one task that writes on the other.

Sources run as tasks of one task group. Each hands its updates, without a buffer, to the writer task, which makes one
body of them and commits it. So there is no queue in which a time could grow old, and one place where the segment
changes.

Each step that an update passes has its own module in ``_publishing``: supervisor, handover, committer (with
plausibility), merger. The merger's rules are in testimony, choice, constants, disruptions (and epochs), nesting and
ageing.

Invariants:
    * Only the writer task touches the segment. A commit has no await in it: cancelling at any point leaves a whole
      body, an even seq_count and no lock.
    * Updates are taken in order, and none is skipped or joined with another. Each update of a sole source is a
      commit. With several sources, an update that changes nothing of the published contents is no commit.
    * The writer checks the device's marker and the counter's continuity right before each commit, and once a second:
      it commits no time from before a disruption that can already be seen. (It reads the kernel's clocksource at most
      ten times a second, because the kernel's own watchdog checks the counter each half second.)
    * The segment is opened when the first source has sent an update, or has said that it is unavailable for now. A
      run that fails before that (for example because its recording does not exist) has written nothing.
"""

import logging
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final, final

import anyio
import anyio.lowlevel
import anyio.to_thread
from anyio.abc import TaskGroup

from vmclock_async._paths import absolute
from vmclock_async._publishing.agreement import Agreement, Pair, gap_ns
from vmclock_async._publishing.committer import Committer
from vmclock_async._publishing.complaints import ComplaintKind
from vmclock_async._publishing.handover import Handover
from vmclock_async._publishing.report import Report
from vmclock_async._publishing.supervisor import Message, SourceState, Supervised, Supervisor
from vmclock_async.abi import SEGMENT_SIZE_WITH_GENERATION
from vmclock_async.errors import SegmentError, VMClockError
from vmclock_async.reckoning import Bounds
from vmclock_async.segment import SegmentWriter
from vmclock_async.sources import Source

__all__ = ("Comparison", "ComplaintKind", "Publisher", "PublisherStatistics", "SourceState", "SourceStatistics")

_NOTICE_EVERY_S: Final = 1.0
"""Seconds after which the writer looks for new markers, suspends and quiet sources, whether updates come or not."""

_log: Final = logging.getLogger("vmclock_async.publisher")


@final
@dataclass(frozen=True, slots=True)
class SourceStatistics:
    """The state and the counts of one source so far."""

    state: SourceState
    updates: int
    """Updates taken from it."""
    dropped: int
    """Updates among them that were dropped, because a disruption had ended their epoch."""
    restarts: int
    """Times it was run again after a ``SourceUnavailableError``."""
    update_age_s: float | None
    """Seconds since its last update; None before the first."""
    last_error: str | None
    error_age_s: float | None
    """Seconds since `last_error`; None while there was none."""
    complaints: Mapping[ComplaintKind, int]
    """How often its updates had a fault that does not end a run, by kind of fault: "contradiction" (with what was
    published; it was published under a new disruption marker), "time in other constants" (a counter or a timescale
    that the segment cannot change to), "time of no use" (no reader gets a time from it), and "time that cannot be
    true" (it was not published)."""


@final
@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sources of time, and whether they contradict each other."""

    sources: tuple[str, str]
    """Their names, in order of rank."""
    intervals: tuple[Bounds, Bounds] | None
    """The interval of UTC of each, at the counter value of the last comparison, nanoseconds since 1970; None: one of
    the two has no time now that readers on this machine could get."""
    gap_ns: int
    """Nanoseconds between these intervals: positive if the second is later, negative if it is earlier. Then at least
    one of the two sources is wrong. 0: they have an instant in common, or are None."""
    disagreements: int
    """How often the two began to contradict each other so far."""


@final
@dataclass(frozen=True, slots=True)
class PublisherStatistics:
    """The counts and the sources of a publisher so far."""

    commits: int
    seq_count: int | None
    """The seq_count of the last commit; None before the first."""
    sources: Mapping[str, SourceStatistics]
    groups: Mapping[str, str | None]
    """Which source ``disruption``, ``time`` and ``calendar`` come from; None where no source has the group, or where
    the values that were published before are held."""
    turns: int
    """Times that the writer task took an update, or looked at what had become due; it looks once a second at least. If
    they no longer grow while the segment is open, the writer hangs."""
    comparisons: tuple[Comparison, ...]
    """Each pair of sources that has been compared so far; empty without ``agreement``."""


@final
class Publisher:
    """Publishes what sources say into one segment; the only thing that writes it.

    A sole source of whole bodies (the device, a recording) is relayed verbatim. Otherwise what the sources say is
    merged: disruptions, time and calendar each come from the first listed source that has them; a change of the
    disruption marker voids, in the same commit, every time measured before it; and a later interval agrees with
    the earlier ones. See the modules of ``_publishing``.

    Args:
        path: the segment's path; see ``SegmentWriter``. A new segment has 112 bytes.
        sources: the sources by name, in order of rank; or just the sources, which are then named after their classes.
        agreement: whether to compare the intervals of the sources at each commit. Two that have no instant in common
            are logged, and are in ``statistics()``; what is published does not change.

    Raises:
        ValueError: *sources* is empty.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sources: Mapping[str, Source] | Iterable[Source],
        *,
        agreement: bool = False,
    ) -> None:
        self.path: Final = absolute(path)
        named = _by_name(sources)
        if not named:
            raise ValueError("a publisher needs at least one source")
        self._committer: Committer | None = None
        self._supervisor: Final = Supervisor(
            self.path, named, lambda: self._committer.epoch if self._committer else 0
        )
        # One source has nobody to agree with.
        self._agreement: Final = (
            Agreement(named, self._supervisor.complaints) if agreement and len(named) > 1 else None
        )
        self._running = False
        self._turns = 0
        self._handover: Handover[Message] | None = None
        """Leads to the writer task of the present run."""

    async def run(self) -> None:
        """Publish until every source has returned. Cancelling it stops cleanly at any point.

        Raises:
            SourceError: a source failed in a way that a new attempt cannot mend; the error names the source, and
                the underlying error is its ``__cause__``.
            InvalidUpdateError: a source sent something other than a valid update.
            SegmentInUseError: another writer holds the segment.
            SegmentError: the segment cannot be written.
            RuntimeError: the publisher is running already.
        """
        if self._running:
            raise RuntimeError(f"the publisher of {self.path} is running already")
        self._running = True
        supervisor = self._supervisor
        supervisor.begin()
        try:
            self._handover = handover = Handover[Message](len(supervisor.supervised))
            with supervisor.limited_log():
                async with anyio.create_task_group() as watching:
                    await watching.start(supervisor.loop_watch.run)
                    async with anyio.create_task_group() as tasks:
                        tasks.start_soon(self._write, tasks, handover)
                        for supervised in supervisor.supervised:
                            tasks.start_soon(supervisor.supervise, supervised, handover)
                    watching.cancel_scope.cancel()
        finally:
            self._running = False
            self._handover = None
            supervisor.ended.set()
        if supervisor.failure is not None:
            raise supervisor.failure  # bare, not in the group's exception

    async def disrupt(self, reason: str = "reported by the program", *, restored: bool = False) -> None:
        """Report that the machine was disrupted; returns once the new disruption marker is committed.

        For a program that runs a publisher and knows of a disruption that no source sees. Every time measured before is
        void, and comes back when it has been measured again.

        Args:
            reason: what happened, for the log.
            restored: whether the machine was restored from a snapshot, so that other machines may have been restored
                from the same one. If no source gives a generation counter, the publisher commits another one of its
                own. If one does, that counter alone says whether the machine was restored.

        Raises:
            RuntimeError: the publisher is not running.
            SegmentError: the publisher ended before the commit; or it relays a sole source bit for bit.
        """
        handover = self._handover
        if handover is None:
            await anyio.lowlevel.checkpoint()
            raise RuntimeError(f"the publisher of {self.path} is not running")
        if not await self._supervisor.deliver(Message(None, report=Report("", reason, restored)), handover):
            raise SegmentError(self.path, f"its publisher ended before it committed the disruption ({reason})")

    def statistics(self) -> PublisherStatistics:
        """The counts so far, of the publisher and of each source. Any thread may ask."""
        committer = self._committer
        return PublisherStatistics(
            commits=committer.commits if committer else 0,
            seq_count=committer.seq_count if committer else None,
            groups=committer.groups if committer else dict.fromkeys(("disruption", "time", "calendar")),
            turns=self._turns,
            comparisons=tuple(
                _comparison(pair)
                for pair in (self._agreement.pairs if self._agreement else ())
                if pair.was_compared
            ),
            sources={supervised.name: _statistics(supervised) for supervised in self._supervisor.supervised},
        )

    async def _write(self, tasks: TaskGroup, handover: Handover[Message]) -> None:
        with closing(handover), closing(_Opener(self.path)) as opener:
            try:
                message = await handover.receive()
                message.raise_if_final()
                await anyio.to_thread.run_sync(opener.open)  # a cold start waits for the disk
                sources = self._supervisor.sources
                _log.info("publishing %s to %s", ", ".join(sources), self.path)
                self._committer = committer = Committer(
                    opener.opened,
                    sources,
                    standstill=self._supervisor.loop_watch.standstill,
                    complaints=self._supervisor.complaints,
                    agreement=self._agreement,
                    previous=self._committer,
                )
                try:
                    await self._serve(committer, message, handover)
                finally:
                    committer.close()
            except anyio.EndOfStream:
                return  # every source has returned
            except VMClockError as exc:
                self._supervisor.fail(exc)
                tasks.cancel_scope.cancel()

    async def _serve(self, committer: Committer, message: Message, handover: Handover[Message]) -> None:
        """Commit *message* and all messages after it, and the changes that become due between them."""
        self._publish(committer, message)
        while True:
            # There is one scope a second, because one for each message costs much. Messages that come without a
            # pause would hide the end of the scope, so the loop reads the clock as well.
            due_at = time.monotonic() + _NOTICE_EVERY_S
            with anyio.move_on_after(_NOTICE_EVERY_S):
                while time.monotonic() < due_at:
                    self._publish(committer, await handover.receive())
            committer.publish_due()
            self._turns += 1

    def _publish(self, committer: Committer, message: Message) -> None:
        self._turns += 1
        update, sender = message.update, message.sender
        if message.report is not None:
            if sender is not None:
                sender.note_there()
            message.report.settle(committer.take_report(message.report))
            return
        assert sender is not None  # the program that runs the publisher sends reports alone
        if update is None:
            message.raise_if_final()
            committer.note_end(sender.name)
            return
        if not update.__pydantic_fields_set__:
            return  # it says nothing; a first commit would come before the device's
        sender.note_update(update)
        if not committer.publish(sender.name, update, message.epoch):
            sender.dropped += 1


def _statistics(supervised: Supervised) -> SourceStatistics:
    return SourceStatistics(
        supervised.state,
        supervised.updates,
        supervised.dropped,
        supervised.restarts,
        _age_s(supervised.updated_at),
        supervised.last_error,
        _age_s(supervised.failed_at),
        supervised.complaints.counts(supervised.name),
    )


def _comparison(pair: Pair) -> Comparison:
    intervals = pair.intervals  # once, because the writer task changes it
    return Comparison(pair.names, intervals, gap_ns(*intervals) if intervals else 0, pair.disagreements)


def _age_s(since: float | None) -> float | None:
    return None if since is None else time.monotonic() - since


def _by_name(sources: Mapping[str, Source] | Iterable[Source]) -> dict[str, Source]:
    """*sources* by name: a mapping's own names, otherwise the names of the classes, numbered where one comes twice."""
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
    """Opens the segment in a worker thread, and closes it, even if the task was cancelled before it was open."""

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
