"""What ``publish auto`` picks: the device where there is one, and chronyd where it runs, else the kernel's clock.

The device, first in rank, tells of migrations and restores; on most machines another has to tell the time. Each
pick, and each that was passed over, is said with its reason.
"""

from collections.abc import Callable
from typing import Final

from vmclock_async._cli.output import complain
from vmclock_async.errors import SourceError, SourceSettingsError, VMClockError
from vmclock_async.sources import Probes, Source

__all__ = ("AUTO", "CHOICES", "pick")

AUTO: Final = "auto"
_CHOICES: Final = (("device",), ("chrony", "kernel"))
"""Of each, the first that is there."""
CHOICES: Final = {name for choice in _CHOICES for name in choice}
"""All that may be picked."""


def pick(build: Callable[[str], Source]) -> dict[str, Source]:
    """The sources that this machine has, made by *build* from their names, in order of rank.

    Raises:
        SourceError: there is none.
        SourceSettingsError: *build* refuses an option.
    """
    picked: dict[str, Source] = {}
    passed_over: list[str] = []
    for choice in _CHOICES:
        for name in choice:
            try:
                source = build(name)
                found = source.probe() if isinstance(source, Probes) else "installed"
            except SourceSettingsError:
                raise
            except Exception as exc:  # whatever a plugin's probe raises, there are others to pick from
                passed_over.append(name)
                complain(f"{AUTO}: not {name}: {_reason(exc)}")
                continue
            complain(f"{AUTO}: {name}: {found}")
            picked[name] = source
            break
    if not picked:
        raise SourceError(
            AUTO, f"no source to pick from: none of {', '.join(passed_over)} is usable here; name one"
        )
    return picked


def _reason(error: Exception) -> str:
    match error:
        case SourceError():
            return error.reason
        case VMClockError():
            return str(error)
        case _:
            return f"its probe failed with {type(error).__name__}: {error}"
