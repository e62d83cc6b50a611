"""Noticing that CLOCK_REALTIME was set, at once: a timer of that clock which setting it cancels (timerfd_create(2)).

It does not notice a slew. Where the kernel has no such timers (a sandbox), it notices nothing.
"""

import ctypes
import errno
import os
import time
from typing import Final, Self, final

import anyio

__all__ = ("Steps",)

_TFD_TIMER_ABSTIME: Final = 1
_TFD_TIMER_CANCEL_ON_SET: Final = 2
_NEVER_S: Final = 2**33
"""Seconds since 1970: in the year 2242."""


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _ITimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


_libc: Final = ctypes.CDLL(None, use_errno=True)


@final
class Steps:
    """Waits until CLOCK_REALTIME is set; a context manager. One task at a time may wait."""

    def __init__(self) -> None:
        self._fd: int = _libc.timerfd_create(time.CLOCK_REALTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd >= 0 and not self._arm():
            self.close()

    @property
    def are_noticed(self) -> bool:
        """Whether the kernel has such timers."""
        return self._fd >= 0

    def _arm(self) -> bool:
        at = _ITimerspec(_Timespec(0, 0), _Timespec(_NEVER_S, 0))
        flags = _TFD_TIMER_ABSTIME | _TFD_TIMER_CANCEL_ON_SET
        failed: int = _libc.timerfd_settime(self._fd, flags, ctypes.byref(at), None)
        # ECANCELED: the clock was set between two calls, and the timer is armed all the same.
        return failed == 0 or ctypes.get_errno() == errno.ECANCELED

    async def wait(self) -> None:
        """Return once the clock was set since this object was made or the last call has returned; else never.

        Cancelling loses no step: the next call returns at once.
        """
        if not self.are_noticed:
            await anyio.sleep_forever()
        await anyio.wait_readable(self._fd)
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        except OSError as exc:
            if exc.errno != errno.ECANCELED:
                raise
        self._arm()

    def close(self) -> None:
        """Close the timer; nobody may be waiting."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
