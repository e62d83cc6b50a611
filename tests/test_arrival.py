"""``open_clock(wait=True)``: it waits for a segment, wherever one may come, and for nothing else."""

import errno
import os
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from kit.told_world import World, open_descriptors
from kit.waits import BOUND_S, until
from vmclock_async import (
    Clock,
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentWriter,
    _core,
    _paths,
    open_clock,
)
from vmclock_async._paths import SEGMENT_VARIABLE
from vmclock_async._reading import arrival

pytestmark = pytest.mark.anyio


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch, segment_path: Path) -> list[str]:
    """The path of each file below the segment's directory that is opened, or was to be."""
    opened: list[str] = []
    really_open = os.open

    def note(path: Any, *args: int, **how: Any) -> int:
        if str(path).startswith(str(segment_path.parent)):
            opened.append(str(path))
        return really_open(path, *args, **how)

    monkeypatch.setattr(os, "open", note)
    return opened


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, segment_path: Path) -> tuple[Path, Path]:
    """The machine's place for a segment, and a user's, which readers look at next; nothing is there."""
    system, runtime = segment_path.parent / "run" / "shm0", segment_path.parent / "runtime"
    runtime.mkdir(mode=0o700)
    monkeypatch.delenv(SEGMENT_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    monkeypatch.setattr(_paths, "SYSTEM_PATH", system)
    return system, runtime / "vmclock-async" / "shm0"


@pytest.fixture
def only_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts by time do not come within a test."""
    monkeypatch.setattr(arrival, "_LOOK_S", 3600.0)
    monkeypatch.setattr(arrival, "_POLL_S", 3600.0)


async def test_clock_opens_once_there_is_a_segment(segment_path: Path, tries: list[str], only_woken: None) -> None:
    """Each step on the way wakes: two directories, an empty file, a page without a commit, the first commit."""
    path = segment_path.parent / "runtime" / "vmclock" / "shm0"
    readings = []

    async def read() -> None:
        async with open_clock(path, fence=None, wait=True) as clock:
            readings.append(clock.now())

    async def until_tried(step: Callable[[], object]) -> None:
        before = len(tries)
        step()
        await until(lambda: len(tries) > before)

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await until(lambda: len(tries) >= 2)  # by the second attempt, the place is watched
            await until_tried(path.parent.parent.mkdir)
            await until_tried(path.parent.mkdir)
            await until_tried(partial(path.touch, mode=0o644))
            path.unlink()
            uncommitted = SegmentWriter(path, size=112)
            await until(lambda: path.stat().st_size >= 112)
            assert readings == []
            uncommitted.close()
            World(path).close()
    assert len(readings) == 1


async def test_segment_that_is_moved_into_place_wakes(
    segment_path: Path, tries: list[str], only_woken: None
) -> None:
    """Its directory too, with the segment in it."""
    made, path = segment_path.parent / "made", segment_path.parent / "here" / "shm0"
    made.mkdir()
    World(made / "shm0").close()

    async def move() -> None:
        await until(lambda: tries.count(str(path)) >= 2)
        made.rename(path.parent)

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(move)
            async with open_clock(path, fence=None, wait=True) as clock:
                assert clock.now().error_ns > 0


async def test_nothing_is_tried_while_nothing_comes(
    segment_path: Path, tries: list[str], only_woken: None
) -> None:
    """A file elsewhere wakes nobody; the two attempts are the first, and the one after the watch was made."""
    (segment_path.parent / "elsewhere").mkdir()
    path = segment_path.parent / "here" / "shm0"
    path.parent.mkdir()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_open, path)
        await until(lambda: len(tries) >= 2)
        for number in range(10):
            (segment_path.parent / "elsewhere" / str(number)).touch()
            await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
    assert tries.count(str(path)) == 2


async def test_place_that_cannot_be_watched_is_tried_by_time(
    segment_path: Path, monkeypatch: pytest.MonkeyPatch, tries: list[str]
) -> None:
    """No inotify instance is left, for example."""
    monkeypatch.setattr(arrival, "_LOOK_S", 3600.0)

    def refuse() -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(_core, "inotify_open", refuse)

    async def come() -> None:
        await until(lambda: len(tries) >= 3)
        World(segment_path).close()

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(come)
            async with open_clock(segment_path, fence=None, wait=True) as clock:
                assert clock.now().error_ns > 0


async def test_clock_that_is_there_is_opened_at_once(world: World, tries: list[str]) -> None:
    """By the first attempt."""
    async with open_clock(world.path, fence=None, wait=True) as clock:
        assert clock.now().error_ns > 0
    assert tries == [str(world.path)]


async def test_without_waiting_a_missing_segment_is_an_error(segment_path: Path, tries: list[str]) -> None:
    """As ever, after one attempt."""
    with pytest.raises(SegmentNotInitializedError):
        async with open_clock(segment_path):
            pass
    assert tries == [str(segment_path)]


async def test_default_path_is_decided_afresh(
    places: tuple[Path, Path], tries: list[str], only_woken: None
) -> None:
    """A user's place has a file without a commit; the machine's segment comes later, and goes before it."""
    system, users = places
    users.parent.mkdir()
    users.touch()
    tries.clear()
    paths = []

    async def read() -> None:
        async with open_clock(fence=None, wait=True) as clock:
            paths.append(clock.path)

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await until(lambda: tries.count(str(users)) >= 2)
            system.parent.mkdir()
            World(system).close()
    assert paths == [str(system)]


async def test_path_means_the_same_when_the_working_directory_changes(
    world: World, monkeypatch: pytest.MonkeyPatch, tries: list[str]
) -> None:
    """A relative path is taken when the wait begins."""
    monkeypatch.chdir(world.path.parent)
    paths = []

    async def read() -> None:
        async with open_clock("later", fence=None, wait=True) as clock:
            paths.append(clock.path)

    later = world.path.with_name("later")
    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await until(lambda: str(later) in tries)
            monkeypatch.chdir("/")
            later.hardlink_to(world.path)
    assert paths == [str(later)]


async def test_what_is_no_segment_is_not_waited_for(segment_path: Path) -> None:
    """Another file does not become a segment: the error comes at once."""
    segment_path.write_bytes(b"x" * 300)
    with anyio.fail_after(BOUND_S), pytest.raises(SegmentMalformedError):
        async with open_clock(segment_path, wait=True):
            pass


async def test_missing_fence_is_not_waited_for(world: World) -> None:
    """Nothing says that it will come, and its path may be wrong."""
    world.device.unlink()
    with anyio.fail_after(BOUND_S), pytest.raises(SegmentNotInitializedError, match="could be the fence"):
        async with open_clock(world.path, fence=world.device, wait=True):
            pass


async def cancel_while_it_waits(path: Path, tries: list[str]) -> None:
    """Nothing is there."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_open, path)
        before = len(tries)
        await until(lambda: len(tries) > before)
        tasks.cancel_scope.cancel()


async def cancel_while_it_opens(path: Path, tries: list[str]) -> None:
    """The segment is there by then, and opened in a thread while the cancellation comes."""
    World(path).close()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_open, path)
        await until(lambda: str(path) in tries)
        tasks.cancel_scope.cancel()
    path.unlink()


async def cancel_in_the_block(path: Path, tries: list[str]) -> None:
    """The wait is over, and the block waits for a commit."""
    World(path).close()
    async with anyio.create_task_group() as tasks:
        opened: list[Clock] = []
        tasks.start_soon(partial(_open, path, opened))
        await until(lambda: opened and opened[0].statistics().waits)
        tasks.cancel_scope.cancel()
    path.unlink()


async def _open(path: Path, opened: list[Clock] | None = None) -> None:
    async with open_clock(path, fence=None, wait=True) as clock:
        if opened is not None:
            opened.append(clock)
        await clock.wait_status("UNRELIABLE")


@pytest.mark.parametrize(
    "cancel",
    [cancel_while_it_waits, cancel_while_it_opens, cancel_in_the_block],
    ids=lambda cancel: cancel.__name__,
)
async def test_cancelled_wait_leaves_nothing(
    segment_path: Path, tries: list[str], cancel: Callable[[Path, list[str]], object]
) -> None:
    """No descriptor, no inotify instance, and no thread beside the loop's idle ones: nothing new after each time."""

    def threads() -> set[str]:
        # A loop begins another thread where the one before is not idle yet.
        names = {thread.name for thread in threading.enumerate()}
        return {name for name in names if not name.startswith(("AnyIO worker", "Trio thread"))}

    with anyio.fail_after(BOUND_S):
        before, threads_before = open_descriptors(), threads()
        for _ in range(3):
            tries.clear()
            await cancel(segment_path, tries)  # type: ignore[misc]
        assert not open_descriptors() - before
        assert threads() <= threads_before
