"""Waiting on a device's descriptor: it never spins, whatever the driver says; on every event loop. Closing, too.

That a change of the device wakes takes a real device: see tests/guest.
"""

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import FileIO
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from kit.told_world import open_descriptors
from vmclock_async import _core
from vmclock_async._segment.watch import DeviceWatch, InodeWatch, Watch

LONG_S = 30.0
"""A wait that lasts so long has not been woken."""


class Opened(FileIO):
    """An open file that counts how often its descriptor is asked for: once a wait."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.asked = 0

    def fileno(self) -> int:
        self.asked += 1
        return super().fileno()


@pytest.fixture
def opened() -> Iterator[Callable[[int], Opened]]:
    """Makes an ``Opened`` of a descriptor, which is closed when the test ends."""
    with ExitStack() as stack:
        yield lambda fd: stack.enter_context(Opened(fd))


async def wait_often(watch: DeviceWatch) -> None:
    """As a reader that looks again after each wait: more often than anything wakes it."""
    for _ in range(8):
        await watch.wait(0.05)


def always_ready() -> int:
    return os.eventfd(1)


def hung_up() -> int:
    mine, other = socket.socketpair()
    other.close()
    return mine.detach()


@pytest.mark.anyio
@pytest.mark.parametrize("make", [always_ready, hung_up])
async def test_ready_without_a_change_is_given_up(
    make: Callable[[], int], opened: Callable[[int], Opened]
) -> None:
    """POLLHUP at once and for ever, as the driver says without notifications: three wake-ups, and then by time."""
    device = opened(make())
    watch = DeviceWatch(device)
    await wait_often(watch)
    assert device.asked == 3
    assert watch.polling_because == "the device is ready without a change (POLLHUP)"


@pytest.mark.anyio
async def test_descriptor_that_cannot_be_polled_is_given_up(opened: Callable[[int], Opened]) -> None:
    """Before Linux 7.0 epoll refuses the device (EPERM), as it does /dev/zero: one try, and then by time."""
    device = opened(os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC))
    watch = DeviceWatch(device)
    await wait_often(watch)
    assert device.asked <= 3  # trio polls what epoll refuses by itself: ready at once, time and again
    assert watch.polling_because


@pytest.mark.anyio
async def test_page_without_notifications_is_polled_by_time() -> None:
    """Each wait lasts for its time where the page says that there is nothing to wait for."""
    watch = DeviceWatch(None)
    begun = time.monotonic()
    for _ in range(3):
        await watch.wait(0.02)
    assert time.monotonic() - begun >= 0.055  # uvloop counts in milliseconds
    assert watch.polling_because == "the device has no notifications (NOTIFICATION_PRESENT is clear)"


@pytest.mark.anyio
async def test_one_waiter_in_front_wakes_the_others(opened: Callable[[int], Opened]) -> None:
    """Any number of tasks wait on one descriptor; when it is ready, all return."""
    fd = os.eventfd(0)
    device = opened(fd)
    watch = DeviceWatch(device)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(watch.wait, LONG_S)
            await anyio.wait_all_tasks_blocked()
            assert device.asked == 1
            os.eventfd_write(fd, 1)


@pytest.mark.anyio
async def test_cancelled_waiter_in_front_is_replaced(opened: Callable[[int], Opened]) -> None:
    """The next of the others takes its place at once, and the descriptor wakes it."""
    fd = os.eventfd(0)
    device = opened(fd)
    watch = DeviceWatch(device)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            front = anyio.CancelScope()

            async def in_front() -> None:
                with front:
                    await watch.wait(LONG_S)

            tasks.start_soon(in_front)
            await anyio.wait_all_tasks_blocked()
            tasks.start_soon(watch.wait, LONG_S)
            await anyio.wait_all_tasks_blocked()
            front.cancel()
            await anyio.wait_all_tasks_blocked()
            os.eventfd_write(fd, 1)
    assert device.asked == 2


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["device", "file", "polled"])
async def test_closing_wakes_the_waiters(kind: str, opened: Callable[[int], Opened], tmp_path: Path) -> None:
    """A watch that is closed leaves nobody waiting, in front or not, nor any descriptor, and ends every later wait."""
    before = open_descriptors()
    with (tmp_path / "file").open("w") as file:
        watch: Watch = DeviceWatch(opened(os.eventfd(0)) if kind == "device" else None)
        if kind == "file":
            watch = InodeWatch(file.fileno())
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(watch.wait, LONG_S)
                await anyio.wait_all_tasks_blocked()
                watch.close()
            if kind != "polled":
                await watch.wait(LONG_S)
    assert not open_descriptors() - before


@pytest.mark.anyio
async def test_woken_from_another_thread_though_nothing_changed(tmp_path: Path) -> None:
    """As a reader does that goes over to another file: every waiter looks again, in the thread of its own loop."""
    with (tmp_path / "file").open("w") as file, anyio.fail_after(5):
        watch = InodeWatch(file.fileno())
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(watch.wait, LONG_S)
            await anyio.wait_all_tasks_blocked()
            await anyio.to_thread.run_sync(watch.wake_from_anywhere)
        watch.close()


@pytest.mark.parametrize("state", ["closed", "removed"])
def test_core_says_what_is_wrong_with_a_watch(state: str, tmp_path: Path) -> None:
    """Each error has its errno, and leaves no descriptor behind."""
    before = open_descriptors()
    with (tmp_path / "file").open("w") as file:
        with FileIO(_core.inotify_watch(file.fileno())[0]) as instance:
            if state == "removed":
                _core.inotify_unwatch(instance, 1)
                with pytest.raises(OSError, match="inotify_rm_watch") as caught:
                    _core.inotify_unwatch(instance, 1)
                assert caught.value.errno == errno.EINVAL
        if state == "closed":
            with pytest.raises(ValueError, match="closed"):
                _core.inotify_unwatch(instance, 1)
            with pytest.raises(OSError, match="inotify_add_watch") as caught:
                _core.inotify_watch(10_000)
            assert caught.value.errno == errno.ENOENT
    assert not open_descriptors() - before
