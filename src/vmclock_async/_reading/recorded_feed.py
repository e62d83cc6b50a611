"""A feed that plays a recording in virtual time."""

import os
from bisect import bisect_right
from typing import Final, final

from vmclock_async import abi
from vmclock_async._reading.virtual_feed import VirtualFeed
from vmclock_async._reading.virtual_time import VirtualTime
from vmclock_async.abi import CounterId
from vmclock_async.errors import RecordingError
from vmclock_async.models import Snapshot
from vmclock_async.recording import Moment, Record, RecordingHeader, RecordingReader

__all__ = ("RecordedFeed",)


@final
class RecordedFeed(VirtualFeed):
    """The commits of the recording at *path*, or of the part from *start* to *until*, each when it was seen.

    Between two records the counter runs as fast as the page says. A record with a counter value sets it. A record
    without one leaves it running; if it is the first, the counter begins at its body's counter_value.

    Raises:
        RecordingError: the file is no recording, or it has no record there.
    """

    def __init__(
        self, path: str | os.PathLike[str], time: VirtualTime, *, start: Moment | None, until: Moment | None
    ) -> None:
        with RecordingReader(path, start=start, until=until) as reader:
            super().__init__(reader.path, time)
            self._header: Final = reader.header
            records: list[Record] = []
            while some := reader.read():
                records += some
        if not records:
            if start or until:
                raise RecordingError(self.path, 0, "has no record in that part; see how long the recording is")
            raise RecordingError(self.path, 1, "has a header and no record; record at least one commit")
        origin_ns = 0 if start is None else records[0].t_ns
        self._times_ns: Final = [record.t_ns - origin_ns for record in records]
        self._pages: Final = [_snapshot(self._header, record) for record in records]
        self._counters: Final = _counters(records)

    @property
    def fenced(self) -> bool:
        """False: a recording holds no device."""
        return False

    @property
    def counter_id(self) -> CounterId:
        """The recorded machine's counter."""
        return CounterId(self._header.counter_id)

    @property
    def duration_ns(self) -> int:
        """Nanoseconds from the first record to the last."""
        return self._times_ns[-1]

    def counter_ticks(self) -> int:
        """The recorded machine's counter at this moment."""
        at = self._index()
        counter, ticks, per_ns = self._counters[at]
        return (counter + (self.time.elapsed_ns - self._times_ns[at]) * ticks // per_ns) % 2**64

    def page_now(self) -> tuple[Snapshot, bool]:
        """The last recorded page up to this moment."""
        return self._pages[self._index()], True

    def page_after(self, seen: Snapshot) -> Snapshot | None:
        """The record after *seen*, once its time has come. None is skipped, however far time jumps ahead."""
        now = self._index()
        if self._pages[now] is seen:
            return None
        before = next((at for at in range(now, -1, -1) if self._pages[at] is seen), now - 1)
        return self._pages[before + 1]

    def ns_to_next_page(self) -> int:
        """Nanoseconds until the next record."""
        after = self._index() + 1
        if after == len(self._times_ns):
            return super().ns_to_next_page()
        return self._times_ns[after] - self.time.elapsed_ns

    def _index(self) -> int:
        """Index of the last record up to this moment."""
        return max(0, bisect_right(self._times_ns, self.time.elapsed_ns) - 1)


def _snapshot(header: RecordingHeader, record: Record) -> Snapshot:
    return Snapshot(
        magic=abi.MAGIC,
        size=header.segment_size,
        version=abi.VERSION,
        counter_id=header.counter_id,
        time_type=header.time_type,
        seq_count=record.seq_count,
        body=record.body,
        inode=0,
    )


def _counters(records: list[Record]) -> list[tuple[int, int, int]]:
    """For each record: the counter, and its rate from there on, as ticks and the nanoseconds that they take."""
    counters: list[tuple[int, int, int]] = []
    rate = 1, 1
    for record in records:
        body = record.body
        if record.counter is not None:
            counter = record.counter
        elif counters:
            before, ticks, per_ns = counters[-1]
            counter = before + (record.t_ns - records[len(counters) - 1].t_ns) * ticks // per_ns
        else:
            counter = body.counter_value
        if body.counter_period_frac_sec:
            rate = 2 ** (64 + body.counter_period_shift), body.counter_period_frac_sec * 10**9
        counters.append((counter, *rate))
    return counters
