"""Sizes of files as people write them: ``10MB``, ``64KiB``."""

from typing import Final

from vmclock_async._notation import parse_amount

__all__ = ("parse_size", "size_text")

_UNITS: Final = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
}
_LARGEST: Final = 2**63 - 1
"""Of a file on Linux (off_t)."""


def parse_size(text: str) -> int:
    """*text*, a number and its unit, in bytes; rounded down.

    Raises:
        ValueError: it is no size, or not from 1 B to 2**63 - 1 B.
    """
    size = parse_amount(text, _UNITS, noun="size", example="10MB")
    if not 0 < size <= _LARGEST:
        raise ValueError(f"{text!r} is no size from 1 B to {_LARGEST} B")
    return size


def size_text(size: int) -> str:
    """*size* in the decimal unit that reads best, with three digits."""
    for unit in ("GB", "MB", "kB"):
        if size >= _UNITS[unit]:
            return f"{size / _UNITS[unit]:.3g} {unit}"
    return f"{size} B"
