"""A feed that plays a recording in virtual time."""

import os
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final, NamedTuple, final

from vmclock_async import abi
from vmclock_async._reading.virtual_feed import VirtualFeed
from vmclock_async._reading.virtual_time import VirtualTime
from vmclock_async.abi import CounterId
from vmclock_async.errors import RecordingError
from vmclock_async.models import Snapshot
from vmclock_async.recording import Moment, Record, RecordingHeader, RecordingReader

__all__ = ("RecordedFeed", "RecordedPage", "recorded_pages")


class RecordedPage(NamedTuple):
    """A recorded commit, and the recorded machine's counter from there to the next."""

    t_ns: int
    """Nanoseconds since the first record."""
    snapshot: Snapshot
    counter: int
    """The counter at `t_ns`."""
    ticks: int
    per_ns: int
    """The counter's rate: it goes on by `ticks` in so many nanoseconds."""

    def counter_at(self, t_ns: int) -> int:
        """The counter at *t_ns*, up to the next commit."""
        return (self.counter + (t_ns - self.t_ns) * self.ticks // self.per_ns) % 2**64


def recorded_pages(reader: RecordingReader, *, is_part: bool = False) -> Iterator[RecordedPage]:
    """The commits that *reader* has yet to read; *is_part* is whether it reads a part of the recording alone.

    Between two records the counter runs as fast as the page says. A record with a counter value sets it. A record
    without one leaves it running; if it is the first, the counter begins at its body's counter_value.

    Raises:
        RecordingError: a line is bad, or there is no record.
    """
    page: RecordedPage | None = None
    ticks, per_ns = 1, 1
    while records := reader.read():
        for record in records:
            body = record.body
            if record.counter is not None:
                counter = record.counter
            else:
                counter = page.counter_at(record.t_ns) if page is not None else body.counter_value
            if body.counter_period_frac_sec:
                ticks = 2 ** (64 + body.counter_period_shift)
                per_ns = body.counter_period_frac_sec * 10**9
            page = RecordedPage(record.t_ns, _snapshot(reader.header, record), counter, ticks, per_ns)
            yield page
    if page is None:
        if is_part:
            raise RecordingError(reader.path, 0, "has no record in that part; see how long the recording is")
        raise RecordingError(reader.path, 1, "has a header and no record; record at least one commit")


@final
class RecordedFeed(VirtualFeed):
    """The commits of the recording at *path*, or of the part from *start* to *until*, each when it was seen.

    Time begins with the recording, or with the first commit of a part that has a *start*. See ``recorded_pages``.

    Raises:
        RecordingError: the file is no recording, or it has no record there.
    """

    def __init__(
        self, path: str | os.PathLike[str], time: VirtualTime, *, start: Moment | None, until: Moment | None
    ) -> None:
        with RecordingReader(path, start=start, until=until) as reader:
            super().__init__(reader.path, time)
            self._header: Final = reader.header
            pages = list(recorded_pages(reader, is_part=bool(start or until)))
        origin_ns = 0 if start is None else pages[0].t_ns
        self._pages: Final = [page._replace(t_ns=page.t_ns - origin_ns) for page in pages]
        self._times_ns: Final = [page.t_ns for page in self._pages]

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
        return self._pages[self._index()].counter_at(self.time.elapsed_ns)

    def page_now(self) -> tuple[Snapshot, bool]:
        """The last recorded page up to this moment."""
        return self._pages[self._index()].snapshot, True

    def page_after(self, seen: Snapshot) -> Snapshot | None:
        """The record after *seen*, once its time has come. None is skipped, however far time jumps ahead."""
        now = self._index()
        if self._pages[now].snapshot is seen:
            return None
        before = next((at for at in range(now, -1, -1) if self._pages[at].snapshot is seen), now - 1)
        return self._pages[before + 1].snapshot

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
