"""Detects that this machine or this process stood still, by a thread whose ticks come late.

A host that pauses a virtual machine, and saves or moves it meanwhile, often lets each clock of the guest go on as if
nothing had happened. Then a late tick is all that the guest sees of it, and nobody knows what became of the counter.
So a standstill of seconds is a disruption. The clocks must not be asked alone: they may have been set since.

A busy machine is none: with twenty programs for two processors, ticks come up to a tenth of a second late. Neither is
a program that is busy itself, or holds the interpreter's lock: its processor time goes on. What looks the same is a
process that is stopped (SIGSTOP, the freezer of a cgroup); it costs a new measurement, which is the safe side.

Not seen is a pause of less than ``LONGEST_NS`` and the half second between two ticks, and a restore after which the
clocks go on from where the snapshot was taken: no tick is late then.
"""

import threading
import time
from collections.abc import Callable
from typing import Final, final

__all__ = ("LONGEST_NS", "Standstill")

LONGEST_NS: Final = 2 * 10**9
"""Longest time in nanoseconds by which a tick may be late."""


@final
class Standstill:
    """Watches ticks that one thread makes, due every *every_s* seconds; another thread asks.

    Args:
        now_ns: CLOCK_MONOTONIC, nanoseconds: it does not count a suspend, which is seen by other means.
        busy_ns: processor time of this process, nanoseconds.
    """

    def __init__(
        self,
        every_s: float,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
        busy_ns: Callable[[], int] = time.process_time_ns,
    ) -> None:
        self._latest_ns: Final = int(every_s * 10**9) + LONGEST_NS
        self._now_ns: Final = now_ns
        self._busy_ns: Final = busy_ns
        self._lock: Final = threading.Lock()
        self._ticked: tuple[int, int] | None = None
        """Time of the last tick, and the processor time until then; None: nobody ticks."""
        self._stood_ns = 0
        """Length of the standstills that are not reported yet."""

    def begin(self) -> None:
        """Expect ticks from now on."""
        with self._lock:
            self._ticked = self._now_ns(), self._busy_ns()

    def tick(self) -> None:
        """Note a tick."""
        with self._lock:
            self._look()

    def end(self) -> None:
        """Expect no more ticks."""
        with self._lock:
            self._ticked = None

    def seen(self) -> str | None:
        """The standstill since the last call, for people; None if there was none."""
        ticked = self._ticked
        if not self._stood_ns and (ticked is None or self._now_ns() - ticked[0] <= self._latest_ns):
            return None
        with self._lock:
            self._look()
            stood_ns, self._stood_ns = self._stood_ns, 0
        return f"this machine or this process stood still for {stood_ns / 1e9:.1f} s" if stood_ns else None

    def _look(self) -> None:
        """Note the standstill before this moment, if there was one, and expect the next tick."""
        if self._ticked is None:
            return
        before, self._ticked = self._ticked, (self._now_ns(), self._busy_ns())
        since_ns, busy_ns = self._ticked[0] - before[0], self._ticked[1] - before[1]
        if since_ns > self._latest_ns and busy_ns < since_ns // 2:
            self._stood_ns += since_ns
