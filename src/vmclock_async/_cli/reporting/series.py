"""What a recording shows, as numbers: the bound that readers had over time, states, marks and quantiles.

The bound at a moment is what ``reckoning.find_bounds`` gives for the page of that moment at the recorded machine's
counter, which is what ``RecordedClock.now`` reads. Where that gives no time, there is no bound here either. One pass,
and the memory that it takes does not grow with the number of records, but only with what happened in them.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple, final

from vmclock_async._cli.reporting.columns import Columns, Point
from vmclock_async._cli.reporting.distribution import Distribution, Quantiles
from vmclock_async._reading.recorded_feed import RecordedPage, recorded_pages
from vmclock_async.abi import CounterId, Flags, LeapIndicator, name_of
from vmclock_async.errors import ClockError
from vmclock_async.events import Disrupted, LeapAnnounced, MaintenanceAnnounced, Restored, events_between
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import bounds_at, find_bounds
from vmclock_async.recording import RecordingHeader, RecordingReader

__all__ = ("Band", "Mark", "Report", "collect", "unannounced")

_COUNTERS: Final = {int(each): each for each in CounterId}
_SEQ_COUNTS: Final = 2**32


class Band(NamedTuple):
    """A stretch of time in which clock_status was one value."""

    begin_ns: int
    end_ns: int
    status: str


class Mark(NamedTuple):
    """Something that happened at one moment."""

    t_ns: int
    kind: str
    """The event's name as the command ``on`` has it, or "gap"."""
    text: str


@final
@dataclass(frozen=True)
class Report:
    """All that the page shows."""

    path: str
    header: RecordingHeader
    records: int
    duration_ns: int
    bound: list[Point]
    """Half the width of the interval, in nanoseconds; thinned as ``Columns`` does."""
    update_intervals: list[Point]
    """Nanoseconds since the record before; thinned in the same way."""
    column_ns: int
    bands: list[Band]
    marks: list[Mark]
    bound_ns: Quantiles | None
    """Quantiles over the time in which there was a bound; None if there never was."""
    bound_max_at_ns: int | None
    """The moment at which the bound first was its maximum."""
    update_interval_ns: Quantiles | None
    """Quantiles over the intervals between two records; None if there is one record."""
    status_ns: dict[str, int]
    unbounded_ns: int
    """Nanoseconds in which readers had no time."""
    commits_missed: int
    """Commits between two records, which the recorder did not see."""


def collect(reader: RecordingReader, progress: Callable[[int], object] = lambda records: None) -> Report:
    """What the records that *reader* has yet to read show; *progress* gets how many have been read, now and then.

    Raises:
        RecordingError: a line is bad, or there is no record.
    """
    return _Collection(reader).collect(progress)


@final
class _Collection:
    def __init__(self, reader: RecordingReader) -> None:
        self._reader: Final = reader
        # A counter that nobody knows is no reader's.
        self._counter_id: Final = _COUNTERS.get(reader.header.counter_id, CounterId.INVALID)
        self._bound: Final = Columns()
        self._intervals: Final = Columns()
        self._bounds: Final = Distribution()
        self._interval_lengths: Final = Distribution()
        self._bands: Final[list[Band]] = []
        self._marks: Final[list[Mark]] = []
        self._status_ns: Final[defaultdict[str, int]] = defaultdict(int)
        self._generation: int | None = None
        self._highest = Point(0, None)
        self._was_bounded = False
        self._unbounded_ns = 0
        self._missed = 0

    def collect(self, progress: Callable[[int], object]) -> Report:
        records = 0
        page: RecordedPage | None = None
        for later in recorded_pages(self._reader):
            if page is None:
                self._note_events(unannounced(later.snapshot), later)
            else:
                self._note_page(page, later.t_ns)
                self._note_events(self._with_generation(page.snapshot), later)
                self._note_interval(later.t_ns - page.t_ns, later.t_ns)
                self._note_gap(page.snapshot.seq_count, later.snapshot.seq_count, later.t_ns)
            records += 1
            page = later
            self._generation = _or_else(page.snapshot.body.vm_generation_counter, self._generation)
            if not records % 512:
                progress(records)
        assert page is not None
        self._note_page(page, page.t_ns)
        return Report(
            path=self._reader.path,
            header=self._reader.header,
            records=records,
            duration_ns=page.t_ns,
            bound=self._bound.points(),
            update_intervals=self._intervals.points(),
            column_ns=self._bound.width_ns,
            bands=self._bands,
            marks=self._marks,
            bound_ns=self._bounds.quantiles(),
            bound_max_at_ns=None if self._highest.value is None else self._highest.t_ns,
            update_interval_ns=self._interval_lengths.quantiles(),
            status_ns=dict(self._status_ns),
            unbounded_ns=self._unbounded_ns,
            commits_missed=self._missed,
        )

    def _note_page(self, page: RecordedPage, end_ns: int) -> None:
        """Add what readers had from *page* until *end_ns*, when the next one was there."""
        status = name_of(page.snapshot.body.clock_status)
        self._status_ns[status] += end_ns - page.t_ns
        if self._bands and self._bands[-1].status == status:
            self._bands[-1] = self._bands[-1]._replace(end_ns=end_ns)
        else:
            self._bands.append(Band(page.t_ns, end_ns, status))
        points = list(self._bounds_of(page, end_ns))
        for point in points:
            self._bound.add(point)
            if point.value is not None and (self._highest.value is None or point.value > self._highest.value):
                self._highest = point
            if point.value is None and self._was_bounded:
                self._marks.append(Mark(point.t_ns, "unbounded", self._why_none(page, point.t_ns)))
            self._was_bounded = point.value is not None
        for point, later in pairwise([*points, Point(end_ns, points[-1].value)]):
            if point.value is None:
                self._unbounded_ns += later.t_ns - point.t_ns
            else:
                other = point.value if later.value is None else later.value
                self._bounds.add(point.value, other, max(later.t_ns - point.t_ns, 1))

    def _bounds_of(self, page: RecordedPage, end_ns: int) -> Iterator[Point]:
        """The bound from *page* on, at its first and last nanosecond, where it comes or goes, and once a column."""
        last_ns = max(page.t_ns, end_ns - 1)
        self._bound.reach(last_ns)
        point = self._point(page, page.t_ns)
        yield point
        for t_ns in (*self._bound.borders(page.t_ns, last_ns), *((last_ns,) if last_ns > page.t_ns else ())):
            later = self._point(page, t_ns)
            if (point.value is None) != (later.value is None):
                yield from self._between(page, point, later)
            yield later
            point = later

    def _between(self, page: RecordedPage, point: Point, later: Point) -> Iterator[Point]:
        """The last nanosecond that is as *point*, and the first that is as *later*, if they are others than these."""
        first, last = point, later
        while last.t_ns - first.t_ns > 1:
            middle = self._point(page, (first.t_ns + last.t_ns) // 2)
            if (middle.value is None) == (first.value is None):
                first = middle
            else:
                last = middle
        if first != point:
            yield first
        if last != later:
            yield last

    def _point(self, page: RecordedPage, t_ns: int) -> Point:
        bounds = find_bounds(page.snapshot, page.counter_at(t_ns), counter_id=self._counter_id)
        return Point(t_ns, None if bounds is None else bounds.error_ns)

    def _why_none(self, page: RecordedPage, t_ns: int) -> str:
        try:
            bounds_at(page.snapshot, page.counter_at(t_ns), counter_id=self._counter_id)
        except ClockError as exc:
            return f"no bounded time: {exc.seen}"
        raise AssertionError("find_bounds() gave no bounds, and bounds_at() did")

    def _note_interval(self, interval_ns: int, t_ns: int) -> None:
        self._intervals.add(Point(t_ns, interval_ns))
        self._interval_lengths.add(interval_ns, interval_ns, 1)

    def _note_events(self, before: Snapshot, later: RecordedPage) -> None:
        """Add what happened from *before* to *later*."""
        for event in events_between(before, later.snapshot):
            match event:
                case Disrupted():
                    text = f"disrupted: marker {event.marker_before} to {event.marker_after}"
                    if event.jump_ns is not None:
                        text += f", the published time jumped by {event.jump_ns:+} ns"
                case Restored():
                    text = f"restored: generation {event.generation_before} to {event.generation_after}"
                case MaintenanceAnnounced():
                    text = f"maintenance announced: within {'an hour' if event.imminent else 'a day'}"
                case LeapAnnounced():
                    text = f"leap second: {name_of(event.indicator)}"
                case _:
                    continue  # a status is a band
            self._marks.append(Mark(later.t_ns, event.name, text))

    def _with_generation(self, snapshot: Snapshot) -> Snapshot:
        """*snapshot*; if its page lacks the generation for a while, with the last that there was."""
        body = snapshot.body
        if body.vm_generation_counter is not None or self._generation is None:
            return snapshot
        body = body.model_copy(update={"vm_generation_counter": self._generation})
        return snapshot.model_copy(update={"body": body})

    def _note_gap(self, before: int, after: int, t_ns: int) -> None:
        step = (after - before) % _SEQ_COUNTS
        if step >= _SEQ_COUNTS // 2:
            text = f"gap: seq_count went back from {before} to {after}, because the segment was started again"
            self._marks.append(Mark(t_ns, "gap", text))
        elif step > 2:
            missed = step // 2 - 1
            self._missed += missed
            self._marks.append(Mark(t_ns, "gap", f"gap: {missed} commits not seen, seq_count {before} to {after}"))


def unannounced(snapshot: Snapshot) -> Snapshot:
    """*snapshot* before anything was announced, so that what it announces itself is a mark at the first record."""
    body = snapshot.body.model_copy(update={"flags": Flags(0), "leap_indicator": LeapIndicator.NONE})
    return snapshot.model_copy(update={"body": body})


def _or_else(value: int | None, other: int | None) -> int | None:
    return other if value is None else value
