"""The displays of ``watch`` and ``demo``: as lines, as JSON, as a live view on a terminal.

The time shown is what a ``Clock`` reads, or the error with which it refuses, as in ``now``. A clock also refuses
without a new commit: the reference grows too old, the device's marker moves, the segment is removed.
"""

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol, Self, final

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vmclock_async._cli.failures import failure_fields
from vmclock_async._cli.output import print_json, print_line, printable, snapshot_fields
from vmclock_async._notation import duration_text
from vmclock_async.abi import ClockStatus, Flags, name_of
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
)
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot

__all__ = ("JsonView", "LineView", "Reading", "TerminalView", "View")

Reading = TimeInterval | VMClockError
"""A clock's answer: a time, or the error that says why it refused."""

_WIDTH: Final = 100
_BESIDE_THE_BARS: Final = 42
_EVENTS: Final = 8
_LASTS: Final = 5
"""Number of refreshes after which another kind of reading is news on a pipe. Before, it may be a commit in progress."""
_BARS: Final = "▁▂▃▄▅▆▇█"
_STATUS_STYLE: Final[dict[int, str]] = {
    ClockStatus.SYNCHRONIZED: "bold green",
    ClockStatus.FREERUNNING: "bold yellow",
}


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


class _Plain(ABC):
    """A view without a screen: one line a commit, and one when the clock begins to refuse, or ceases to."""

    def __init__(self) -> None:
        self._snapshot: Snapshot | None = None
        self._kind: type[Reading] | None = None
        """Kind of the reading shown last."""
        self._others = 0
        """Number of readings of another kind since then."""

    def change(self, snapshot: Snapshot, events: Sequence[Event], now: Reading) -> None:
        """Print a line."""
        if self._kind is not None and (event := bound_event(self._kind is TimeInterval, now, snapshot)):
            events = (*events, event)
        self._snapshot, self._kind, self._others = snapshot, type(now), 0
        self._print(snapshot, events, now)

    def refresh(self, now: Reading) -> None:
        """Print a line if the clock's answer has been of another kind for a second."""
        self._others = self._others + 1 if type(now) is not self._kind else 0
        if self._snapshot is not None and self._others >= _LASTS:
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
    """A panel that is redrawn: the time, its bound over the last minute, the status and the latest events."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._live = Live(auto_refresh=False, transient=False)
        self._errors: deque[int | None] = deque(maxlen=_WIDTH)
        self._events: deque[str] = deque(maxlen=_EVENTS)
        self._snapshot: Snapshot | None = None

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def change(self, snapshot: Snapshot, events: Sequence[Event], now: Reading) -> None:
        """Note *snapshot* and *events*, and draw."""
        self._snapshot = snapshot
        self._events += [f"{datetime.now():%H:%M:%S}  {event_text(event)}" for event in events]
        self._draw(snapshot, now)

    def refresh(self, now: Reading) -> None:
        """Draw with the present time."""
        if self._snapshot is not None:
            self._errors.append(now.error_ns if isinstance(now, TimeInterval) else None)
            self._draw(self._snapshot, now)

    def _draw(self, snapshot: Snapshot, now: Reading) -> None:
        body = snapshot.body
        width = min(self._live.console.width, _WIDTH)
        table = Table.grid(padding=(0, 2))
        if isinstance(now, TimeInterval):
            table.add_row("time", Text(str(now), "bold"))
        else:
            table.add_row("time", Text(printable(str(now)), "red"))
        table.add_row("error bound", _sparkline(self._errors, width - _BESIDE_THE_BARS))
        status = name_of(body.clock_status)
        table.add_row("status", Text(status, _STATUS_STYLE.get(body.clock_status, "bold red")))
        notice = body.flags & (Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT)
        table.add_row("notice", Text(notice.name or "", "yellow") if notice else "none")
        table.add_row("marker", str(body.disruption_marker))
        if body.vm_generation_counter is not None:
            table.add_row("generation", str(body.vm_generation_counter))
        table.add_row("seq_count", str(snapshot.seq_count))
        events = Text("\n".join(self._events) or "no events yet", "cyan" if self._events else "dim")
        self._live.update(
            Panel(Group(table, Text(), events), title=printable(self._path), width=width), refresh=True
        )


def _sparkline(errors: Sequence[int | None], columns: int) -> Text:
    """The last of *errors* (in ns, None without a bound) as bars on a logarithmic scale, and their range."""
    errors = list(errors)[-max(columns, 1) :]
    known = [error for error in errors if error is not None]
    if not known:
        return Text("none yet", "dim")
    low, high = min(known), max(known)
    scale = (len(_BARS) - 1) / math.log(high / low) if high > low > 0 else 0.0
    text = Text()
    for error in errors:
        if error is None:
            text.append("x", "red")
        else:
            text.append(_BARS[round(scale * math.log(max(error, 1) / max(low, 1)))])
    return text.append(f"  {duration_text(low)} to {duration_text(high)}")
