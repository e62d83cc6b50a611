"""How ``watch`` and ``demo`` show a segment: as lines, as JSON, as a live view on a terminal."""

import math
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Final, Protocol, Self, final

from rich.console import Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vmclock_async._cli.now import reading
from vmclock_async._cli.output import bounds_fields, duration, print_json, print_line, snapshot_fields
from vmclock_async.abi import ClockStatus, Flags, name_of
from vmclock_async.errors import ClockError
from vmclock_async.events import (
    Disrupted,
    Event,
    LeapAnnounced,
    MaintenanceAnnounced,
    Restored,
    SegmentReplaced,
    StatusChanged,
)
from vmclock_async.models import Snapshot
from vmclock_async.reckoning import Bounds, bounds_at
from vmclock_async.timebase import COUNTER_ID, counter_ticks

__all__ = ("JsonView", "LineView", "TerminalView", "View")

_WIDTH: Final = 100
_BESIDE_THE_BARS: Final = 42
_EVENTS: Final = 8
_BARS: Final = "▁▂▃▄▅▆▇█"
_STATUS_STYLE: Final[dict[int, str]] = {
    ClockStatus.SYNCHRONIZED: "bold green",
    ClockStatus.FREERUNNING: "bold yellow",
}


class View(Protocol):
    """Where changes are shown; a context manager."""

    refreshes: bool
    """Whether ``refresh`` is to be called between changes."""

    def change(self, snapshot: Snapshot, events: Sequence[Event]) -> None:
        """Show *snapshot*, a new commit, and the *events* that it brought."""

    def refresh(self) -> None:
        """Show what time it is now."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def time_by(snapshot: Snapshot) -> Bounds | ClockError:
    """The time now by *snapshot*, or why there is no bound."""
    try:
        return bounds_at(snapshot, counter_ticks(), counter_id=COUNTER_ID)
    except ClockError as exc:
        return exc


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


class _Plain:
    """A view without a screen."""

    refreshes = False

    def refresh(self) -> None:
        """Nothing: there is a line a change."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@final
class LineView(_Plain):
    """One line a change."""

    def change(self, snapshot: Snapshot, events: Sequence[Event]) -> None:
        """Print the number, status, markers, time and events of *snapshot*."""
        now = time_by(snapshot)
        body = snapshot.body
        parts = [
            f"seq_count={snapshot.seq_count}",
            f"status={name_of(body.clock_status)}",
            f"marker={body.disruption_marker}",
        ]
        if body.vm_generation_counter is not None:
            parts.append(f"generation={body.vm_generation_counter}")
        parts.append(reading(now) if isinstance(now, Bounds) else "no bounded time")
        parts += [f"[{event_text(event)}]" for event in events]
        print_line("  ".join(parts))


@final
class JsonView(_Plain):
    """One line of JSON a change."""

    def __init__(self, path: str) -> None:
        self._path = path

    def change(self, snapshot: Snapshot, events: Sequence[Event]) -> None:
        """Print *snapshot*, the interval (or null) and the events."""
        now = time_by(snapshot)
        print_json(
            {
                **snapshot_fields(self._path, snapshot),
                "now": bounds_fields(now) if isinstance(now, Bounds) else None,
                "events": [event_text(event) for event in events],
            }
        )


@final
class TerminalView:
    """A panel that is drawn anew: the time, its bound over the last minute, the status and the latest events."""

    refreshes = True

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

    def change(self, snapshot: Snapshot, events: Sequence[Event]) -> None:
        """Take *snapshot* and *events* over, and draw."""
        self._snapshot = snapshot
        self._events += [f"{datetime.now():%H:%M:%S}  {event_text(event)}" for event in events]
        self._draw(snapshot, time_by(snapshot))

    def refresh(self) -> None:
        """Draw with the time of now."""
        if self._snapshot is not None:
            now = time_by(self._snapshot)
            self._errors.append(now.error_ns if isinstance(now, Bounds) else None)
            self._draw(self._snapshot, now)

    def _draw(self, snapshot: Snapshot, now: Bounds | ClockError) -> None:
        body = snapshot.body
        width = min(self._live.console.width, _WIDTH)
        table = Table.grid(padding=(0, 2))
        table.add_row("time", Text(reading(now), "bold") if isinstance(now, Bounds) else Text(str(now), "red"))
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
        self._live.update(Panel(Group(table, Text(), events), title=self._path, width=width), refresh=True)


def _sparkline(errors: Sequence[int | None], columns: int) -> Text:
    """The last of *errors* (ns, None where there was no bound) as bars on a logarithmic scale, and their range."""
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
    return text.append(f"  {duration(low)} to {duration(high)}")
