"""Manual of the compiled core: ordered access to one VMClock page, and the CPU counter.

No function here waits for another process. One that touches the mapping counts itself in first, so that
``close()`` in another thread cannot pull the page away under it; on a closed page each raises
``ValueError``. The GIL is held throughout.
"""

from typing import Final, final

COUNTER_ID: Final[int]
"""This machine's counter, as the ABI numbers it: 1 X86_TSC, 0 ARM_VCNT."""

READ_LIMIT_NS: Final[int]
"""Longest time in nanoseconds that one read attempt may take (50,000)."""

def counter() -> int:
    """Raw counter ticks, 0 to 2**64 - 1, read after all earlier loads and before all later ones.

    x86: ``lfence; rdtsc; lfence``. Arm: ``isb; mrs cntvct_el0`` and a dependent load.
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
        """``read()`` and the counter, read after the body and before the second load of the control word."""

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

        Raises:
            OSError: futimens failed.
        """

    def reset(self, size: int, /) -> int:
        """Cold start in place: version 0, zero constants and body, *size* in the header; return seq_count.

        seq_count goes on upward to the next even number, odd while the header changes, so that no mapped
        reader takes a half-written header for a whole one or an old number for a new one.

        Raises:
            ValueError: a size outside 104 to 4096, a read-only page.
        """
