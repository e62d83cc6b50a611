"""Whether this machine's counter is reliable, and whether it went on undisturbed.

A counter is fit if it ticks at one rate, equally on every core and in every idle state, and if the kernel itself
trusts it: the kernel watches the TSC, and turns to another clocksource when the TSC proves unstable.

What cannot be read is unknown, and no sign of unfitness: a hardened unit, a chroot or a sandbox may hide
/proc/cpuinfo and /sys. Where the kernel does not list what the processor promises, the processor itself is asked
(CPUID).

Three things break the counter's continuity: a suspend, during which it may stop or start again, seen as a jump of
CLOCK_BOOTTIME minus CLOCK_MONOTONIC; a pause, a restore or a migration after which the counter and CLOCK_MONOTONIC_RAW
no longer go on together; and a change of the clocksource.

Not seen is a migration or a restore after which the clocks go on as if nothing had happened: the device shows it, the
kernel's vmgenid driver, or a program that knows of it. Nor is a suspend while no publisher runs, unless the counter
went back (see merger.py). A step of CLOCK_REALTIME is no break of the counter's continuity: daemons step it, and a time
that contradicts the one that was published begins a new disruption marker anyway (see nesting.py).
"""

import time
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple, final

from vmclock_async import _core
from vmclock_async.abi import CounterId
from vmclock_async.errors import CounterNotSupportedError

__all__ = (
    "Clocks",
    "Continuity",
    "RecentClocksource",
    "counter_distrusted_because",
    "counter_unfit_because",
    "tsc_unfit_because",
)

_core.set_counter_error(CounterNotSupportedError)

_CLOCKSOURCE: Final = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
_CPUINFO: Final = "/proc/cpuinfo"
_NEEDED_FLAGS: Final = ("constant_tsc", "nonstop_tsc")
_CLOCKSOURCE_HOLDS_NS: Final = 10**8
_OFF_NS: Final = 10**6
"""Nanoseconds by which the counter and CLOCK_MONOTONIC_RAW may part between two looks: below them lies what a host's
own corrections of a guest's clock amount to. Measured with both processors overloaded: 0.02 ms in 10 ms."""
_OFF_PPM: Final = 500
"""Parts per million of the time between two looks that are added to that."""
_TRIES: Final = 5
_RATE_AFTER_NS: Final = 10**8
"""Nanoseconds from the first pair to the first estimate of the counter's rate."""
_RATE_SETTLES_NS: Final = 10**10
"""Nanoseconds after which the rate is known to a ten-millionth, and is kept."""
_FIT_CLOCKSOURCES: Final = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page")
"""The clocksources that are the TSC or computed from it. Not hyperv_clocksource_msr, which asks the host."""


def counter_unfit_because() -> str | None:
    """Why no time may be given in terms of this machine's counter; None if nothing is known against it.

    x86: constant_tsc and nonstop_tsc, or the processor's own statement; and the clocksource tsc, kvm-clock or
    hyperv_clocksource_tsc_page. Arm: CNTVCT is fit by architecture. What cannot be read counts for nothing. A counter
    that this thread may not read at all (``prctl(PR_SET_TSC)``) is unfit on both.
    """
    try:
        _core.checked_counter()
    except CounterNotSupportedError as exc:
        return exc.reason
    if _core.COUNTER_ID != CounterId.X86_TSC:
        return None
    return tsc_unfit_because(_cpu_flags(), current_clocksource(), invariant=_core.tsc_is_invariant())


def counter_distrusted_because(clocksource: Callable[[], str] | None = None) -> str | None:
    """Why a reader must not rely on this machine's counter, whatever the segment says; None if there is no reason.

    A publisher that uses the counter has tested what the processor promises, or trusts a hypervisor, which knows more
    than it shows to the guest. But the kernel may have found out since then that the counter is unstable.

    Args:
        clocksource: gives the kernel's clocksource; by default it is read from sysfs.
    """
    if _core.COUNTER_ID != CounterId.X86_TSC:
        return None
    return _distrusted_because((clocksource or current_clocksource)())


def tsc_unfit_because(cpu_flags: frozenset[str], clocksource: str, *, invariant: bool | None = None) -> str | None:
    """Why a TSC with these properties is unfit; None if nothing is known against it.

    Args:
        cpu_flags: the processor's flags that the kernel lists; empty if they cannot be read.
        clocksource: the kernel's clocksource; empty if it cannot be read.
        invariant: the processor's own statement; None if it cannot be asked.
    """
    lacking = [flag for flag in _NEEDED_FLAGS if flag not in cpu_flags]
    if lacking and invariant is not True:
        seen = [f"{_CPUINFO} lacks {' and '.join(lacking)}"] if cpu_flags else []
        if invariant is False:
            seen.append("the processor says that its TSC is not invariant (CPUID 0x80000007, EDX bit 8)")
        if seen:
            return (
                f"the TSC does not keep its rate: {', and '.join(seen)}; "
                "a virtual machine needs a CPU model with an invariant TSC"
            )
    return _distrusted_because(clocksource)


def _distrusted_because(clocksource: str) -> str | None:
    if clocksource in ("", *_FIT_CLOCKSOURCES):
        return None
    return (
        f"the kernel does not trust the TSC: {_CLOCKSOURCE} is {clocksource}, not {', '.join(_FIT_CLOCKSOURCES)}; "
        "see the kernel's log for why"
    )


@cache
def _cpu_flags() -> frozenset[str]:
    """Flags of the first processor, the same on all that the kernel runs on; empty if they cannot be read."""
    try:
        with open(_CPUINFO, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name.strip() == "flags":
                    return frozenset(value.split())
    except OSError:
        pass
    return frozenset()


def current_clocksource() -> str:
    """The kernel's clocksource; empty if it cannot be read."""
    try:
        with open(_CLOCKSOURCE, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


@final
class RecentClocksource:
    """Gives the kernel's clocksource as it was at most ``_CLOCKSOURCE_HOLDS_NS`` ago.

    For the publisher, which asks before each commit: to open and read the file costs several times the rest of a
    commit. The kernel's own watchdog looks at the TSC each half second, so a tenth more is no other promise.

    Args:
        read: reads the clocksource.
        now_ns: CLOCK_MONOTONIC, nanoseconds.
    """

    def __init__(
        self, *, read: Callable[[], str] = current_clocksource, now_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._read: Final = read
        self._now_ns: Final = now_ns
        self._read_ns: int | None = None
        self._found = ""

    def __call__(self) -> str:
        now_ns = self._now_ns()
        if self._read_ns is None or now_ns - self._read_ns > _CLOCKSOURCE_HOLDS_NS:
            self._read_ns, self._found = now_ns, self._read()
        return self._found


class Clocks(NamedTuple):
    """Clocks of the kernel and the counter at one moment; ``_core.clocks()`` gives such a tuple, without the names."""

    asleep_least_ns: int
    """The least time for which the machine can have slept since it booted: CLOCK_BOOTTIME minus CLOCK_MONOTONIC."""
    asleep_most_ns: int
    """The most."""
    before_ticks: int
    """The counter right before ``raw_ns``."""
    raw_ns: int
    """CLOCK_MONOTONIC_RAW."""
    after_ticks: int
    """The counter right after it."""

    @property
    def window_ticks(self) -> int:
        """Ticks between the two readings of the counter."""
        return (self.after_ticks - self.before_ticks) % 2**64


def _tightest(read: Callable[[], tuple[int, int, int, int, int]]) -> Clocks:
    """The tightest of a few looks at the clocks, because the rate is measured from it."""
    return min((Clocks(*read()) for _ in range(_TRIES)), key=lambda clocks: clocks.window_ticks)


@final
class _Agreement:
    """Whether the counter and CLOCK_MONOTONIC_RAW go on together, whatever the counter's rate is.

    They part where a hypervisor or CRIU stops one of them and not the other, or sets one. Where the kernel computes the
    one from the other (clocksource tsc), they never do.
    """

    def __init__(self, first: Clocks) -> None:
        self.begin(first)

    def begin(self, first: Clocks) -> None:
        """Begin again with *first*, because the two were disturbed."""
        self._first = first
        self._last: tuple[int, int, int, int, int] = first
        self._ticks_per_ns: float | None = None
        self._measured_at_ns = first.raw_ns + _RATE_AFTER_NS
        """The value of the clock from which the rate is measured again."""

    def parted_ns(self, now: tuple[int, int, int, int, int]) -> int:
        """Nanoseconds by which the counter went farther than the clock since the last call; 0 if they agree.

        *now* has the numbers of ``Clocks``, without the names, because to give them takes longer than to compare them.
        """
        _, _, last_before, last_raw_ns, last_after = self._last
        _, _, before_ticks, raw_ns, after_ticks = self._last = now
        elapsed_ns = raw_ns - last_raw_ns
        ticks_per_ns = self._ticks_per_ns
        # This comes before each commit, so the usual case is decided first, whatever the windows were.
        if ticks_per_ns is not None and not (
            -_OFF_NS <= (before_ticks - last_before) / ticks_per_ns - elapsed_ns <= _OFF_NS
        ):
            least = _signed(before_ticks - last_after) / ticks_per_ns - elapsed_ns
            most = _signed(after_ticks - last_before) / ticks_per_ns - elapsed_ns
            off_ns = _OFF_NS + abs(elapsed_ns) * _OFF_PPM // 10**6
            if least > off_ns or most < -off_ns:
                self.begin(Clocks(*now))  # the rate may be another one as well
                return round((least + most) / 2)
        if raw_ns >= self._measured_at_ns:
            self._measure(Clocks(*now))
        return 0

    def _measure(self, now: Clocks) -> None:
        """Measure the rate, over a time that doubles each time until it is long enough."""
        since_ns = now.raw_ns - self._first.raw_ns
        if now.window_ticks > 2 * self._first.window_ticks + 1:
            return  # an interrupted look: the next one will do
        self._ticks_per_ns = _signed(now.before_ticks - self._first.before_ticks) / since_ns or None
        self._measured_at_ns += since_ns if since_ns < _RATE_SETTLES_NS else 2**63


def _signed(ticks: int) -> int:
    return (ticks + 2**63) % 2**64 - 2**63


@final
class Continuity:
    """Reports each break in the counter's continuity once.

    Args:
        clocks: reads the clocks, see ``Clocks``.
        clocksource: gives the kernel's clocksource.
    """

    def __init__(
        self,
        *,
        clocks: Callable[[], tuple[int, int, int, int, int]] = _core.clocks,
        clocksource: Callable[[], str] = current_clocksource,
    ) -> None:
        self._read_clocks: Final = clocks
        self._read_clocksource: Final = clocksource
        first = _tightest(clocks)
        self._agreement: Final = _Agreement(first)
        self._asleep_least_ns, self._asleep_most_ns, *_ = first
        self._clocksource = clocksource()

    def break_seen(self) -> str | None:
        """What broke the counter's continuity since the last call, for people; None if nothing did."""
        clocks = self._read_clocks()
        least_ns, most_ns, _, _, _ = clocks
        parted_ns = self._agreement.parted_ns(clocks)
        if least_ns > self._asleep_most_ns or most_ns < self._asleep_least_ns:
            # Backwards: the value of another boot, or a restore into another time namespace.
            is_forwards = least_ns > self._asleep_most_ns
            slept_ns = least_ns - self._asleep_most_ns if is_forwards else most_ns - self._asleep_least_ns
            self._asleep_least_ns, self._asleep_most_ns = least_ns, most_ns
            return f"the machine was suspended (CLOCK_BOOTTIME - CLOCK_MONOTONIC moved by {slept_ns / 1e9:.6f} s)"
        # It did not move, so all that was known of it holds: else one slow look would hide a short sleep.
        if least_ns > self._asleep_least_ns:
            self._asleep_least_ns = least_ns
        if most_ns < self._asleep_most_ns:
            self._asleep_most_ns = most_ns
        if parted_ns:
            return f"the counter and CLOCK_MONOTONIC_RAW moved apart by {parted_ns / 1e9:.6f} s"
        clocksource, found = self._clocksource, self._read_clocksource()
        if found in ("", clocksource):
            return None  # an unreadable clocksource is no news
        self._clocksource = found
        self._agreement.begin(_tightest(self._read_clocks))
        return f"the kernel's clocksource changed from {clocksource or 'one that could not be read'} to {found}"
