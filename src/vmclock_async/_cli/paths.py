"""Default paths of a command's segment, and whether a path is in memory."""

import os
from pathlib import Path
from typing import Final

from vmclock_async._paths import SEGMENT_VARIABLE, SYSTEM_PATH, default_path, user_path

__all__ = ("SEGMENT_VARIABLE", "default_from", "on_tmpfs", "publisher_path", "reader_path")

_RUNTIME_VARIABLE: Final = "RUNTIME_DIRECTORY"


def reader_path(path: Path | None) -> Path:
    """*path*, or the place where a publisher of this machine or this user puts its segment."""
    return default_path() if path is None else path


def publisher_path(path: Path | None) -> Path:
    """*path*, or a place where readers look; under systemd the unit's RuntimeDirectory=."""
    if path is not None:
        return path
    if variable := os.environ.get(SEGMENT_VARIABLE):
        return Path(variable)
    if directories := os.environ.get(_RUNTIME_VARIABLE):
        return Path(directories.split(":")[0]) / "shm0"  # systemd.exec(5): a list, colon-separated
    return SYSTEM_PATH if os.geteuid() == 0 else user_path()


def default_from() -> str | None:
    """The variable that gives the publisher's default path; None: no variable does."""
    return next((name for name in (SEGMENT_VARIABLE, _RUNTIME_VARIABLE) if os.environ.get(name)), None)


def on_tmpfs(path: Path, proc: Path = Path("/proc")) -> bool | None:
    """Whether *path*, or its nearest existing parent, is on a file system in memory; None if that is unknown.

    Args:
        path: where a segment is, or shall be.
        proc: the directory where procfs is mounted.
    """
    try:
        existing = next(parent for parent in (path, *path.absolute().parents) if parent.exists())
        device = existing.stat().st_dev
        mounts = (proc / "self/mountinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # no /proc, or a directory that this user may not enter
        return None
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        # proc_pid_mountinfo(5): ID, parent, major:minor, ... - type source options
        fields, _, rest = line.partition(" - ")
        if number in fields.split()[2:3]:
            return rest.partition(" ")[0] in ("tmpfs", "ramfs")
    return False
