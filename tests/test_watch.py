"""Waiting on a device's descriptor: it never spins, whatever the driver says; on every event loop. Closing, too.

That a change of the device wakes takes a real device: see tests/guest.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import anyio
import inotify_simple
import pytest

from vmclock_async._watch import DeviceWatch, InodeWatch

LONG_S = 30.0
"""A wait that lasts so long has not been woken."""


class Opened:
    """A descriptor, counting how often it is asked for: once a wait."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.asked = 0

    def fileno(self) -> int:
        self.asked += 1
        return self._fd


@pytest.fixture
def opened() -> Iterator[Callable[[int], Opened]]:
    """Makes an ``Opened`` of a descriptor, which is closed when the test ends."""
    with ExitStack() as stack:

        def own(fd: int) -> Opened:
            stack.callback(os.close, fd)
            return Opened(fd)

        yield own


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
    watch = DeviceWatch(device, notifies=True)
    await wait_often(watch)
    assert device.asked == 3
    assert not watch.active
    assert watch.polling_because == "the device is ready without a change (POLLHUP)"


@pytest.mark.anyio
async def test_descriptor_that_cannot_be_polled_is_given_up(opened: Callable[[int], Opened]) -> None:
    """Before Linux 7.0 epoll refuses the device (EPERM), as it does /dev/zero: one try, and then by time."""
    device = opened(os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC))
    watch = DeviceWatch(device, notifies=True)
    await wait_often(watch)
    assert device.asked <= 3  # trio polls what epoll refuses by itself: ready at once, time and again
    assert not watch.active
    assert watch.polling_because


@pytest.mark.anyio
async def test_page_without_notifications_is_polled_by_time(opened: Callable[[int], Opened]) -> None:
    """The descriptor is left alone where the page says that there is nothing to wait for."""
    device = opened(always_ready())
    watch = DeviceWatch(device, notifies=False)
    await wait_often(watch)
    assert device.asked == 0
    assert watch.polling_because == "the device has no notifications (NOTIFICATION_PRESENT is clear)"


@pytest.mark.anyio
async def test_one_waiter_in_front_wakes_the_others(opened: Callable[[int], Opened]) -> None:
    """Any number of tasks wait on one descriptor; when it is ready, all return."""
    fd = os.eventfd(0)
    device = opened(fd)
    watch = DeviceWatch(device, notifies=True)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(watch.wait, LONG_S)
            await anyio.wait_all_tasks_blocked()
            assert device.asked == 1
            os.eventfd_write(fd, 1)


@pytest.mark.anyio
async def test_cancelled_waiter_in_front_is_replaced(opened: Callable[[int], Opened]) -> None:
    """The others are woken when it leaves, and the next wait is on the descriptor again."""
    fd = os.eventfd(0)
    device = opened(fd)
    watch = DeviceWatch(device, notifies=True)
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
        os.eventfd_write(fd, 1)
        await watch.wait(LONG_S)
    assert device.asked == 2


@pytest.mark.anyio
async def test_closing_wakes_the_waiters(opened: Callable[[int], Opened]) -> None:
    """A reader that is closed leaves nobody waiting."""
    watch = DeviceWatch(opened(os.eventfd(0)), notifies=True)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                with pytest.raises(anyio.ClosedResourceError):
                    await watch.wait(LONG_S)

            tasks.start_soon(wait)
            await anyio.wait_all_tasks_blocked()
            watch.close()


@pytest.mark.anyio
async def test_closing_wakes_while_the_next_file_is_being_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread is at work on the watch: the waiter does not wait for it, and it gives the descriptor back."""
    reached, go_on = threading.Event(), threading.Event()

    rm_watch = inotify_simple.INotify.rm_watch

    def slow_rm_watch(inotify: Any, descriptor: int) -> None:
        reached.set()
        go_on.wait(5)
        rm_watch(inotify, descriptor)

    monkeypatch.setattr(inotify_simple.INotify, "rm_watch", slow_rm_watch)
    watch = InodeWatch()
    outcomes: list[str] = []

    async def wait() -> None:
        try:
            await watch.wait(LONG_S)
        except anyio.ClosedResourceError:
            outcomes.append("closed")

    with (tmp_path / "first").open("w") as first, (tmp_path / "second").open("w") as second:
        before = len(os.listdir("/proc/self/fd"))
        await watch.follow(first.fileno(), 0)
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(watch.follow, second.fileno(), 1)
                while not reached.is_set():
                    await anyio.sleep(0.001)
                watch.close()
                while not outcomes:
                    await anyio.sleep(0.001)
                go_on.set()
        assert outcomes == ["closed"]
        assert len(os.listdir("/proc/self/fd")) == before
