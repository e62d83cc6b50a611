"""How people read and write a time, a length of time and an interval: ``1ms``, ``10s``, ``2.5us``."""

import datetime
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

__all__ = ("bounded_text", "duration_text", "parse_amount", "parse_duration", "utc_text")

_UNITS: Final = (("s", 10**9), ("ms", 10**6), ("us", 10**3), ("ns", 1))
_DIGITS: Final = 3
_UNIT_NS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
}
_FORM: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-zµ]+)")
_LONGEST_NS: Final = 2**32 * 10**9
"""136 years: more than any use needs, and within the range of ``Clock``."""


def utc_text(ns: int) -> str:
    """*ns* since 1970 as UTC to the nanosecond, by RFC 3339: ``2026-01-15T12:00:00.123456789Z``."""
    seconds, fraction = divmod(ns, 10**9)
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def duration_text(ns: int, *, to_nearest: bool = False) -> str:
    """*ns*, 0 or more, in the unit that reads best; three digits, and whole seconds from 1000 s on.

    It is rounded up, because most durations shown are bounds: 41,234 ns is ``41.3 us``. What is no bound is rounded
    *to_nearest*: ``41.2 us``.
    """
    step = min(10 ** max(len(str(ns)) - _DIGITS, 0), 10**9)
    rounded_ns = (ns + (step // 2 if to_nearest else step - 1)) // step * step
    for unit, size in _UNITS[:-1]:
        if rounded_ns >= size:
            whole = rounded_ns >= 1000 * size
            return f"{rounded_ns // size} {unit}" if whole else f"{rounded_ns / size:.{_DIGITS}g} {unit}"
    return f"{ns} ns"


def bounded_text(ns: int, error_ns: int) -> str:
    """The moment *ns* since 1970, give or take *error_ns*: ``2026-01-15T12:00:00.123456789Z +/- 41.2 us``."""
    return f"{utc_text(ns)} +/- {duration_text(error_ns)}"


def parse_amount(text: str, units: Mapping[str, int], *, noun: str, example: str) -> int:
    """*text*, a number and one of *units*, in the smallest of them; rounded down.

    Raises:
        ValueError: it is none; the message calls it a *noun* and gives the *example*.
    """
    found = _FORM.fullmatch(text.strip()[:64])
    unit = units.get(found[2]) if found else None
    if found is None or unit is None:
        raise ValueError(f"{text!r} is no {noun}: a number and a unit ({', '.join(units)}), as in {example}")
    return int(Fraction(found[1]) * unit)


def parse_duration(text: str) -> int:
    """*text*, a number and its unit, in nanoseconds; rounded down.

    Raises:
        ValueError: it is no duration, or not from 1 ns to 2**32 s.
    """
    ns = parse_amount(text, _UNIT_NS, noun="duration", example="1ms")
    if not 0 < ns <= _LONGEST_NS:
        raise ValueError(f"{text!r} is no duration from 1 ns to {_LONGEST_NS // 10**9} s")
    return ns
