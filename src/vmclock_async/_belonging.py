"""What belongs to one process, and is no value that could be sent to another."""

from typing import NoReturn

__all__ = ("OfThisProcess",)


class OfThisProcess:
    """Refuses to be pickled or copied, and says what to do instead."""

    __slots__ = ()

    _instead: str
    """What another process, or whoever wants a second one, is to do."""

    def __reduce__(self) -> NoReturn:
        """Raises TypeError: what a copy would share (mappings, descriptors, a lock) is this process's."""
        raise TypeError(
            f"cannot pickle or copy '{type(self).__name__}': it belongs to this process; {self._instead}"
        )
