"""The possible error of chronyd's own reference clock, as a file of the kernel states it.

The driver ``ena`` of EC2's network adapter has such a file in sysfs, ``phc_error_bound``: the error that its clock had
when chronyd read it last, in nanoseconds. While the device answers nobody, reading the file fails with EBUSY; where
there is no such clock, with EOPNOTSUPP (``ena_com_phc_get_error_bound`` of that driver).

    error = the largest value since the 65th last of chronyd's updates

chronyd's estimate rests on up to 64 earlier samples (``MAX_SAMPLES``, sourcestats.c), so the last value alone may be
less than the error of most of them. A refclock gives a sample every 16 s unless its ``poll`` says otherwise, and
chronyd updates its reference at most once for each. So updates are counted, by their ref_time, and not reads. A value
of 0 does not count: no clock is exact, and a driver may say 0 before anybody has read its clock. There is no bound
without a value, so nothing stands in for one that is missing.
"""

import errno
import os
import re
from collections import deque
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Final, final

from vmclock_async import SourceUnavailableError

__all__ = ("ReferenceFile",)

BUSY_IN_A_ROW: Final = 5
REMEMBERED: Final = 65
"""Updates for which values are kept: 64, and one more because samples are taken before the update that they lead to."""
_SAME_UPDATE_NS: Final = 10_000_000
"""chronyd's slews move its ref_time by less. Of two updates that are taken for one the values are kept for longer."""
_LONGEST: Final = 64
"""Bytes to read; a value has at most 15 digits: 10**6 s, as the setting ``reference_error``."""
_VALUE: Final = re.compile(rb"[1-9][0-9]{0,14}\n?")


def _read(path: Path) -> bytes:
    # Without O_NONBLOCK a FIFO would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _LONGEST)
    finally:
        os.close(descriptor)


@final
class ReferenceFile:
    """The file at *path*, and the values that *read* found there."""

    def __init__(self, path: Path, *, read: Callable[[Path], bytes] = _read) -> None:
        self._path: Final = path
        self._read: Final = read
        self._values_ns: Final = deque[int](maxlen=REMEMBERED)
        """For each update of chronyd, the largest value that was read between it and the next one."""
        self._update_ns = Fraction(0)
        self._busy = 0

    @property
    def is_busy(self) -> bool:
        """Whether the last read found no value, because the device was busy."""
        return self._busy > 0

    @property
    def error_ns(self) -> int:
        """The possible error of the reference clock, nanoseconds; there is one after a read that was not busy."""
        return max(self._values_ns)

    def read(self, update_ns: Fraction = Fraction(0)) -> None:
        """Read the file once more, with the ref_time of chronyd's last update; for a worker thread.

        Raises:
            SourceUnavailableError: it cannot be read, holds no number of nanoseconds, or has been busy five times in
                a row.
        """
        try:
            text = self._read(self._path)
        except (OSError, ValueError) as exc:  # ValueError: a path that no file can have
            if getattr(exc, "errno", None) == errno.EBUSY and self._busy + 1 < BUSY_IN_A_ROW:
                self._busy += 1
                return
            raise self._unavailable(f"cannot be read ({exc})") from exc
        if _VALUE.fullmatch(text) is None:
            raise self._unavailable(
                f"holds {text.decode(errors='replace')!r}, not a number of nanoseconds above 0"
            )
        value_ns = int(text)
        if abs(update_ns - self._update_ns) > _SAME_UPDATE_NS or not self._values_ns:
            self._values_ns.append(value_ns)
        else:
            self._values_ns[-1] = max(self._values_ns[-1], value_ns)
        self._update_ns = update_ns
        self._busy = 0

    def _unavailable(self, what: str) -> SourceUnavailableError:
        return SourceUnavailableError(
            "chrony",
            f"{self._path} (chrony.reference_error_path) {what}, so nothing bounds the error of chronyd's reference "
            "clock; name the file of the clock that chronyd follows (on EC2 phc_error_bound), or remove this setting "
            "and set chrony.reference_error",
        )
