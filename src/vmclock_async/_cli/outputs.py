"""Files that commands write: an error of the system names the file and a remedy, as a full disk by itself does not."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import ClassVar, Final, final

from vmclock_async.errors import VMClockError

__all__ = ("OutputError", "replace_file", "writing")

_REMEDIES: Final = {
    errno.ENOSPC: "make room, or choose another path",
    errno.EDQUOT: "make room, or choose another path",
    errno.EFBIG: "raise the limit of a file's size (ulimit -f), or choose another path",
    errno.EROFS: "its file system is read-only: choose another path",
    errno.EACCES: "see who may write its directory, or choose another path",
}


@final
class OutputError(VMClockError):
    """The file at `path`, which a command was to write, cannot be written, for `reason`."""

    _remedy: ClassVar[str] = "see that its directory is there, or choose another path"

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system refuses in the block, which writes *path*, into an error that names *path*.

    Raises:
        OutputError: the block raised an OSError.
    """
    try:
        yield
    except OSError as exc:
        remedy = _REMEDIES.get(exc.errno or 0)
        reason = f"cannot be written ({exc.strerror or exc})"
        raise OutputError(str(path), f"{reason}; {remedy}" if remedy else reason) from exc


def replace_file(path: Path, text: str, mode: int) -> None:
    """Put *text* at *path*, all of it or nothing, with the permissions *mode*.

    Raises:
        OSError: the directory is not there, or the file cannot be written.
    """
    descriptor, fresh = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(fresh, mode)
        os.replace(fresh, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(fresh)
        raise
