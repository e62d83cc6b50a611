"""Manual of the compiled core: ordered access to one VMClock page, and the CPU counter.

No function here waits for another process. While a function touches the mapping, ``close()`` in another thread cannot
unmap the page: the function holds the GIL, or, in a free-threaded build, it is counted and ``close()`` waits for it. On
a closed page it raises ``ValueError``.
"""

import datetime
from collections.abc import Callable
from typing import Any, Final, final

from _typeshed import HasFileno, StrPath
from pydantic_core import CoreSchema

from vmclock_async.abi import ClockStatus
from vmclock_async.intervals import Order

COUNTER_ID: Final[int]
"""The ABI's number of this machine's counter: 1 X86_TSC, 0 ARM_VCNT."""

READ_LIMIT_NS: Final[int]
"""Longest time in nanoseconds that one read attempt may take (50,000)."""

def counter() -> int:
    """Raw counter ticks, 0 to 2**64 - 1, read after all earlier loads and before all later ones.

    x86: ``lfence; rdtsc; lfence``. Arm: ``isb; mrs cntvct_el0`` and a dependent load.

    Raises:
        CounterNotSupportedError: this thread may not read it (``prctl(PR_SET_TSC)``): a read would raise SIGSEGV.
            The thread's first call asks the kernel, and later calls do so only until it answers that the thread may
            read. ``checked_counter`` always asks.
    """

def checked_counter() -> int:
    """Ask the kernel whether this thread may read the counter (a system call), then return ``counter()``.

    Raises:
        CounterNotSupportedError: the thread may not read it.
    """

def clocks() -> tuple[int, int, int, int, int]:
    """Clocks of the kernel and the counter at one moment; ``_timebase.continuity.Clocks`` names the five numbers.

    CLOCK_BOOTTIME minus CLOCK_MONOTONIC at least, and at most, in nanoseconds; the counter; CLOCK_MONOTONIC_RAW in
    nanoseconds; the counter again.

    Raises:
        CounterNotSupportedError: as for ``counter``.
    """

def clockbound_commit(page: Page, contents: bytes, /) -> int:
    """Commit *contents*, a whole ClockBound segment of 16 to 104 bytes, to *page*; return its even generation.

    The generation is the page's own, not that of *contents*. It is odd meanwhile, and goes from 65535 on to 2. An odd
    generation that a dead writer left is kept, and so becomes even. The other stores are ordered after the odd
    generation by a release fence, and before the even one by a release store. If the page begins with another magic,
    size or version, its version is 0 meanwhile, so that clients keep their last copy.

    Raises:
        TypeError: an argument is of another type.
        ValueError: *contents* of another length; a page that is read-only or closed.
    """

def set_counter_error(error: type[Exception], /) -> None:
    """Set the error that ``counter()`` raises where the counter may not be read; until then it is RuntimeError."""

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
    """Complete ``TimeInterval`` with functions written in Python; without them its attributes raise RuntimeError."""

def tsc_is_invariant() -> bool | None:
    """Whether the processor says that its TSC keeps its rate in every idle state (CPUID 0x80000007, EDX bit 8).

    None if it cannot be asked: CPUID is forbidden (``arch_prctl(ARCH_SET_CPUID)``), or this is no x86.
    """

def processor_random() -> bytes | None:
    """Return 32 random bytes of the processor's own generator: RDRAND on x86, RNDR on Arm.

    No snapshot of a machine holds a part of that generator. The bytes are to be mixed with others: a hypervisor may
    emulate the instruction, and some processors return all ones after a suspend.

    None if the processor has none, does not say so (CPUID is forbidden, or HWCAP2_RNG is not set), or refuses ten
    times in a row.
    """

def open_private(dir_fd: int, path: str, flags: int, mode: int, /) -> int:
    """Call openat(2) with O_CLOEXEC. The child of a fork does not keep the descriptor, whichever thread forks.

    Close it with ``close_private()``, or give it to a writable ``Page``. A fork waits until the file is open.

    Raises:
        OSError: openat failed.
    """

def close_private(fd: int, /) -> None:
    """Close a descriptor of ``open_private()``; do nothing if it is closed already, as in the child of a fork."""

def inotify_open() -> int:
    """A new inotify instance without watches (non-blocking, close-on-exec; the caller closes it).

    Raises:
        OSError: this user has no instance left (EMFILE).
    """

def inotify_watch(fd: int, /) -> tuple[int, int]:
    """A new inotify instance (non-blocking, close-on-exec; the caller closes it), and its watch on the file at *fd*.

    The instance becomes readable when a system call changes the file's times, link count or content, and when the file
    is moved or deleted; a store through a mapping has no effect. Does not wait.

    Raises:
        OSError: this user has no instance or watch left (EMFILE, ENOSPC), or there is no /proc.
    """

def inotify_unwatch(instance: HasFileno, watch: int, /) -> None:
    """End *watch* of *instance*, which thereby becomes readable (IN_IGNORED). Any thread may call this.

    Raises:
        OSError: the watch no longer exists (EINVAL), because the file was deleted.
        ValueError: *instance* is closed.
    """

def inotify_watch_path(instance: int, path: StrPath, /) -> int:
    """Let *instance* become readable when the directory at *path* gets a new name, or the file at *path* changes.

    Returns the number of the watch, for ``inotify_unwatch``.

    A change of a file is that of ``inotify_watch``. Both also count as changed when they are moved or deleted.

    Raises:
        OSError: nothing is there (ENOENT), it may not be read (EACCES), or no watch is left (ENOSPC).
    """

@final
class Page:
    """One page (4096 bytes) of a file or device, mapped shared.

    Bytes past a file's end, within the page, read as zero. A file that is cut short while it is mapped raises
    SIGBUS, which cannot be caught: the opener of a page compares its size with fstat() first.
    """

    def __new__(cls, fd: int, *, writable: bool = False, lock_fd: int = -1) -> Page:
        """Map *fd* and own it: ``close()`` closes *fd* and *lock_fd*.

        A writable page is closed in the child of every fork, with its descriptors, because these share the parent's
        flock, which must end with the parent.

        Raises:
            OSError: mmap failed; the caller still owns *fd* and *lock_fd*.
        """

    @property
    def closed(self) -> bool:
        """Whether ``close()`` was called, or this is the child of a fork and the page was writable."""

    @property
    def control_word(self) -> int:
        """The eight bytes at 0x08 (version, counter_id, time_type, seq_count), one load with acquire."""

    @property
    def disruption_marker(self) -> int:
        """The eight bytes at 0x10, one load with acquire: during a commit they are old or new, not mixed."""

    def close(self) -> None:
        """Unmap and close, once the calls in flight have ended. May be called again."""

    def leave(self) -> None:
        """Stop every ``Clock`` from reading this page by itself, because its reader has moved to another file."""

    def retire(self) -> int | None:
        """End all calls as ``close()`` does, but keep the descriptors, and so the lock, until ``close()``.

        Returns *lock_fd* to the first call, None to every other, because only one may remove the lock's file.
        """

    def fileno(self) -> int:
        """The descriptor that is mapped; the page owns it."""

    def read(self) -> bytes | None:
        """One attempt at a whole copy: the page's first 112 bytes, or None.

        None: for ``READ_LIMIT_NS`` a commit was in progress or overtook each try. The copy's control word was equal
        before and after (acquire load, acquire fence).
        """

    def read_with_counter(self) -> tuple[bytes, int] | None:
        """``read()`` and the counter, read after the body and before the second load of the control word.

        Raises:
            CounterNotSupportedError: this thread may not read the counter; each call asks the kernel.
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

        A process that gave up its privileges after opening may not do that. Then it writes the first byte of the magic
        once more, which sets the times too and raises IN_MODIFY.

        The first call does so itself. Later calls leave it to a thread of the core, which is in no list of Python's
        threads, so they cost the caller the same with any number of readers. ``close()`` waits for a waking that is
        due, and ends the thread.

        Raises:
            OSError: both ways failed, in this call or since the last one.
            ValueError: a read-only page.
        """

    def reset(self, size: int, /) -> int:
        """Start cold in place: version 0, zero constants and body, *size* in the header; return seq_count.

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
    ``{"earliest_ns": .., "latest_ns": .., "status": ..}``, or what ``as_dict`` gives.

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
    """``now()``, ``at()`` and ``at_monotonic()`` for a derived class.

    The derived class has ``_now_slowly(max_error_ns)``, ``_at_slowly(counter_ticks, max_error_ns)`` and
    ``_at_monotonic_slowly(ns, max_error_ns)``, for the readings that the core leaves to Python.

    In the core a reading is one read of the page (at most ``READ_LIMIT_NS``), with the counter and then the
    fence's marker inside it; the interval is computed in exact integers, every rounding outward. The core leaves a
    reading to Python if nothing is attached, the page was left, the read fails, the page's magic, size or marker are
    not those of ``_attach``, the low halves of its marker and the fence's differ, a leap second is announced, in
    progress or over, a stamp is from an earlier month than the reference, or there is no bound for any reason.
    """

    def now(self, *, max_error_ns: int | None = None) -> TimeInterval:
        """The interval of UTC that contains true time, at this moment.

        Args:
            max_error_ns: largest half width that the caller can use, nanoseconds, 0 to 2**64 - 1.

        Raises:
            ClockError, SegmentError: ``vmclock_async.Clock`` lists them.
            TypeError: *max_error_ns* is no integer.
            ValueError: it is out of range.
        """

    def at(self, counter_ticks: int, /, *, max_error_ns: int | None = None) -> TimeInterval:
        """The interval of UTC that contains the true time at which the counter was *counter_ticks*.

        Convert stamps soon: the interval grows by the drift times the time from the stamp to the page's reference,
        at 50 ppm by 50 microseconds a second. It grows by a second if a month's end lies between them, because there
        may have been a leap second that the page no longer shows.

        A stamp is a bare number: if the counter was disrupted, went back, and has come as far again, an old stamp
        looks like a present one. So drop stamps on ``Disrupted``.

        Args:
            counter_ticks: a value of ``counter_ticks()`` (modulo 2**64), taken since this clock was opened and within
                the last ``max_age`` seconds.
            max_error_ns: as for ``now``.

        Raises:
            TypeError: an argument is no integer.
            ValueError: the stamp lies ahead, or *max_error_ns* is out of range.
            ClockStaleError: the stamp is older than ``max_age``.
            ClockDisruptedError: the counter was disrupted since, or may have been, because the stamp is from before
                this clock first saw the present disruption marker.
            ClockError, SegmentError: as for ``now``.
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
            ClockError, SegmentError, TypeError, ValueError: as for ``at``.
        """

    def _limit(self, counter_id: int, max_age_s: int, max_age_frac_sec: int, drift_ppb: int, /) -> None:
        """Set the limits of every reading.

        Args:
            counter_id: this machine's counter.
            max_age_s: longest time by which a reference is carried forward, in whole seconds; less than 2**34 s.
            max_age_frac_sec: the rest of that time, in units of 2**-64 s.
            drift_ppb: maximum period error if the page has none, parts in 10**9; 0: no substitute.

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
            page: the segment's page; kept, also when it is closed.
            fence: the device's page, or None; kept in the same way.
            identity: the page's first eight bytes, as a number: magic and size.
            marker: the page's disruption_marker.
            since_counter: the counter when that marker was first seen; older stamps are left to Python.
            since_monotonic_ns: CLOCK_MONOTONIC at that moment; older stamps are left to Python.
            until: counter value from which each reading is left to Python again.

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
    """The counter, if an earlier read of *page* and *fence* still holds; else None.

    It still holds if the control words are the given ones and even, before and after the counter is read; the fence
    has the given marker; the page was not left, and its file still has a name; and the counter is from *earliest* to
    just before *until*.

    Raises:
        TypeError, OverflowError: an argument is of another type or size.
    """

def bounds(
    values: tuple[int, ...],
    page_counter_id: int,
    time_type: int,
    counter: int,
    counter_id: int,
    before_s: int,
    after_s: int,
    /,
) -> tuple[int, int] | None:
    """Compute the same as ``reckon`` from a body's *values*: earliest_ns and latest_ns; None if Python has to.

    It is for the publisher, which asks for two intervals in each commit.

    Args:
        values: those of the body's fields in the order of the page, without the generation counter, each in range.
        page_counter_id: the page's counter_id.
        time_type: the page's time_type.
        counter: the counter value to compute the time of.
        counter_id: this machine's counter.
        before_s: how far the reference may be carried back, seconds.
        after_s: how far it may be carried forward, seconds.

    Raises:
        TypeError: an argument is of another type, or *values* has another length.
        ValueError: a limit of 2**34 s or more.
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
    """Compute ``now()`` from *page*, 112 bytes, at *counter*: earliest_ns, latest_ns, status; None if Python has to.

    Args:
        page: a whole copy of a page.
        counter: the counter value to compute the time of.
        counter_id: this machine's counter.
        before: how far the reference may be carried back, as seconds and units of 2**-64 s.
        after: how far it may be carried forward, in the same form.
        drift_ppb: see ``Clock._limit``.

    Raises:
        ValueError: another size, a limit of 2**34 s or more, a drift above 10**9 ppb.
    """
