"""Objects that belong to one process: they can be neither sent to another nor used in the child of a fork."""

import os
from typing import NoReturn

__all__ = ("OfThisProcess", "this_process")

_process = object()


def _note_fork() -> None:
    global _process
    _process = object()


os.register_at_fork(after_in_child=_note_fork)


def this_process() -> object:
    """A mark of this process; the child of a fork has another one. os.getpid() would be a system call."""
    return _process


class OfThisProcess:
    """Refuses to be pickled or copied, and says what to do instead."""

    __slots__ = ()

    _instead: str
    """What to do in another process, or for a second object."""

    def __reduce__(self) -> NoReturn:
        """Raise TypeError: a copy would share mappings, descriptors or a lock that belong to this process."""
        raise TypeError(
            f"cannot pickle or copy '{type(self).__name__}': it belongs to this process; {self._instead}"
        )
