"""The recording of a segment: each commit that is seen is written, in the order in which they were seen.

One task waits for commits and another writes them, because a disk may take seconds for what a page is overwritten in.
Between the two there is room for a thousand commits, after which some are not seen: a gap, and noted as one.
"""

import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, final

import anyio
import anyio.to_thread
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from vmclock_async._cli.paths import reader_path
from vmclock_async._cli.series import Seen, Series
from vmclock_async._reading.arrival import until_there
from vmclock_async.errors import CounterNotSupportedError, SegmentNotInitializedError
from vmclock_async.models import Snapshot
from vmclock_async.segment import SegmentReader
from vmclock_async.timebase import COUNTER_ID, pair

__all__ = ("Recorder",)

_ROOM: Final = 1024
_BACK: Final = 2**31
"""A step of seq_count (modulo 2**32) of so many or more is a number that went back."""


@final
class Recorder:
    """Records the segment at *path* (None: the default paths) into *series*; waits for a segment to be there.

    Args:
        path: path of the segment.
        series: the files; this closes them.
        say: gets what people want to know meanwhile.
    """

    def __init__(self, path: Path | None, series: Series, say: Callable[[str], None]) -> None:
        self._path: Final = path
        self._series: Final = series
        self._say: Final = say
        self.seen = 0
        """Commits seen; some may not be written yet."""
        self.gaps = 0
        """Number of times that seq_count moved by more than one commit."""
        self.missed = 0
        """Commits that were not seen: those in the gaps."""
        self.restarts = 0
        """Number of times that the segment was replaced, or its seq_count began again."""

    async def run(self) -> None:
        """Record until the series is over. Cancelling loses nothing that was seen.

        Raises:
            SegmentError: what is at the path is no segment.
            RecordingError: a file cannot be written.
        """
        with ExitStack() as stack:
            try:
                reader = await until_there(self._path, lambda: self._open(stack), self._say_absent)
                self._say(f"recording {reader.path} to {self._series.path}; Ctrl-C ends it")
                await self._record(reader)
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(self._series.close)

    async def _open(self, stack: ExitStack) -> SegmentReader:
        return stack.enter_context(SegmentReader(reader_path(self._path)))

    def _say_absent(self, error: SegmentNotInitializedError) -> None:
        self._say(f"{error}; waiting for it")

    async def _record(self, reader: SegmentReader) -> None:
        send, receive = anyio.create_memory_object_stream[Seen](_ROOM)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._write, receive, tasks.cancel_scope)
            with send:
                await self._follow(reader, send)

    async def _follow(self, reader: SegmentReader, send: MemoryObjectSendStream[Seen]) -> None:
        before: Snapshot | None = None
        while True:
            after = await reader.wait_changed(-1 if before is None else before)  # no seq_count is -1
            if before is not None:
                self._compare(before, after)
            await send.send(_seen_now(after))
            self.seen += 1
            before = after

    async def _write(self, receive: MemoryObjectReceiveStream[Seen], both: anyio.CancelScope) -> None:
        """Write all that is received, though the program is to end; cancel *both* tasks when the series is over."""
        with receive, anyio.CancelScope(shield=True):
            while not self._series.is_over:
                try:
                    commits = [await receive.receive()]
                except anyio.EndOfStream:
                    return
                with suppress(anyio.WouldBlock, anyio.EndOfStream):
                    while True:
                        commits.append(receive.receive_nowait())
                await anyio.to_thread.run_sync(self._series.write, commits)
        both.cancel()

    def _compare(self, before: Snapshot, after: Snapshot) -> None:
        step = (after.seq_count - before.seq_count) % 2**32
        if after.opened != before.opened or step == 0 or step >= _BACK:
            self.restarts += 1
        elif step > 2:
            self.gaps += 1
            self.missed += step // 2 - 1


def _seen_now(snapshot: Snapshot) -> Seen:
    """*snapshot*, seen at this moment; the counter only if the page counts with this machine's, and it can be read."""
    if snapshot.counter_id == COUNTER_ID:
        try:
            pairing = pair(time.CLOCK_MONOTONIC)
        except CounterNotSupportedError:
            pass
        else:
            return Seen(snapshot, pairing.clock_ns, pairing.counter_ticks)
    return Seen(snapshot, time.monotonic_ns(), None)
