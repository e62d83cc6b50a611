"""What ``publish`` tells the service manager that started it: sd_notify(3), datagrams to the socket NOTIFY_SOCKET.

The package sdnotify does as much, but blocks while the socket's queue is full, and knows nothing of the watchdog.

Invariants:
    * Nothing here blocks or fails the publisher. A message that the manager does not take is sent again later.
    * The watchdog's message follows the writer task: it is sent only if that has taken a turn since the last one.
    * No child gets the socket: the variables leave the environment before any source is built.
"""

import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final, Self, final

import anyio
import anyio.to_thread

from vmclock_async._notation import duration_text
from vmclock_async.abi import name_of
from vmclock_async.clock import Clock
from vmclock_async.errors import ClockError, VMClockError
from vmclock_async.publisher import Publisher

__all__ = ("Readiness", "ServiceManager", "notifying", "watched")

_LOOK_UNREADY_S: Final = 0.1
_LOOK_S: Final = 1.0
_LOOKS_A_WATCH: Final = 4
"""Looks in the time after which the manager takes the publisher for hung; sd_watchdog_enabled(3) advises two."""


class Readiness(StrEnum):
    """What has to be there before the publisher says that it is ready."""

    SEGMENT = "segment"
    BOUNDED = "bounded"


@final
class ServiceManager:
    """The manager that listens at *address*, a path or ``@`` and an abstract name.

    Args:
        address: the value of NOTIFY_SOCKET.
        watchdog_s: seconds without a message after which the manager takes this process for hung; None: it never does.
    """

    def __init__(self, address: str, watchdog_s: float | None = None) -> None:
        self._address: Final = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s: Final = watchdog_s

    @classmethod
    def take(cls) -> Self | None:
        """The manager that the environment names; None: there is none. The environment no longer names it then."""
        address = os.environ.pop("NOTIFY_SOCKET", "")
        interval, pid = os.environ.pop("WATCHDOG_USEC", ""), os.environ.pop("WATCHDOG_PID", "")
        is_watched = interval.isdecimal() and int(interval) > 0 and pid in ("", str(os.getpid()))
        return cls(address, int(interval) / 10**6 if is_watched else None) if address else None

    def notify(self, message: str) -> bool:
        """Send *message*; False: it was not taken, because the manager's queue is full or nobody listens."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sender:
                sender.sendto(message.encode(), self._address)
        except (OSError, ValueError):  # ValueError: an address with a null character
            return False
        return True


@asynccontextmanager
async def notifying(manager: ServiceManager, publisher: Publisher, ready: Readiness) -> AsyncIterator[None]:
    """Tell *manager* of *publisher*, which runs in the block: when it is ready, its time, its writer, and its end."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_tell_time, manager, publisher, ready)
        if manager.watchdog_s is not None:
            tasks.start_soon(watched, manager, manager.watchdog_s, lambda: publisher.statistics().turns)
        yield
        tasks.cancel_scope.cancel()


async def watched(manager: ServiceManager, watchdog_s: float, turns: Callable[[], int]) -> None:
    """Send the watchdog's message while *turns*, the number that the writer has taken, grows."""
    seen = 0
    while True:
        if (taken := turns()) != seen and manager.notify("WATCHDOG=1"):
            seen = taken
        await anyio.sleep(watchdog_s / _LOOKS_A_WATCH)


async def _tell_time(manager: ServiceManager, publisher: Publisher, ready: Readiness) -> None:
    is_ready, told = False, ""
    try:
        while True:
            reached, status = await anyio.to_thread.run_sync(_look, publisher)
            is_ready = is_ready or (ready in reached and manager.notify("READY=1"))
            if status != told and manager.notify(f"STATUS={status}"):
                told = status
            await anyio.sleep(_LOOK_S if is_ready else _LOOK_UNREADY_S)
    finally:
        manager.notify("STOPPING=1")


def _look(publisher: Publisher) -> tuple[frozenset[Readiness], str]:
    """What *publisher* has reached, as a reader of its segment sees it, and a line of text about that."""
    statistics = publisher.statistics()
    if not statistics.turns:  # what may be there already is left from another publisher
        return frozenset(), "no source has said anything yet"
    try:
        with Clock(publisher.path, fence=None) as clock:
            now = clock.now()
    except ClockError as exc:  # not its text, which may hold an age, and so change at each look
        return frozenset({Readiness.SEGMENT}), f"no bounded time ({type(exc).__name__}); see vmclock-async doctor"
    except VMClockError as exc:
        return frozenset(), f"no segment that can be read ({type(exc).__name__})"
    origin = statistics.groups["time"]
    source = "held from before" if origin is None else f"from {origin}"
    error = duration_text(_step_above(now.error_ns))
    return frozenset(Readiness), f"time {source}, off by at most {error}, {name_of(now.status)}"


def _step_above(ns: int) -> int:
    """*ns* rounded up to 1, 2 or 5 times a power of ten: a bound grows all the time, and seldom so far."""
    power: int = 10 ** (len(str(ns)) - 1)
    return next(step * power for step in (1, 2, 5, 10) if step * power >= ns)
