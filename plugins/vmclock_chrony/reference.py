"""The possible error of chronyd's own reference clock, as a file of the kernel states it.

The driver ``ena`` of EC2's network adapter has such a file in sysfs, ``phc_error_bound``: the error that its clock had
when chronyd read it last, in nanoseconds. While the device answers nobody, reading the file fails with EBUSY; where
there is no such clock, with EOPNOTSUPP (``ena_com_phc_get_error_bound`` of that driver).

    error = the largest of the last 64 values

chronyd's estimate rests on up to 64 earlier samples (``MAX_SAMPLES``, sourcestats.c), so the last value alone may be
less than the error of most of them. A value of 0 does not count: no clock is exact, and a driver may say 0 before
anybody has read its clock. There is no bound without a value, so nothing stands in for one that is missing.
"""

import errno
import os
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final, final

from vmclock_async import SourceUnavailableError

__all__ = ("ReferenceFile",)

BUSY_IN_A_ROW: Final = 5
REMEMBERED: Final = 64
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
        self._busy = 0

    @property
    def is_busy(self) -> bool:
        """Whether the last read found no value, because the device was busy."""
        return self._busy > 0

    @property
    def error_ns(self) -> int:
        """The possible error of the reference clock, nanoseconds; there is one after a read that was not busy."""
        return max(self._values_ns)

    def read(self) -> None:
        """Read the file once more; for a worker thread.

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
        self._values_ns.append(int(text))
        self._busy = 0

    def _unavailable(self, what: str) -> SourceUnavailableError:
        return SourceUnavailableError(
            "chrony",
            f"{self._path} (chrony.reference_error_path) {what}, so nothing bounds the error of chronyd's reference "
            "clock; name the file of the clock that chronyd follows (on EC2 phc_error_bound), or remove this setting "
            "and set chrony.reference_error",
        )
