"""The lines of the kernel's log that report a restore, from ``/dev/kmsg``.

Each read of the device gives one record, ``priority,sequence,microseconds,flags;message``
(Documentation/ABI/testing/dev-kmsg). A reader that opens it begins with the oldest record that is still held.
"""

import logging
import os
from pathlib import Path
from typing import Final, NamedTuple, Self, final

import anyio
import anyio.lowlevel

__all__ = ("KernelLog", "ReseedLine")

_log: Final = logging.getLogger("vmclock_async.vmgenid")

_RESEEDED: Final = "random: crng reseeded due to virtual machine fork"
"""add_vmfork_randomness() in drivers/char/random.c, which the vmgenid driver calls (Linux 5.18)."""
_LONGEST_RECORD: Final = 8192
"""Bytes: CONSOLE_EXT_LOG_MAX, include/linux/printk.h."""
_RECORDS_BETWEEN_CHECKPOINTS: Final = 100


class ReseedLine(NamedTuple):
    """A line that reports a restore."""

    sequence: int
    """Number of the record since the machine booted."""
    stamp_us: int
    """Microseconds since the machine booted, by the kernel's log."""


@final
class KernelLog:
    """The kernel's log at *path*, from its oldest record on; a context manager.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    async def latest(self) -> ReseedLine | None:
        """The last of the lines that are there already and were not read yet; None if there is none.

        Raises:
            OSError: the log cannot be read.
        """
        latest = None
        number = 0
        while (record := self._record()) is not None:
            latest = _reseed_line(record) or latest
            number += 1
            if number % _RECORDS_BETWEEN_CHECKPOINTS == 0:
                await anyio.lowlevel.checkpoint()
        return latest

    async def receive(self) -> ReseedLine:
        """Wait for the next line that reports a restore.

        Raises:
            OSError: the log cannot be read.
        """
        while True:
            await anyio.wait_readable(self._fd)
            if (line := await self.latest()) is not None:
                return line

    def _record(self) -> bytes | None:
        """The next record; None while there is none."""
        while True:
            try:
                record = os.read(self._fd, _LONGEST_RECORD)
            except BlockingIOError:
                return None
            except BrokenPipeError:  # the oldest record that is still held comes next
                _log.warning(
                    "lines of the kernel's log were overwritten before they were read: a restore may be missed"
                )
                continue
            if not record:
                raise OSError("the kernel's log has ended")
            return record

    def close(self) -> None:
        """Close the log."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _reseed_line(record: bytes) -> ReseedLine | None:
    """The last line in *record* that reports a restore; further lines of one record begin with a space."""
    found = None
    for line in record.decode("utf-8", "replace").split("\n"):
        prefix, _, message = line.partition(";")
        if message == _RESEEDED and not line.startswith(" "):
            _, sequence, stamp_us, *_ = prefix.split(",")
            found = ReseedLine(int(sequence), int(stamp_us))
    return found
