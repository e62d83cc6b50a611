"""The daemon's own value of the kernel's ``maxerror``, as far as it can be known.

The kernel adds 500 us to maxerror once a second (MAXFREQ, kernel/time/ntp.c), and never subtracts: whatever makes it
smaller was written by the daemon. The daemon's value itself is not visible, only what it has grown to. Three things
follow from the readings and the time between them:

* Whether it can be a **written zero**. systemd-timesyncd and phc2sys write 0, which means that there is no bound. Such
  a value shows as a multiple of 500 us. (So does one in 500 of what others write.) If the zero was written since the
  last reading, there is now no more than the kernel has added in that time. If it was written before, it was possible
  at the last reading, and there is now that value and what was added. Every other value is a bound that somebody
  meant. When in doubt it counts as zero: a daemon that happens to write a multiple of 500 us has no bound until it
  writes again.
* Whether it can have **grown from nonsense**: a negative value (from PTPd) is in range a second later. Once nonsense
  was seen, a value is believed if it is more than can have grown from zero since then, or if the last nonsense is a
  minute ago and it was written since.
* Whether it was **written again** since a disruption: it is less than an earlier reading plus the least that the
  kernel has added to it.
"""

from typing import Final, NamedTuple, final

__all__ = ("STEP_NS", "WrittenMaxError")

STEP_NS: Final = 500_000
"""Nanoseconds that the kernel adds to maxerror once a second."""
_NONSENSE_LASTS_NS: Final = 64 * 10**9
"""A daemon that writes nonsense writes again within this time, in nanoseconds: NTP's usual shortest interval."""


class _Reading(NamedTuple):
    maxerror_ns: int
    at_ns: int

    def most_ns(self, at_ns: int) -> int:
        """The most that this can have grown to. The seconds of a slewed clock are off by a tenth; twice is ample."""
        return self.maxerror_ns + STEP_NS * (2 * (at_ns - self.at_ns) // 10**9 + 2)

    def least_ns(self, at_ns: int) -> int:
        """The least that it must have grown to."""
        return self.maxerror_ns + STEP_NS * max(0, 3 * (at_ns - self.at_ns) // (4 * 10**9) - 1)


@final
class WrittenMaxError:
    """Conclusions from the readings of maxerror, one after the other.

    Args:
        stale: whether the present value was written before a disruption, and is unreliable.
    """

    def __init__(self, *, stale: bool) -> None:
        self.stale = stale
        """Whether it may have been written before the disruption."""
        self.may_be_zero = True
        """Whether the daemon may have written zero."""
        self.may_be_nonsense = False
        """Whether it is out of range, or may have grown from such a value."""
        self._nonsense_ns = 0
        """CLOCK_MONOTONIC when that was last seen."""
        self._first: _Reading | None = None
        self._last: _Reading | None = None

    def seen(self, maxerror_ns: int | None, at_ns: int) -> None:
        """Note a reading of maxerror, made when CLOCK_MONOTONIC was *at_ns*; None: out of range."""
        if maxerror_ns is None:
            self.may_be_nonsense, self._nonsense_ns = True, at_ns
            return
        first, last = self._first, self._last
        if self.may_be_nonsense:
            fell = last is not None and maxerror_ns < last.maxerror_ns
            settled = fell and at_ns - self._nonsense_ns >= _NONSENSE_LASTS_NS
            self.may_be_nonsense = not settled and maxerror_ns <= _Reading(0, self._nonsense_ns).most_ns(at_ns)
        if first is not None and last is not None:
            if maxerror_ns < max(first.least_ns(at_ns), last.least_ns(at_ns)):
                self.stale = False
            written_since = maxerror_ns <= last._replace(maxerror_ns=0).most_ns(at_ns)
            grown = last.maxerror_ns <= maxerror_ns <= last.most_ns(at_ns)
            self.may_be_zero = written_since or (self.may_be_zero and grown)
        self.may_be_zero &= maxerror_ns % STEP_NS == 0
        self._last = _Reading(maxerror_ns, at_ns)
        self._first = first or self._last
