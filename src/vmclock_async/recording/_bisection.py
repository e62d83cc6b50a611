"""The search for a line of an uncompressed recording by halves, which reads some 64 KiB each, and no index.

It rests on the order of the records: what is reached by one is reached by all after it.
"""

import os
from collections.abc import Callable
from typing import Final

__all__ = ("near_offset",)

_PROBE: Final = 32768
"""Bytes; twice the longest line, so that a whole line begins in it wherever it begins."""
_NEAR: Final = 65536


def near_offset(fd: int, low: int, high: int, reached: Callable[[bytes], bool | None]) -> int:
    """Offset of a line at most some 64 KiB before the first line that is *reached*, or of the line at *low*.

    Lines without an answer (None) may lie between the two as well: however many there are.

    Args:
        fd: descriptor of the file.
        low: offset of the first line to look at.
        high: offset of the end.
        reached: whether the moment is reached by a line; None where that line alone does not say.
    """
    while high - low > _NEAR:
        middle = (low + high) // 2
        match _answer_after(fd, middle, high, reached):
            case at, False:
                low = at
            case _:
                high = middle
    return low


def _answer_after(
    fd: int, offset: int, end: int, reached: Callable[[bytes], bool | None]
) -> tuple[int, bool] | None:
    """Offset and answer of the first line from *offset* to *end* that has one."""
    before = offset - 1  # of the newline, if a line begins right at *offset*
    while before < end:
        data = os.pread(fd, _PROBE, before)
        start = data.find(b"\n") + 1
        if start == 0 or data.find(b"\n", start) < 0:
            return None  # no line is whole from here on, or one is too long
        while (stop := data.find(b"\n", start) + 1) > 0:
            if before + start >= end:
                return None
            answer = reached(data[start:stop])
            if answer is not None:
                return before + start, answer
            start = stop
        before += start - 1
    return None
