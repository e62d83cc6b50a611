"""The live view of ``watch``: what is on the screen, at the sizes of a terminal."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from rich.console import Console

from kit.told_world import World, grow_old
from vmclock_async import Clock, ClockStatus, LeapIndicator, SegmentReader
from vmclock_async._cli.view import Reading, TerminalView
from vmclock_async.errors import ClockError
from vmclock_async.events import events_between


class Screen:
    """A terminal on which a view shows *world*."""

    def __init__(self, world: World, width: int, height: int, encoding: str) -> None:
        self._world = world
        self._bytes = io.BytesIO()
        file = io.TextIOWrapper(self._bytes, encoding=encoding, write_through=True)
        console = Console(file=file, width=width, height=height, force_terminal=True, color_system=None)
        self.view = TerminalView(str(world.path), console)
        self._reader = SegmentReader(world.path)
        self._snapshot = self._reader.snapshot()

    def _now(self) -> Reading:
        with Clock(self._world.path, fence=None) as clock:
            try:
                return clock.now()
            except ClockError as exc:
                return exc

    def change(self) -> None:
        """Show the latest commit."""
        before, self._snapshot = self._snapshot, self._reader.snapshot()
        self.view.change(self._snapshot, events_between(before, self._snapshot), self._now())

    def lines(self, *, refreshes: int = 1) -> list[str]:
        """The lines of the last of so many refreshes, without the frame."""
        for _ in range(refreshes):
            self._bytes.seek(0)
            self._bytes.truncate()
            self.view.refresh(self._now())
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self._bytes.getvalue().decode())
        return [line for line in text.splitlines() if line]

    def close(self) -> None:
        """Let go of the segment."""
        self._reader.close()


@contextmanager
def shown(world: World, *, width: int = 80, height: int = 24, encoding: str = "utf-8") -> Iterator[Screen]:
    """A screen that has shown the present commit."""
    screen = Screen(world, width, height, encoding)
    with screen.view:
        screen.change()
        yield screen
    screen.close()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 20), (200, 60), (20, 12), (8, 4)])
def test_view_fits_the_terminal(world: World, width: int, height: int) -> None:
    """However small it is, also with a reason of many lines; the history is there where it has room."""
    with shown(world, width=width, height=height) as screen:
        for lost in (False, True):
            world.tell(**({"clock_status": ClockStatus.UNKNOWN} if lost else {}))
            screen.change()
            lines = screen.lines()
            assert len(lines) <= height
            assert max(map(len, lines)) <= width
            assert any("status │" in line for line in lines) is (width >= 40)


def test_view_shows_what_happened(world: World) -> None:
    """A mark in the history and a line for each event, at its UTC: also that the time was lost and is back."""
    began = datetime.now(UTC)
    with shown(world, height=40) as screen:
        assert any("status │S" in line for line in screen.lines())
        world.marker = 2
        world.tell(clock_status=ClockStatus.UNKNOWN, leap_indicator=LeapIndicator.POS)
        screen.change()
        world.tell()
        screen.change()
        text = "\n".join(screen.lines())
    for event in (
        "Z  disrupted: marker 1 -> 2",
        "no bounded time: ClockNotSynchronizedError",
        "leap second: POS",
        "bounded time again",
    ):
        assert event in text
    assert "D disrupted" in text  # the gravest of this column
    assert "U UNKNOWN" in text
    hours = {f"{moment:%m-%d %H}" for moment in (began, datetime.now(UTC))}
    assert {found[1] for found in re.finditer(r"(\d\d-\d\d \d\d):\d\d:\d\dZ", text)} <= hours


def test_view_says_without_a_commit_that_the_time_is_lost(world: World) -> None:
    """Once the clock has refused for a second; the history has it at once, and no number in its place."""
    with shown(world, height=40) as screen:
        with world.path.open("r+b", buffering=0) as page:
            grow_old(page, 2000)
        first = "\n".join(screen.lines())
        assert "no bounded time: " not in first
        assert "- no bounded time" in first
        assert "no bounded time: ClockStaleError" in "\n".join(screen.lines(refreshes=4))


def test_view_says_what_is_announced_when_it_begins(world: World) -> None:
    """As a report does with the first record."""
    world.tell(leap_indicator=LeapIndicator.POS)
    with shown(world) as screen:
        assert "leap second: POS" in "\n".join(screen.lines())


def test_view_in_ascii(world: World) -> None:
    """Where stdout has no other characters, there is no other, and nothing is lost."""
    with shown(world, encoding="ascii") as screen:
        text = "\n".join(screen.lines())
    assert text.isascii()
    assert "status |S" in text
