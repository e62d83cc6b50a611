"""Whether a server that smears leap seconds may be smearing now.

A smeared clock is neither UTC nor TAI: it runs slow or fast for up to a day around a leap second. The leap second
table of the time zone data says whether there is one, as long as the table has not expired. Without it, every end of
June and of December may have one (the IERS prefers these dates).
"""

import datetime
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ("LEAP_SECONDS", "is_near_leap")

LEAP_SECONDS: Final = Path("/usr/share/zoneinfo/leap-seconds.list")
_NTP_EPOCH_S: Final = 2_208_988_800
"""1900 to 1970, in seconds: the table counts from 1900 (RFC 5905)."""
_DAY_S: Final = 86_400


def is_near_leap(utc_s: int, *, table: Path = LEAP_SECONDS) -> bool:
    """Whether a leap second lies, or may lie, within a day of *utc_s*, seconds since 1970.

    A source whose servers smear leap seconds gives neither UTC nor TAI then. The first call reads the table, the leap
    second table of the time zone data; later ones do not wait.

    Args:
        utc_s: seconds of UTC since 1970.
        table: where the table is.
    """
    leaps, expires_s = _read(table)
    if utc_s + _DAY_S < expires_s:
        return any(abs(utc_s - leap_s) <= _DAY_S for leap_s in leaps)
    return any(abs(utc_s - end_s) <= _DAY_S for end_s in _ends_of_half_years(utc_s))


@cache
def _read(table: Path) -> tuple[tuple[int, ...], int]:
    """The leap seconds in *table*, and its expiry; nothing and 0 if it cannot be read."""
    leaps: list[int] = []
    expires_s = 0
    try:
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("#@"):
                expires_s = int(line[2:].split()[0]) - _NTP_EPOCH_S
            elif line[:1].isdigit():
                leaps.append(int(line.split()[0]) - _NTP_EPOCH_S)
    except (OSError, ValueError, IndexError):
        return (), 0
    return tuple(leaps[1:]), expires_s  # the first line is the table's beginning, in 1972


def _ends_of_half_years(utc_s: int) -> list[int]:
    year = datetime.datetime.fromtimestamp(utc_s, datetime.UTC).year
    days = [(year, 1), (year, 7), (year + 1, 1)]
    return [int(datetime.datetime(y, month, 1, tzinfo=datetime.UTC).timestamp()) for y, month in days]
