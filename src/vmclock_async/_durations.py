"""Durations as people write them: ``1ms``, ``10s``, ``2.5us``."""

import re
from fractions import Fraction
from typing import Final

__all__ = ("parse_duration",)

_UNITS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
_FORM: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([a-zµ]+)")
_LONGEST_NS: Final = 2**32 * 10**9
"""136 years: more than any use needs, and within the range of ``Clock``."""


def parse_duration(text: str) -> int:
    """*text*, a number and its unit, in nanoseconds; rounded down.

    Raises:
        ValueError: it is no duration, or not from 1 ns to 2**32 s.
    """
    found = _FORM.fullmatch(text.strip()[:64])
    unit = _UNITS.get(found[2]) if found else None
    if found is None or unit is None:
        raise ValueError(f"{text!r} is no duration: a number and a unit ({', '.join(_UNITS)}), as in 1ms")
    ns = int(Fraction(found[1]) * unit)
    if not 0 < ns <= _LONGEST_NS:
        raise ValueError(f"{text!r} is no duration from 1 ns to {_LONGEST_NS // 10**9} s")
    return ns
