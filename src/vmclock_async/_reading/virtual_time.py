"""Virtual time, for feeds that are played: it runs with the event loop, and ``advance`` makes it jump ahead."""

import math
from typing import Final, final

import anyio
import anyio.lowlevel

__all__ = ("VirtualTime",)


@final
class VirtualTime:
    """Nanoseconds since the play began, and the tasks that wait for them.

    Args:
        follow_loop: whether time runs with the event loop (``anyio.current_time()``), and so with the loop's test
            clock if it has one, such as trio's ``MockClock``. Outside a loop, time stands still.
    """

    def __init__(self, *, follow_loop: bool) -> None:
        self._follow_loop: Final = follow_loop
        self._advanced_ns = 0
        self._ran_ns = 0
        self._origin: Final[anyio.lowlevel.RunVar[int]] = anyio.lowlevel.RunVar("origin")
        """Value of `_ran_ns` at time 0 of the present loop."""
        self._waiters: Final[set[anyio.Event]] = set()
        self.waits = 0
        """Number of times that a task went to sleep here."""

    @property
    def elapsed_ns(self) -> int:
        """Nanoseconds since the play began."""
        if self._follow_loop:
            try:
                loop_ns = round(anyio.current_time() * 10**9)
            except RuntimeError:  # no loop runs
                return self._advanced_ns + self._ran_ns
            origin = self._origin.get(None)
            if origin is None:
                origin = self._ran_ns - loop_ns
                self._origin.set(origin)
            self._ran_ns = origin + loop_ns
        return self._advanced_ns + self._ran_ns

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass at once; tasks that wait for them go on.

        Raises:
            ValueError: *seconds* is negative or not a number.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"time goes on, and not by {seconds} s")
        self._advanced_ns += round(seconds * 10**9)
        self.wake()

    def wake(self) -> None:
        """Let every waiting task look again."""
        for changed in self._waiters:
            changed.set()

    async def sleep(self, ns: int) -> None:
        """Wait until ``wake()``, or for *ns* nanoseconds if time runs by itself."""
        changed = anyio.Event()
        self._waiters.add(changed)
        self.waits += 1
        try:
            with anyio.move_on_after(ns / 10**9 if self._follow_loop else None):
                await changed.wait()
        finally:
            self._waiters.discard(changed)
