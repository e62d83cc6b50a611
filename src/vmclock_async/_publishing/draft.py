"""A draft of the next contents: one dict by field and one int of flags, frozen once.

The draft is tested through the merger, in ``tests/test_merger.py``.
"""

from collections.abc import Iterable
from typing import Final, final

from vmclock_async.abi import ClockStatus, Flags
from vmclock_async.models import Contents, VMClockBody

__all__ = ("BOUND_FLAGS", "TAI_OFFSET_VALID", "Draft", "as_freerunning", "voided")

BOUND_FLAGS: Final[int] = (
    Flags.TIME_MAXERROR_VALID
    | Flags.TIME_ESTERROR_VALID
    | Flags.PERIOD_MAXERROR_VALID
    | Flags.PERIOD_ESTERROR_VALID
).value
"""The flags that are all clear for a void time."""
TAI_OFFSET_VALID: Final = Flags.TAI_OFFSET_VALID.value
"""An int, as the flags of a draft are."""


@final
class Draft:
    """A draft of contents, which begins as *contents*."""

    __slots__ = ("counter_id", "flags", "time_type", "values")

    def __init__(self, contents: Contents) -> None:
        self.values: Final = contents.body.__dict__.copy()
        """Values by field of the body, each of its field's own type and in range; the flags are in ``flags``."""
        self.flags: int = int(contents.body.flags)
        self.counter_id: int = contents.counter_id
        self.time_type: int = contents.time_type

    def take(self, fields: Iterable[str], body: VMClockBody) -> None:
        """Take the *fields* as *body* has them."""
        values, taken = self.values, body.__dict__
        for name in fields:
            values[name] = taken[name]

    def take_time_and_calendar(self, body: VMClockBody) -> None:
        """Take all fields of *body* except the flags and those about disruptions."""
        values = self.values
        marker, generation = values["disruption_marker"], values["vm_generation_counter"]
        values.update(body.__dict__)
        values["disruption_marker"], values["vm_generation_counter"] = marker, generation

    def take_flags(self, mask: int, body: VMClockBody) -> None:
        """Take the flags in *mask* as *body* has them."""
        self.flags = self.flags & ~mask | int(body.flags) & mask

    def void(self) -> None:
        """Change the time to one that promises nothing."""
        self.flags &= ~BOUND_FLAGS
        self.values["clock_status"] = ClockStatus.UNKNOWN

    def run_free(self) -> None:
        """Let a synchronized time run free, because no source says any more that it is synchronized."""
        if self.values["clock_status"] == ClockStatus.SYNCHRONIZED:
            self.values["clock_status"] = ClockStatus.FREERUNNING

    def freeze(self) -> Contents:
        """The contents that this has become; the draft must not be used after that."""
        return Contents.made_of(self.values, self.flags, self.counter_id, self.time_type)


def voided(contents: Contents) -> Contents:
    """*contents* with a time that promises nothing."""
    draft = Draft(contents)
    draft.void()
    return draft.freeze()


def as_freerunning(contents: Contents) -> Contents:
    """*contents* with a time that runs free if it was synchronized."""
    draft = Draft(contents)
    draft.run_free()
    return draft.freeze()
