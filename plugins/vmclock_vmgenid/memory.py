"""The last restore that was published, beside the segment: so that the next publisher does not report it again."""

import os
import stat
from contextlib import suppress
from typing import Final, final

from vmclock_vmgenid.kernel_log import ReseedLine

__all__ = ("Memory",)

_LONGEST: Final = 200
_BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"


@final
class Memory:
    """The last published restore, kept in the file *path* until the machine boots again.

    The file lies on tmpfs like the segment, so a snapshot of the machine has them both as they were.
    """

    def __init__(self, path: str) -> None:
        self._path: Final = path

    def holds(self, line: ReseedLine) -> bool:
        """Whether *line* was published."""
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with os.fdopen(fd, encoding="ascii") as file:
                status = os.fstat(fd)
                is_ours = stat.S_ISREG(status.st_mode) and status.st_uid in (0, os.geteuid())
                return is_ours and file.read(_LONGEST) == _text(line)
        except (OSError, ValueError):
            return False

    def keep(self, line: ReseedLine) -> None:
        """Note that *line* is published.

        Raises:
            OSError: the file cannot be written.
        """
        fresh = f"{self._path}.new"
        with suppress(FileNotFoundError):
            os.unlink(fresh)
        fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(_text(line))
        os.replace(fresh, self._path)


def _text(line: ReseedLine) -> str:
    try:
        with open(_BOOT_ID, encoding="ascii") as file:
            boot_id = file.read().strip()
    except OSError:
        boot_id = ""
    return f"{boot_id} {line.sequence} {line.stamp_us}\n"
