"""Who owns a file, and who else may write it.

The owner of a segment can change it and cut it while it is published, and so can everybody else with write permission:
a cut file kills the publisher with SIGBUS. A writer therefore takes only files of root and of its own user. POSIX
access lists need no extra check, because the group bits of the mode are their mask.

A user namespace (a rootless container) shows every owner from outside it as one number, the overflow uid 65534. That
owner may be the host's root or anybody else on the host, so such a file counts as a stranger's.
"""

import os
import pwd
import stat
from typing import NamedTuple, final

__all__ = ("Ownership",)

_OVERFLOW_UID = "/proc/sys/kernel/overflowuid"
_UID_MAP = "/proc/self/uid_map"
_WHOLE_MAP = [b"0", b"0", b"4294967295"]


@final
class Ownership(NamedTuple):
    """The owner and the mode of one file."""

    uid: int
    mode: int

    @classmethod
    def of(cls, status: os.stat_result) -> "Ownership":
        """The ownership that *status* describes."""
        return cls(status.st_uid, stat.S_IMODE(status.st_mode))

    @property
    def owner(self) -> str:
        """Name and number of the owner, for people."""
        return f"{_name_of(self.uid)} (uid {self.uid})"

    @property
    def others_may_write(self) -> bool:
        """Whether users other than the owner and root may write the file."""
        return bool(self.mode & (stat.S_IWGRP | stat.S_IWOTH))

    @property
    def is_strange(self) -> bool:
        """Whether the owner is neither root nor the user of this process."""
        return self.uid not in (0, os.geteuid())


def _name_of(uid: int) -> str:
    if _is_from_outside(uid):
        return "a user outside this user namespace"
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return "a user without a name"


def _is_from_outside(uid: int) -> bool:
    """Whether *uid* stands for an owner that this process's user namespace does not map."""
    try:
        with open(_UID_MAP, "rb") as uid_map, open(_OVERFLOW_UID, "rb") as overflow:
            return uid_map.read().split() != _WHOLE_MAP and uid == int(overflow.read())
    except (OSError, ValueError):
        return False
