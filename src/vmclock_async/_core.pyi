"""Manual of the compiled core: ordered access to one VMClock page, and the CPU counter.

No function here waits for another process. One that touches the mapping counts itself in first, so that
``close()`` in another thread cannot pull the page away under it; on a closed page each raises
``ValueError``. The GIL is held throughout.
"""

import datetime
from collections.abc import Callable
from typing import Any, Final, final

from _typeshed import HasFileno
from pydantic_core import CoreSchema

from vmclock_async.abi import ClockStatus
from vmclock_async.intervals import Order

COUNTER_ID: Final[int]
"""This machine's counter, as the ABI numbers it: 1 X86_TSC, 0 ARM_VCNT."""

READ_LIMIT_NS: Final[int]
"""Longest time in nanoseconds that one read attempt may take (50,000)."""

def counter() -> int:
    """Raw counter ticks, 0 to 2**64 - 1, read after all earlier loads and before all later ones.

    x86: ``lfence; rdtsc; lfence``. Arm: ``isb; mrs cntvct_el0`` and a dependent load.

    Raises:
        CounterNotSupportedError: this thread may not read it (``prctl(PR_SET_TSC)``); to read it would be a SIGSEGV.
            The kernel is asked by the thread's first call, and not again once it may: ``checked_counter`` asks always.
    """

def checked_counter() -> int:
    """``counter()``, and the kernel is asked before whether this thread may read it: a system call.

    Raises:
        CounterNotSupportedError: it may not.
    """

def set_counter_error(error: type[Exception], /) -> None:
    """Name the error that ``counter()`` raises where it may not be read; before that it is RuntimeError."""

def set_interval_functions(
    earliest: Callable[[TimeInterval], datetime.datetime],
    latest: Callable[[TimeInterval], datetime.datetime],
    midpoint: Callable[[TimeInterval], datetime.datetime],
    status: Callable[[TimeInterval], ClockStatus | int],
    repr_: Callable[[TimeInterval], str],
    text: Callable[[TimeInterval], str],
    order: Callable[[TimeInterval, TimeInterval | int | datetime.datetime], Order],
    moment_ns: Callable[[object], int],
    as_dict: Callable[[TimeInterval, object], dict[str, int | str]],
    schema: Callable[[type[TimeInterval]], CoreSchema],
    json_schema: Callable[[CoreSchema, Callable[[CoreSchema], dict[str, Any]]], dict[str, Any]],
    /,
) -> None:
    """Complete ``TimeInterval`` with what is written in Python; without them its attributes raise RuntimeError."""

def tsc_is_invariant() -> bool | None:
    """Whether the processor says that its TSC keeps its rate in every idle state (CPUID 0x80000007, EDX bit 8).

    None where it cannot be asked: CPUID is forbidden (``arch_prctl(ARCH_SET_CPUID)``), or this is no x86.
    """

def open_private(dir_fd: int, path: str, flags: int, mode: int, /) -> int:
    """openat(2) with O_CLOEXEC; the child of a fork does not keep the descriptor, in whichever thread it forks.

    Close it with ``close_private()``, or give it to a writable ``Page``. A fork waits until the file is open.

    Raises:
        OSError: openat failed.
    """

def close_private(fd: int, /) -> None:
    """Close a descriptor of ``open_private()``; does nothing where it is closed, as in the child of a fork."""

def inotify_watch(fd: int, /) -> tuple[int, int]:
    """A new inotify instance (non-blocking, close-on-exec; the caller's to close), and its watch on the file at *fd*.

    It becomes readable when the file's times, link count or content change by a system call, when it moves, and when it
    is deleted; a store through a mapping changes nothing of these. Does not wait.

    Raises:
        OSError: there is no instance or watch left for this user (EMFILE, ENOSPC), or there is no /proc.
    """

def inotify_unwatch(instance: HasFileno, watch: int, /) -> None:
    """End *watch* of *instance*, which becomes readable by that (IN_IGNORED). May be called from any thread.

    Raises:
        OSError: there is no such watch any more (EINVAL): the file was deleted.
        ValueError: *instance* is closed.
    """

@final
class Page:
    """One page (4096 bytes) of a file or device, mapped shared.

    Bytes past a file's end, within the page, read as zero. A file cut short under the mapping raises
    SIGBUS, which cannot be caught: whoever opens a page compares its size with fstat() first.
    """

    def __new__(cls, fd: int, *, writable: bool = False, lock_fd: int = -1) -> Page:
        """Map *fd* and own it: ``close()`` closes *fd* and *lock_fd*.

        A writable page is closed in the child of every fork, its descriptors too: they share the parent's
        flock, which must end with the parent.

        Raises:
            OSError: mmap failed; *fd* and *lock_fd* stay the caller's.
        """

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called, or this is the child of a fork and the page was writable."""

    @property
    def control_word(self) -> int:
        """The eight bytes at 0x08 (version, counter_id, time_type, seq_count), one load with acquire."""

    @property
    def disruption_marker(self) -> int:
        """The eight bytes at 0x10, one load with acquire: old or new while a commit is in progress, not mixed."""

    def close(self) -> None:
        """Unmap and close, once the calls in flight have ended. May be called again."""

    def leave(self) -> None:
        """Let no ``Clock`` read this page by itself any more: its reader has gone over to another file."""

    def retire(self) -> int | None:
        """End all calls as ``close()`` does, but keep the descriptors, and so the lock, until ``close()``.

        Returns *lock_fd* to the one call that did it, None to every other: one alone removes the lock's file.
        """

    def fileno(self) -> int:
        """The descriptor that is mapped; the page owns it."""

    def read(self) -> bytes | None:
        """One attempt at a whole copy: the page's first 112 bytes, or None.

        None: for ``READ_LIMIT_NS`` a commit was in progress or each try was overtaken by one. The copy's
        control word is the one that was equal before and after (acquire load, acquire fence).
        """

    def read_with_counter(self) -> tuple[bytes, int] | None:
        """``read()`` and the counter, read after the body and before the second load of the control word.

        Raises:
            CounterNotSupportedError: this thread may not read it; the kernel is asked each time.
        """

    def commit(self, body: bytes, counter_id: int | None, time_type: int | None, /) -> int:
        """Commit *body* (88 bytes, or 96 with the generation counter) and return the even seq_count.

        The body's stores are ordered after the odd seq_count by a release fence, and before the even one by
        a release store, which also carries version 1 and the constants; None keeps a constant. An odd
        seq_count that a dead writer left is kept, and so becomes even. seq_count wraps modulo 2**32.

        Raises:
            ValueError: a body of another length, a constant outside 0 to 255, a read-only page.
        """

    def wake(self) -> None:
        """Set the file's times to now (futimens), which raises IN_ATTRIB for readers that watch it.

        Where that is not permitted, to a process that gave up its privileges after opening, it writes the first byte of
        the magic once more: that sets the times, too, and raises IN_MODIFY.

        The first call does so itself. Later ones leave it to a thread of the core's, which is in no list of Python's:
        for the caller they cost the same however many readers there are. ``close()`` waits for what is due, and ends
        the thread.

        Raises:
            OSError: neither could be done, in this call or since the last.
            ValueError: a read-only page.
        """

    def reset(self, size: int, /) -> int:
        """Cold start in place: version 0, zero constants and body, *size* in the header; return seq_count.

        seq_count goes on upward to the next even number, odd while the header changes, so that no mapped
        reader takes a half-written header for a whole one or an old number for a new one.

        Raises:
            ValueError: a size outside 104 to 4096, a read-only page.
        """

@final
class TimeInterval:
    """An interval of UTC that contains true time, to the nanosecond; frozen and hashable.

    Intervals may overlap, and then have no order, so ``<`` and the like raise ``TypeError``: use ``before``, ``after``,
    ``compare``, and ``intervals.sorted_groups`` for a sort. Equal are those of equal times and status. ``str()`` is the
    middle and the error, as the command line prints them: ``2026-01-15T12:00:00.123456789Z +/- 41.2 us``, the error
    rounded up to three digits. Pickles, and is a field of pydantic models:
    ``{"earliest_ns": .., "latest_ns": .., "status": ..}``.

    What an interval is compared with is another interval, nanoseconds of UTC since 1970, or an aware datetime, which is
    that exact microsecond. A ``TypeError`` refuses all else: a bool, a float, a datetime without a time zone.

    Raises:
        TypeError: an argument is no integer.
        ValueError: *earliest_ns* is after *latest_ns*, or *status* is not from 0 to 255.
        OverflowError: a number is beyond 64 bits (for times: 1677 to 2262).
    """

    def __new__(cls, earliest_ns: int, latest_ns: int, status: int = 2) -> TimeInterval: ...
    @property
    def earliest_ns(self) -> int:
        """Not later than true time; nanoseconds of UTC since 1970."""

    @property
    def latest_ns(self) -> int:
        """Not earlier than true time; nanoseconds of UTC since 1970."""

    @property
    def midpoint_ns(self) -> int:
        """The middle, rounded down; nanoseconds of UTC since 1970."""

    @property
    def error_ns(self) -> int:
        """Half the width, rounded up; nanoseconds."""

    @property
    def earliest(self) -> datetime.datetime:
        """`earliest_ns` as an aware datetime in UTC, rounded down to microseconds."""

    @property
    def latest(self) -> datetime.datetime:
        """`latest_ns` as an aware datetime in UTC, rounded up to microseconds."""

    @property
    def midpoint(self) -> datetime.datetime:
        """`midpoint_ns` as an aware datetime in UTC, rounded down to microseconds."""

    @property
    def status(self) -> ClockStatus | int:
        """The segment's clock_status when it was read."""

    @property
    def _status(self) -> int: ...
    def before(self, other: TimeInterval | int | datetime.datetime, /) -> bool:
        """Whether it is certain to be earlier than all of *other*."""

    def after(self, other: TimeInterval | int | datetime.datetime, /) -> bool:
        """Whether it is certain to be later than all of *other*."""

    def compare(self, other: TimeInterval | int | datetime.datetime, /) -> Order:
        """BEFORE, AFTER, or UNORDERED where they overlap or touch."""

    def contains(self, other: TimeInterval | int | datetime.datetime, /) -> bool:
        """Whether all of *other* lies within it, its ends included: ``other in interval``."""

    def __contains__(self, other: TimeInterval | int | datetime.datetime, /) -> bool: ...
    def as_dict(self, *, strings: bool = False) -> dict[str, int | str]:
        """``earliest_ns``, ``latest_ns``, ``midpoint_ns``, ``error_ns`` and the name of the ``status``, for JSON.

        Args:
            strings: give the numbers as decimal strings. Nanoseconds since 1970 pass 2**53, so that JavaScript, which
                reads each number of JSON as a double, would be off by up to 128 ns: there ``BigInt(text)`` is exact.

        Raises:
            TypeError: *strings* is no bool.
        """

    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any, /) -> Any: ...
    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any, /) -> Any: ...

class Clock:
    """``now()``, ``at()`` and ``at_monotonic()`` for a derived class, which has ``_now_slowly(max_error_ns)``,
    ``_at_slowly(counter_ticks, max_error_ns)`` and ``_at_monotonic_slowly(ns, max_error_ns)`` for what the core leaves.

    In the core one reading is one read of the page (at most ``READ_LIMIT_NS``), with the counter and then the
    fence's marker inside it, and the interval by exact integers, every rounding outward. The core leaves a reading to
    Python where nothing is attached, the page was left, the read does not succeed, the page's magic, size or marker are
    not those of ``_attach``, the low halves of its marker and the fence's differ, a leap second is announced, in
    progress or over, a stamp is of an earlier month than the reference, or there is any reason for no bound.
    """

    def now(self, *, max_error_ns: int | None = None) -> TimeInterval:
        """The interval of UTC that contains true time, at this moment.

        Args:
            max_error_ns: largest half width that is of use to the caller, nanoseconds, 0 to 2**64 - 1.

        Raises:
            ClockError, SegmentError: as ``vmclock_async.Clock`` lists them.
            TypeError: *max_error_ns* is no integer.
            ValueError: it is out of range.
        """

    def at(self, counter_ticks: int, /, *, max_error_ns: int | None = None) -> TimeInterval:
        """The interval of UTC that contains the true time at which the counter was *counter_ticks*.

        Convert stamps soon: the interval grows by the drift times the time from the stamp to the page's reference,
        with 50 ppm by 50 microseconds a second; and by a second where a month's end lies between them, because there
        may have been a leap second that the page no longer shows.

        A stamp is a bare number: where the counter was disrupted, went back, and has come as far again, an old stamp
        looks like one of now. So drop stamps on ``Disrupted``.

        Args:
            counter_ticks: a value of ``counter_ticks()`` (modulo 2**64), taken since this clock was opened and within
                the last ``max_age`` seconds.
            max_error_ns: as for ``now``.

        Raises:
            TypeError: an argument is no integer.
            ValueError: the stamp lies ahead, or *max_error_ns* is out of range.
            ClockStaleError: the stamp is older than ``max_age``.
            ClockDisruptedError: the counter was disrupted since, or may have been: the stamp is from before this
                clock first saw the present disruption marker.
            ClockError, SegmentError: as ``now``.
        """

    def at_monotonic(self, ns: int, /, *, max_error_ns: int | None = None) -> TimeInterval:
        """The interval of UTC that contains the true time at which CLOCK_MONOTONIC was *ns*.

        The kernel may slew that clock by a tenth, so the interval is wider than that of ``now`` by a tenth of the
        stamp's age on either side, and by a second more while a leap second is announced or just over, and for a stamp
        from the month before the page's reference. Stamps of the counter (``at``) have no such error.

        Args:
            ns: a value of ``time.monotonic_ns()``, taken since this clock was opened and within the last
                ``max_age`` seconds.
            max_error_ns: as for ``now``.

        Raises:
            As ``at``.
        """

    def _limit(self, counter_id: int, max_age_s: int, max_age_frac_sec: int, drift_ppb: int, /) -> None:
        """Set what holds for every reading.

        Args:
            counter_id: of this machine.
            max_age_s, max_age_frac_sec: longest time for which a reference is carried forward, in seconds and units
                of 2**-64 s; less than 2**34 s.
            drift_ppb: maximum period error where the page has none, parts in 10**9; 0: no substitute.

        Raises:
            ValueError, OverflowError: out of range.
        """

    def _attach(
        self,
        page: Page,
        fence: Page | None,
        identity: int,
        marker: int,
        since_counter: int,
        since_monotonic_ns: int,
        until: int,
        /,
    ) -> None:
        """Read *page* from now on.

        Args:
            page, fence: kept, also when they are closed.
            identity: the page's first eight bytes, as a number: magic and size.
            marker: the page's disruption_marker.
            since_counter, since_monotonic_ns: the counter and CLOCK_MONOTONIC when that marker was first seen; older
                stamps are left to Python.
            until: counter value from which on each reading is left to Python again.

        Raises:
            TypeError, OverflowError: an argument is of another type or size.
        """

def unchanged(
    page: Page,
    control_word: int,
    fence: Page | None,
    fence_control_word: int,
    fence_marker: int,
    earliest: int,
    until: int,
    /,
) -> int | None:
    """The counter, if an earlier look at *page* and *fence* is as good as a new one; else None.

    The look is as good where the control words are the given ones and even, before and after the counter is read; the
    fence has the given marker; the page was not left, and its file still has a name; and the counter is from *earliest*
    to just before *until*.

    Raises:
        TypeError, OverflowError: an argument is of another type or size.
    """

def reckon(
    page: bytes,
    counter: int,
    counter_id: int,
    before: tuple[int, int],
    after: tuple[int, int],
    drift_ppb: int,
    /,
) -> tuple[int, int, int] | None:
    """What ``now()`` makes of *page*, 112 bytes, at *counter*: earliest_ns, latest_ns, status; None: not here.

    Args:
        before, after: how far the reference may be carried, seconds and units of 2**-64 s.

    Raises:
        ValueError: another size, a limit of 2**34 s or more, a drift above 10**9 ppb.
    """
