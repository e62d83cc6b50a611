"""The directory of a segment, held open while a writer opens or closes, and the files in it.

The path is walked one name at a time, each from the descriptor of the one before, and the checks look at what was
opened. So nobody can put something else there between the check and the use. A symbolic link on the way is followed
only if root or this user made it: a stranger's link may lead anywhere, and the writer would create files there.
"""

import errno
import os
import stat
from contextlib import suppress
from typing import Final, NoReturn, Self, final

from vmclock_async import _core
from vmclock_async._segment.ownership import Ownership
from vmclock_async._segment.page import kind_of
from vmclock_async._segment.remedies import os_error
from vmclock_async.errors import SegmentError

__all__ = ("Directory",)

_DIRECTORY: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK
_MOST_LINKS: Final = 40
"""Number of links in one path that the kernel follows."""


@final
class Directory:
    """The directory of the segment at *path*; a context manager. It creates missing directories, parents too.

    A block that ends with an exception removes the directories that were created.

    Args:
        path: path of the segment; absolute.
        create: whether a missing directory is created.

    Raises:
        SegmentError: a stranger's symbolic link is on the way, or the directory cannot be opened or created.
    """

    def __init__(self, path: str, *, create: bool = True) -> None:
        self._path: Final = path
        self._create: Final = create
        self._created: list[str] = []
        self._where = "/"
        self._fd = -1
        try:
            self._fd = os.open("/", _DIRECTORY)
            self._walk(os.path.dirname(path))
        except OSError as exc:
            self._undo()
            raise os_error(path, f"open or create its directory {self._where}", exc) from exc
        except BaseException:
            self._undo()
            raise

    def _walk(self, path: str) -> None:
        links = 0
        names = path.split("/")[::-1]
        while names:
            name = names.pop()
            if name in ("", "."):
                continue
            try:
                self._go_to(name, os.open(name, _DIRECTORY, dir_fd=self._fd))
            except NotADirectoryError:
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                target = self._target_of(name)
                if target.startswith("/"):
                    self._where = "/"
                    self._go_to("", os.open("/", _DIRECTORY))
                names += target.split("/")[::-1]
            except FileNotFoundError:
                if not self._create:
                    raise
                self._make(name)

    def _go_to(self, name: str, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd
        self._where = os.path.normpath(os.path.join(self._where, name))  # the path has no link: ".." is its parent

    def _target_of(self, name: str) -> str:
        """Where the symbolic link *name* leads, if it may be followed."""
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            status = os.fstat(fd)
            if not stat.S_ISLNK(status.st_mode):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
            ownership = Ownership.of(status)
            if ownership.is_strange:
                raise SegmentError(
                    self._path,
                    f"its directory {os.path.join(self._where, name)} is a symbolic link of {ownership.owner}, "
                    "which may lead anywhere; choose another path",
                )
            return os.readlink("", dir_fd=fd)
        finally:
            os.close(fd)

    def _make(self, name: str) -> None:
        made = False
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=self._fd)
            made = True
        if not made:
            self._go_to(name, os.open(name, _DIRECTORY, dir_fd=self._fd))
            return
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        self._go_to(name, fd)
        self._created.append(self._where)
        os.fchmod(fd, 0o755)  # umask 077 would hide the segment behind it

    def _undo(self) -> None:
        self.close()
        for made in reversed(self._created):
            with suppress(OSError):
                os.rmdir(made)

    def look(self, name: str, what: str, *, remedy: str) -> None:
        """Raise if a writer must not take what is at *name*; see ``open``.

        Args:
            name: file name in this directory.
            what: start of the message: empty for the segment, else with a space at its end.
            remedy: end of the message.

        Raises:
            SegmentError: it is no regular file, a stranger owns it, or others may write it.
        """
        try:
            status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise os_error(self._path, f"look at {self._joined(name)}", exc) from exc
        self._require_ours(status, what, remedy)

    def open(self, name: str, what: str, *, mode: int, remedy: str) -> tuple[int, bool]:
        """Open the file *name* for reading and writing, or create it empty; a fork's child does not keep it open.

        Args:
            name: file name in this directory.
            what: see ``look``.
            remedy: see ``look``.
            mode: mode of a created file, whatever the umask is.

        Returns:
            A descriptor for ``_core.close_private``, and whether the file was created.

        Raises:
            SegmentError: as for ``look``, or the file cannot be opened.
        """
        while True:
            self.look(
                name, what, remedy=remedy
            )  # gives the better reason for a file that may not be opened: its owner
            try:
                fd, created = self._open(name, mode)
            except FileExistsError:
                continue  # another process created or removed it at the same time: look at what is there now
            except OSError as exc:
                raise os_error(self._path, f"open {self._joined(name)}", exc) from exc
            try:
                self._require_ours(os.fstat(fd), what, remedy)
                if created:
                    os.fchmod(fd, mode)  # umask 077 would hide a segment from its readers
            except BaseException:
                _core.close_private(fd)
                raise
            return fd, created

    def _open(self, name: str, mode: int) -> tuple[int, bool]:
        try:
            return _core.open_private(self._fd, name, _FILE, 0), False
        except FileNotFoundError:
            return _core.open_private(self._fd, name, _FILE | os.O_CREAT | os.O_EXCL, mode), True

    def _require_ours(self, status: os.stat_result, what: str, remedy: str) -> None:
        if kind := kind_of(status.st_mode):
            self._refuse(f"{what}is {kind}, not a regular file; {remedy}")
        ownership = Ownership.of(status)
        if ownership.is_strange:
            self._refuse(f"{what}is owned by {ownership.owner}, who is neither root nor this user; {remedy}")
        if ownership.others_may_write:
            self._refuse(
                f"{what}is owned by {ownership.owner}, and others may write it too (mode {ownership.mode:04o}); "
                "forbid that (chmod go-w), or choose another path"
            )

    def _refuse(self, reason: str) -> NoReturn:
        raise SegmentError(self._path, reason)

    def _joined(self, name: str) -> str:
        return os.path.join(os.path.dirname(self._path), name)

    def leads_to(self, name: str, fd: int) -> bool:
        """Whether *name* is the file that is open at *fd*."""
        try:
            return os.path.samestat(os.stat(name, dir_fd=self._fd, follow_symlinks=False), os.fstat(fd))
        except FileNotFoundError:
            return False

    def rename(self, name: str, new: str) -> None:
        """Rename the file *name* to *new*, in place of what has that name.

        Raises:
            OSError: it cannot be renamed.
        """
        os.rename(name, new, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def remove(self, name: str, fd: int) -> None:
        """Remove the file *name*, if it is the one open at *fd* and the directory may be written."""
        with suppress(OSError):
            if self.leads_to(name, fd):
                os.unlink(name, dir_fd=self._fd)

    def close(self) -> None:
        """Close the directory."""
        if self._fd >= 0:
            os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        else:
            self._undo()
