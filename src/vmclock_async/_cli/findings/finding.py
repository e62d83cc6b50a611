"""A finding: what was seen of one thing on the machine, and how it is mended."""

from enum import StrEnum
from typing import NamedTuple, final

from vmclock_async.errors import VMClockError

__all__ = ("Finding", "Level", "missing", "ok", "refused", "unreadable", "warning")


class Level(StrEnum):
    """How good a thing is."""

    OK = "ok"
    WARNING = "warning"
    """It limits something, or it cannot be seen from here."""
    MISSING = "missing"
    """It is not there, or not usable."""


@final
class Finding(NamedTuple):
    """One finding."""

    level: Level
    found: str
    remedy: str = ""
    """The command or setting that mends it; empty if nothing has to be mended."""
    time_from: str = ""
    """Name of the source that can give a bounded time by this finding; empty if it gives none."""


def ok(found: str, *, time_from: str = "") -> Finding:
    """Nothing has to be mended."""
    return Finding(Level.OK, found, "", time_from)


def warning(found: str, remedy: str, *, time_from: str = "") -> Finding:
    """Something limits what is possible."""
    return Finding(Level.WARNING, found, remedy, time_from)


def missing(found: str, remedy: str) -> Finding:
    """Something is not there, or not usable."""
    return Finding(Level.MISSING, found, remedy)


def refused(error: VMClockError, level: Level = Level.MISSING) -> Finding:
    """What *error* says, with its own remedy."""
    return Finding(level, error.seen, error.remedy)


def unreadable(what: object, remedy: str, error: OSError | None = None) -> Finding:
    """*what* cannot be read here. That says nothing against the machine, so it is a warning at most."""
    because = f" ({error.strerror})" if error and error.strerror else ""
    return warning(f"{what} cannot be read here{because}; what is unknown is not unfit", remedy)
