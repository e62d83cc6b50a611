"""Default paths: where publishers put the segment, and where readers look for it.

A publisher for the machine uses SYSTEM_PATH. A user's publisher uses the first runtime directory that the user has.
Readers look in all of these places, because their environment may differ from the publisher's: a cron job has no
XDG_RUNTIME_DIR. The places depend on nothing else, in particular on no version of a library.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from vmclock_async.errors import SegmentError, SegmentNotInitializedError

__all__ = ("SEGMENT_VARIABLE", "SYSTEM_PATH", "absolute", "default_path", "places", "user_path")

SEGMENT_VARIABLE: Final = "VMCLOCK_ASYNC_SEGMENT"
SYSTEM_PATH: Final = Path("/run/vmclock-async/shm0")


def absolute(path: str | os.PathLike[str]) -> str:
    """*path* made absolute now, so that a later change of the working directory does not change the segment.

    Raises:
        SegmentError: it cannot be a path.
    """
    text = os.fsdecode(path)
    try:
        os.fsencode(text)
        if "\0" in text:
            raise ValueError("a null character")
        return os.path.abspath(text)
    except (OSError, ValueError) as exc:
        raise SegmentError(text, f"can be no path ({exc})") from exc


def default_path() -> Path:
    """Path of the segment of this machine or user: the one that the variable names, or the first that exists.

    Raises:
        SegmentNotInitializedError: no place has one; the message names each.
        SegmentError: the user's place in shared memory belongs to another user.
    """
    if variable := os.environ.get(SEGMENT_VARIABLE):
        return Path(variable)
    looked_at: list[str] = []
    hidden: list[Path] = []
    for place in _places():
        looked_at.append(str(place))
        try:
            place.lstat()
        except PermissionError:
            hidden.append(place)
        except OSError:
            continue
        else:
            return place
    if hidden:
        return hidden[0]  # opening it gives the reason
    raise SegmentNotInitializedError(
        looked_at[0],
        f"nothing is there, nor at {', nor at '.join(looked_at[1:])}{_not_looked_at()}; start a publisher, or name "
        "the path",
    )


def places(path: str | os.PathLike[str] | None) -> list[Path]:
    """Where a segment may be: at *path*, or where ``default_path`` looks; empty if no place can be trusted."""
    if path is not None or (path := os.environ.get(SEGMENT_VARIABLE)):
        return [Path(absolute(path))]
    try:
        return list(_places())
    except SegmentError:  # opening it gives the reason
        return []


def user_path() -> Path:
    """Path at which a user's publisher puts its segment: in the runtime directory, else in shared memory.

    Raises:
        SegmentError: the user's place in shared memory belongs to another user.
    """
    return next(_user_places())


def _places() -> Iterator[Path]:
    yield SYSTEM_PATH
    yield from _user_places()


def _user_places() -> Iterator[Path]:
    for directory in _runtime_directories():
        if _is_private(directory):
            yield directory / "vmclock-async/shm0"
    yield _in_shared_memory()


def _runtime_directories() -> Iterable[Path]:
    """Candidates for this user's runtime directory. Without a session manager there is none, as in a container."""
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    return dict.fromkeys(Path(text) for text in (named, f"/run/user/{os.geteuid()}") if os.path.isabs(text))


def _is_private(directory: Path) -> bool:
    """Whether only this user may write to *directory*, as the XDG Base Directory Specification demands.

    ``su`` and ``sudo`` may leave the runtime directory of another user in the environment.
    """
    try:
        status = directory.stat()
    except OSError:
        return False
    mine = status.st_uid == os.geteuid() and not status.st_mode & stat.S_IWOTH
    return mine and stat.S_ISDIR(status.st_mode) and os.access(directory, os.W_OK | os.X_OK)


def _not_looked_at() -> str:
    named = os.environ.get("XDG_RUNTIME_DIR")
    if not named or (os.path.isabs(named) and _is_private(Path(named))):
        return ""
    return f" (XDG_RUNTIME_DIR is {named}, which is no directory that this user owns)"


def _in_shared_memory() -> Path:
    """Path for a user without a runtime directory: always in memory, and the same in every environment.

    Raises:
        SegmentError: it belongs to another user. Anybody can make a directory there first.
    """
    mine = os.geteuid()
    directory = Path(f"/dev/shm/vmclock-async-{mine}")
    try:
        owner = directory.lstat().st_uid  # of a symbolic link: its maker
    except OSError:
        owner = mine  # nothing is there yet
    if owner not in (mine, 0):
        raise SegmentError(
            directory,
            f"belongs to user {owner}, not to {mine}, and so may hold any time; have it removed, or name a path "
            f"(${SEGMENT_VARIABLE})",
        )
    return directory / "shm0"
