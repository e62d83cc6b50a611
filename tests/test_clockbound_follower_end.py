"""How a follower of ClockBound's segment ends, and what it refuses to begin."""

import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from kit.clockbound import DISRUPTED, SYNCHRONIZED, UNKNOWN, Client, put, segment
from kit.earlier_boot import require_attributes
from kit.kept_bound import Kept, error_of, keeping
from kit.told_world import World, open_descriptors
from vmclock_async import Clock
from vmclock_async._segment.time_source import TimeSource, record_time_source
from vmclock_async.clockbound import ErrorBoundFollower
from vmclock_async.errors import SegmentError, SegmentInUseError, SegmentMalformedError
from vmclock_async.testing import ManualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def kept_path(world: World) -> Path:
    """The place of the segment that is kept."""
    return world.path.parent / "clockbound/shm0"


async def test_end_takes_back_what_was_said(world: World, kept_path: Path) -> None:
    """Clients that have the file open read UNKNOWN; no task, descriptor or lock is left behind."""
    async with keeping(world):
        pass
    before = open_descriptors()
    async with keeping(world) as (_, client):
        assert client.now().status == SYNCHRONIZED
        client = Client(kept_path)
    assert client.now().status == UNKNOWN
    client.close()
    assert not open_descriptors() - before
    assert [entry.name for entry in kept_path.parent.iterdir()] == ["shm0"]


async def test_killed_follower_is_followed_by_another(world: World, kept_path: Path) -> None:
    """What it left, in mid-commit, is repaired in the same file."""
    put(kept_path, segment(generation=65_535))
    client = Client(kept_path)
    async with keeping(world) as (kept, _):
        assert kept.answer_is_right(client)
        assert client.read()["generation"] % 2 == 0
    client.close()


async def test_time_that_comes_from_clockbound_is_refused(world: World, kept_path: Path) -> None:
    """At the start, and as soon as it does: its clients read UNKNOWN, and the error says why."""
    require_attributes(world.path)

    def record(name: str) -> None:
        with world.path.open("rb+") as file:
            record_time_source(file.fileno(), TimeSource(name, True))

    async def follow() -> None:
        async with keeping(world, interval=0.01) as (kept, client):
            assert kept.answer_is_right(client)
            record("clockbound")
            await anyio.sleep_forever()

    record("chrony")
    assert "made from itself" in str(await error_of(follow))
    client = Client(kept_path)
    assert client.now().status == UNKNOWN
    client.close()
    page = kept_path.read_bytes()
    with Clock(world.path, fence=None) as clock:
        assert "made from itself" in str(await error_of(Kept(world.path, clock).follower.run))
    assert kept_path.read_bytes() == page


async def test_second_follower_is_refused(world: World) -> None:
    """By the lock of the first, which goes on."""
    async with keeping(world) as (kept, client):
        with Clock(world.path, fence=None) as clock:
            error = await error_of(Kept(world.path, clock).follower.run)
        assert isinstance(error, SegmentInUseError)
        assert "is writing to it" in error.reason
        assert kept.answer_is_right(client)


async def test_clockbounds_daemon_is_noticed(world: World) -> None:
    """By its commits, because it knows no lock: nothing more is written then, not even at the end."""
    daemons = segment(generation=300, status=DISRUPTED)

    async def follow() -> None:
        async with keeping(world, interval=0.01) as (kept, _):
            put(kept.path, daemons)
            await anyio.sleep_forever()

    error = await error_of(follow)
    assert isinstance(error, SegmentInUseError)
    assert "is ClockBound's daemon running?" in error.reason
    assert (world.path.parent / "clockbound/shm0").read_bytes() == daemons


@pytest.mark.parametrize("is_replaced", [True, False])
async def test_clients_of_a_file_that_is_gone_read_unknown(
    world: World, kept_path: Path, is_replaced: bool
) -> None:
    """They keep the file that they opened, so nobody else would ever tell them."""
    clients: list[Client] = []

    async def follow() -> None:
        async with keeping(world, interval=0.01):
            clients.append(Client(kept_path))
            kept_path.unlink()
            if is_replaced:
                put(kept_path, segment())
            await anyio.sleep_forever()

    error = await error_of(follow)
    assert isinstance(error, SegmentError)
    assert ("another file is in its place" if is_replaced else "the file was removed") in str(error)
    assert clients[0].now().status == UNKNOWN
    clients[0].close()


async def test_error_stands_alone(world: World, kept_path: Path) -> None:
    """Outside any group, so that a program can catch it by its type."""

    def begin_daemon(followed: object) -> None:
        put(kept_path, segment(generation=300))

    with Clock(world.path, fence=None) as clock:
        follower = ErrorBoundFollower(clock, kept_path.parent, interval=0.01, on_change=begin_daemon)
        with pytest.raises(SegmentInUseError, match="is ClockBound's daemon running"):
            await follower.run()


async def test_what_is_no_segment_ends_it(world: World, kept_path: Path) -> None:
    """Not a wait: somebody has to look. Clients read UNKNOWN."""

    async def follow() -> None:
        async with keeping(world):
            world.remove()
            world.path.write_bytes(b"x" * 200)
            await anyio.sleep_forever()

    assert isinstance(await error_of(follow), SegmentMalformedError)
    client = Client(kept_path)
    assert client.now().status == UNKNOWN
    client.close()


@pytest.fixture
def played() -> Iterator[ManualClock]:
    with ManualClock() as clock:
        yield clock


async def test_arguments_are_checked(clock: Clock, played: ManualClock) -> None:
    """Their ranges, and that the clock is this machine's."""
    for slew in (-1, 400_001):
        with pytest.raises(ValueError, match="max_slew_ppm"):
            ErrorBoundFollower(clock, "/nowhere", max_slew_ppm=slew)
    for interval in (0, -1, 0.004, 1.1, float("nan")):
        with pytest.raises(ValueError, match="interval"):
            ErrorBoundFollower(clock, "/nowhere", interval=interval)
    with pytest.raises(SegmentError, match="it is played"):
        ErrorBoundFollower(played, "/nowhere")
    with pytest.raises(SegmentError):
        ErrorBoundFollower(clock, "/nowhere\0")
    assert not os.path.exists("/nowhere")
