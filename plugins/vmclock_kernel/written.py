"""What the daemon that steers the clock wrote into the kernel's ``maxerror``, as far as that can be known.

The kernel adds 500 us to maxerror once a second (MAXFREQ, kernel/time/ntp.c), and never takes any away: whatever
makes it smaller is the daemon's writing. What the daemon wrote is not told, only what has become of it. Three things
follow from the readings and the time between them:

* Whether it can be a **written zero**. systemd-timesyncd and phc2sys write 0: no bound, but the lack of one. It
  shows as a multiple of 500 us. (So does one in 500 of what others write.) A zero may have been written since the
  last reading; then there is no more now than the kernel has added in that time. Or it was written before; then it
  was possible at the last reading, and there is now that and what was added. Every other value is a
  bound that somebody meant. When in doubt it is a zero: a daemon that chances to write a multiple of 500 us has
  no bound until it writes again.
* Whether it can be **grown from nonsense**: a negative value (PTPd) is in range a second later. Once nonsense was
  seen, a value is believed if it is more than can have grown from zero since then, or if the last nonsense is a
  minute ago and it was written since.
* Whether it was **written anew** since a disruption: there is less than an earlier reading and the least that the
  kernel has added to it.
"""

from typing import Final, NamedTuple, final

__all__ = ("STEP_NS", "WrittenMaxError")

STEP_NS: Final = 500_000
"""What the kernel adds to maxerror, nanoseconds, once a second."""
_NONSENSE_LASTS_NS: Final = 64 * 10**9
"""A daemon that writes nonsense writes again in this time: NTP's usual shortest interval."""


class _Reading(NamedTuple):
    maxerror_ns: int
    at_ns: int

    def most_ns(self, at_ns: int) -> int:
        """The most this can have grown to. A slewed clock's seconds are off by a tenth; twice is ample."""
        return self.maxerror_ns + STEP_NS * (2 * (at_ns - self.at_ns) // 10**9 + 2)

    def least_ns(self, at_ns: int) -> int:
        """The least it must have grown to."""
        return self.maxerror_ns + STEP_NS * max(0, 3 * (at_ns - self.at_ns) // (4 * 10**9) - 1)


@final
class WrittenMaxError:
    """What follows from the readings of maxerror, one after the other.

    Args:
        stale: whether what is there now was written before a disruption, and is not to be relied on.
    """

    def __init__(self, *, stale: bool) -> None:
        self.stale = stale
        """Whether it is not known to have been written since then."""
        self.may_be_zero = True
        """Whether the daemon may have written zero."""
        self.may_be_nonsense = False
        """Whether it is out of range, or may have grown from what was."""
        self._nonsense_ns = 0
        """When that was seen last."""
        self._first: _Reading | None = None
        self._last: _Reading | None = None

    def seen(self, maxerror_ns: int | None, at_ns: int) -> None:
        """Take a reading of maxerror, made when CLOCK_MONOTONIC was *at_ns*; None: out of range."""
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
