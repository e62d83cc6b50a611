"""Setting CLOCK_REALTIME from a clock's interval: once, and only where nobody else keeps it."""

import math
import time
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, final

from vmclock_async._reading.segment_feed import SegmentFeed
from vmclock_async._restoring.daemons import disciplined_by
from vmclock_async._segment.time_source import TimeSource
from vmclock_async.clock import Clock
from vmclock_async.errors import SystemClockError
from vmclock_async.intervals import TimeInterval

__all__ = ("SystemClockStep", "step_system_clock")

_REALTIME: Final = time.CLOCK_REALTIME
_TRIES: Final = 10
_LONGEST_WINDOW_NS: Final = 10**6
"""Longest time between the readings of the two clocks that are compared, nanoseconds."""


@final
@dataclass(frozen=True, slots=True)
class SystemClockStep:
    """What ``step_system_clock`` found and did."""

    stepped: bool
    """Whether CLOCK_REALTIME was set."""
    step_ns: int
    """Nanoseconds by which it was set forward, or a dry run would set it; negative: back; 0: it was near enough."""
    before_ns: int
    """CLOCK_REALTIME when it was compared with `interval`, nanoseconds since 1970."""
    after_ns: int
    """CLOCK_REALTIME right after it was set; the same as `before_ns` if it was not."""
    interval: TimeInterval
    """True time at `before_ns`."""


def step_system_clock(
    clock: Clock,
    *,
    threshold_s: float = 0.5,
    beside_daemon: bool = False,
    independent: bool = False,
    dry_run: bool = False,
) -> SystemClockStep:
    """Set CLOCK_REALTIME to the middle of *clock*'s interval, if it lies outside by more than *threshold_s*.

    Never sets it from a time that was made from CLOCK_REALTIME itself (the sources kernel and chrony): then the clock
    would only follow its own error. The publisher records where the time comes from beside the segment; a page cannot
    say it. No record: the segment is on a tmpfs before Linux 6.6, or another program writes it.

    Synchronous: reads a file for each process of the machine, which takes milliseconds. In async code, where that is
    too long: ``await anyio.to_thread.run_sync(step_system_clock, clock)``.

    Args:
        clock: a clock of a segment or of the device; not a played one.
        threshold_s: seconds outside the interval that are left alone; 0 or more.
        beside_daemon: whether to set the clock although a daemon disciplines it.
        independent: the caller knows that the segment's time does not rest on CLOCK_REALTIME, though nothing says so.
        dry_run: whether to change nothing. It does not find out whether this process has the privilege.

    Raises:
        ClockError, SegmentError: there is no bounded time; see ``Clock.now``.
        SystemClockError: the time rests on CLOCK_REALTIME, or may; a daemon disciplines it; or this process may not
            set it, which needs CAP_SYS_TIME.
        ValueError: *threshold_s* is out of range.
    """
    if not 0 <= threshold_s < math.inf:
        raise ValueError(f"threshold_s must be 0 or more seconds, not {threshold_s}")
    if not beside_daemon and (daemon := disciplined_by()) is not None:
        raise SystemClockError(
            f"{daemon}, and a daemon keeps the clock from what it last set; let it step the clock (for chronyd: "
            "chronyc makestep), stop it, or ask for the step all the same (--beside-daemon, beside_daemon=True)"
        )
    source = _require_independent(clock, independent)
    for _ in range(_TRIES):
        first_ns, asleep_too_ns = time.clock_gettime_ns(_REALTIME), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        interval = clock.now()
        last_ns = time.clock_gettime_ns(_REALTIME)
        if last_ns - first_ns <= _LONGEST_WINDOW_NS:
            break
    else:
        raise SystemClockError(
            f"CLOCK_REALTIME and {clock.path} could not be read within {_LONGEST_WINDOW_NS / 1e6:g} ms of each other; "
            "try again when the machine is less busy"
        )
    if _require_independent(clock, independent) != source:
        raise SystemClockError(f"the source of the time of {clock.path} changed meanwhile; try again")
    outside_ns = max(interval.earliest_ns - last_ns, first_ns - interval.latest_ns)
    if outside_ns <= Fraction(threshold_s) * 10**9:
        return SystemClockStep(False, 0, first_ns, first_ns, interval)
    step_ns = interval.midpoint_ns - (first_ns + last_ns) // 2
    if dry_run:
        return SystemClockStep(False, step_ns, first_ns, first_ns, interval)
    _set(first_ns + step_ns, asleep_too_ns)
    return SystemClockStep(True, step_ns, first_ns, time.clock_gettime_ns(_REALTIME), interval)


def _require_independent(clock: Clock, is_independent: bool) -> TimeSource | None:
    """The recorded source of the time, which does not rest on CLOCK_REALTIME as far as anybody knows."""
    if not isinstance(clock._feed, SegmentFeed):
        raise SystemClockError(f"{clock.path} is played, and its time is not this machine's; take a real clock")
    source = clock._feed.time_source()
    if source is not None and source.rests_on_system_clock:
        raise SystemClockError(
            f"the time of {clock.path} comes from the source {source.name}, which makes it from CLOCK_REALTIME "
            "itself; set the clock from a source that does not"
        )
    if not is_independent and (source is None or source.rests_on_system_clock is None):
        seen = "has no record of its source" if source is None else f"comes from {source.name}, which does not say"
        raise SystemClockError(
            f"the time of {clock.path} {seen}, and it may rest on CLOCK_REALTIME itself; say that it is independent "
            "if you know that"
        )
    return source


def _set(ns: int, boottime_ns: int) -> None:
    """Set CLOCK_REALTIME to what is *ns* when CLOCK_BOOTTIME is *boottime_ns*."""
    try:
        time.clock_settime_ns(_REALTIME, ns + time.clock_gettime_ns(time.CLOCK_BOOTTIME) - boottime_ns)
    except PermissionError as exc:
        raise SystemClockError(
            f"this process may not set CLOCK_REALTIME ({exc.strerror}); run it with CAP_SYS_TIME"
        ) from exc
    except OSError as exc:
        raise SystemClockError(f"CLOCK_REALTIME cannot be set to {ns} ns ({exc.strerror})") from exc
