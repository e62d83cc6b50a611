"""The displays of ``watch`` and ``demo``: as lines, as JSON, as a live view on a terminal.

The time shown is what a ``Clock`` reads, or the error with which it refuses, as in ``now``. A clock also refuses
without a new commit: the reference grows too old, the device's marker moves, the segment is removed.
"""

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Final, Protocol, Self, final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vmclock_async._cli.exit_status import ExitStatus
from vmclock_async._cli.failures import failure_fields
from vmclock_async._cli.history import Column, History
from vmclock_async._cli.output import (
    EndedError,
    print_json,
    print_line,
    printable,
    snapshot_fields,
    terminal_is_gone,
)
from vmclock_async._cli.plot import STATUS_STYLE, plot, plot_width
from vmclock_async._cli.reporting.series import unannounced
from vmclock_async.abi import Flags, name_of
from vmclock_async.errors import VMClockError
from vmclock_async.events import (
    Bounded,
    Disrupted,
    Event,
    LeapAnnounced,
    MaintenanceAnnounced,
    Restored,
    SegmentReplaced,
    StatusChanged,
    Unbounded,
    bound_event,
    events_between,
)
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot

__all__ = ("JsonView", "LineView", "Reading", "TerminalView", "View")

Reading = TimeInterval | VMClockError
"""A clock's answer: a time, or the error that says why it refused."""

_WIDTH: Final = 100
_EVENTS: Final = 8
_ROWS: Final = 10
"""Lines for the bars of the plot at most."""
_FEW_ROWS: Final = 3
"""Lines for the bars before there are more events."""
_LINES_FOR_EVENTS: Final = 4
"""Lines for events and blank ones before there are more for the bars."""
_REFRESHES_UNTIL_NEWS: Final = 5
"""Number of refreshes after which another kind of reading is news. Before, it may be a commit in progress."""
_BORDER: Final = 4
"""Characters of the panel beside what is in it."""
_BORDER_LINES: Final = 2
_STEP_NS: Final = 5 * 10**8
"""Width of a column of the history at first: so wide that a view is refreshed in each."""


class View(Protocol):
    """A display of changes; a context manager."""

    def change(self, snapshot: Snapshot, events: Sequence[Event], now: Reading) -> None:
        """Show *snapshot*, a new commit, the *events* that it brought, and the clock's answer."""

    def refresh(self, now: Reading) -> None:
        """Show the clock's answer; called several times a second, from the first change on."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def event_text(event: Event) -> str:
    """*event* in words."""
    match event:
        case Disrupted():
            return f"disrupted: marker {event.marker_before} -> {event.marker_after}"
        case Restored():
            return f"restored: generation {event.generation_before} -> {event.generation_after}"
        case StatusChanged():
            return f"status {name_of(event.before)} -> {name_of(event.after)}"
        case MaintenanceAnnounced():
            return f"maintenance announced: within {'an hour' if event.imminent else 'a day'}"
        case LeapAnnounced():
            return f"leap second: {name_of(event.indicator)}"
        case SegmentReplaced():
            return "segment replaced"
        case Unbounded():
            return f"no bounded time: {event.error.__name__}"
        case Bounded():
            return "bounded time again"


@final
class _Shown:
    """The kind of the reading that was shown last."""

    def __init__(self) -> None:
        self._kind: type[Reading] | None = None
        self._others = 0
        """Number of readings of another kind since then."""

    def note(self, now: Reading, snapshot: Snapshot) -> tuple[Event, ...]:
        """Note that *now* is shown; the event if the bound came or went since the last one."""
        event = None if self._kind is None else bound_event(self._kind is TimeInterval, now, snapshot)
        self._kind, self._others = type(now), 0
        return () if event is None else (event,)

    def is_news(self, now: Reading) -> bool:
        """Whether readings have been of another kind for a second; asked at each refresh."""
        self._others = self._others + 1 if type(now) is not self._kind else 0
        return self._others >= _REFRESHES_UNTIL_NEWS


class _Plain(ABC):
    """A view without a screen: one line a commit, and one when the clock begins to refuse, or ceases to."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._shown: Final = _Shown()

    def change(self, snapshot: Snapshot, events: Sequence[Event], now: Reading) -> None:
        """Print a line."""
        self._snapshot = snapshot
        self._print(snapshot, (*events, *self._shown.note(now, snapshot)), now)

    def refresh(self, now: Reading) -> None:
        """Print a line if the clock's answer has been of another kind for a second."""
        if self._snapshot is not None and self._shown.is_news(now):
            self.change(self._snapshot, (), now)

    @abstractmethod
    def _print(self, snapshot: Snapshot, events: Sequence[Event], now: Reading) -> None:
        """Print a line with *snapshot*, what happened, and the time or why there is none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return


@final
class LineView(_Plain):
    """Lines for people."""

    def _print(self, snapshot: Snapshot, events: Sequence[Event], now: Reading) -> None:
        body = snapshot.body
        parts = [
            f"seq_count={snapshot.seq_count}",
            f"status={name_of(body.clock_status)}",
            f"marker={body.disruption_marker}",
        ]
        if body.vm_generation_counter is not None:
            parts.append(f"generation={body.vm_generation_counter}")
        parts.append(str(now) if isinstance(now, TimeInterval) else f"no bounded time: {printable(str(now))}")
        parts += [f"[{event_text(event)}]" for event in events]
        print_line("  ".join(parts))


@final
class JsonView(_Plain):
    """Lines of JSON."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def _print(self, snapshot: Snapshot, events: Sequence[Event], now: Reading) -> None:
        verdict = (
            {"bounded": True, "error_ns": now.error_ns} if isinstance(now, TimeInterval) else failure_fields(now)
        )
        print_json(
            {
                **verdict,
                **snapshot_fields(self._path, snapshot),
                "now": now.as_dict() if isinstance(now, TimeInterval) else None,
                "events": [event.as_dict() for event in events],
            }
        )


@final
class TerminalView:
    """A panel that is redrawn: the time, the status, the history of the bound, and the latest events.

    Args:
        path: path of the segment.
        console: where to draw; None: on stdout.
    """

    def __init__(self, path: str, console: Console | None = None) -> None:
        self._path = path
        self._live = Live(console=console, auto_refresh=False, transient=False)
        self._history = History(time.monotonic_ns(), _STEP_NS)
        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._snapshot: Snapshot | None = None
        self._shown: Final = _Shown()

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def change(self, snapshot: Snapshot, events: Sequence[Event], now: Reading) -> None:
        """Note *snapshot* and *events*, and draw."""
        if self._snapshot is None:
            events = events_between(unannounced(snapshot), snapshot)
        self._snapshot = snapshot
        self._note(snapshot, (*events, *self._shown.note(now, snapshot)), now)

    def refresh(self, now: Reading) -> None:
        """Draw with the present time."""
        if self._snapshot is not None:
            events = self._shown.note(now, self._snapshot) if self._shown.is_news(now) else ()
            self._note(self._snapshot, events, now)

    def _note(self, snapshot: Snapshot, events: Sequence[Event], now: Reading) -> None:
        self._events += [f"{datetime.now(UTC):%m-%d %H:%M:%SZ}  {event_text(event)}" for event in events]
        bound_ns = now.error_ns if isinstance(now, TimeInterval) else None
        marks = frozenset(event.name for event in events)
        self._history.add(time.monotonic_ns(), Column(bound_ns, snapshot.body.clock_status, marks))
        self._draw(snapshot, now)

    def _draw(self, snapshot: Snapshot, now: Reading) -> None:
        if terminal_is_gone():  # rich would draw nothing from now on, for ever
            raise EndedError(ExitStatus.HUNG_UP)
        console = self._live.console
        width = min(console.width, _WIDTH)
        table = _table(snapshot, now)
        lines = console.render_lines(table, console.options.update(width=width - _BORDER))
        room = console.height - 1 - _BORDER_LINES - len(lines)
        drawing = self._plot(width - _BORDER, room, ascii_only=console.options.ascii_only)
        latest = [*self._events][-max(room - len(drawing), 1) :] or ["no events yet"]
        style = "cyan" if self._events else "dim"
        events = [Text(line, style, no_wrap=True, overflow="crop") for line in latest]
        self._live.update(
            Panel(Group(table, *drawing, *events), title=printable(self._path), width=width), refresh=True
        )

    def _plot(self, width: int, room: int, *, ascii_only: bool) -> list[RenderableType]:
        """The history in *room* lines, of which some are left to the events; nothing where it does not fit."""
        if plot_width(width) < 1:
            return []
        columns, column_ns = self._history.columns(plot_width(width))
        draw = partial(plot, columns, column_ns, width=width, ascii_only=ascii_only)
        spare = room - len(draw(rows=0)) - 1  # a line for an event
        rows = min(max(spare - _LINES_FOR_EVENTS, min(spare, _FEW_ROWS)), _ROWS)
        if rows < 1:
            return []
        blank = [Text()] if spare - rows >= _LINES_FOR_EVENTS else []
        return [*blank, *draw(rows=rows), *blank]


def _table(snapshot: Snapshot, now: Reading) -> Table:
    """Rows with the present time, status and marker."""
    body = snapshot.body
    table = Table.grid(padding=(0, 2))
    if isinstance(now, TimeInterval):
        table.add_row("time", Text(str(now), "bold", overflow="fold"))
    else:
        table.add_row("time", Text(printable(str(now)), "red", overflow="fold"))
    table.add_row("status", Text(name_of(body.clock_status), f"bold {STATUS_STYLE.get(body.clock_status, 'red')}"))
    notice = body.flags & (Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT)
    if notice:
        table.add_row("notice", Text(notice.name or "", "yellow", overflow="fold"))
    generation = "" if body.vm_generation_counter is None else f"  generation {body.vm_generation_counter}"
    marker = f"{body.disruption_marker}{generation}  seq_count {snapshot.seq_count}"
    table.add_row("marker", Text(marker, overflow="fold"))
    return table
