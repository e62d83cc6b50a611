"""The account of a bound: of which terms the publisher made the error of a segment's reference, and of whose time.

The page has one number for that, so the publisher keeps the account with the file, as an extended attribute: who may
read the segment may read it too, it is replaced as a whole, and it goes with the file. An account names the reference
that it belongs to. A reader that finds another one in the page passes it over, because the publisher records it right
after the commit, and at most ten times a second; and because an account may be left from before a writer that keeps
none.

A change of the attribute wakes waiting readers once, in vain: another reason to record no more often.

There is none where the file system lacks such attributes (tmpfs before Linux 6.6), or has no room for it.
"""

import os
from contextlib import suppress
from typing import Final, Self, final

from pydantic import BaseModel, ConfigDict, ValidationError

from vmclock_async.models import VMClockBody

__all__ = ("Account", "record_account", "recorded_account", "reference_of")

_ATTRIBUTE: Final = "user.vmclock_async.account"


@final
class Account(BaseModel):
    """The terms of one reference's error, and the choice of its source."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    reference: tuple[int, int, int, int]
    """counter_value, time_sec, time_frac_sec and time_maxerror_nanosec of the body that it belongs to."""
    terms: tuple[tuple[str, int, str], ...]
    """Name, nanoseconds and words of each; together they are time_maxerror_nanosec. A term may be negative."""
    source: str
    sources: tuple[str, ...]
    """All sources, in order of rank."""
    passed_over: dict[str, str]
    """What each source before ``source`` lacks."""
    contradicted_by: dict[str, str] = {}
    """Where the interval of each source that contradicts ``source`` lies; nothing where they are not compared."""

    def belongs_to(self, body: VMClockBody) -> bool:
        """Whether it is the account of the reference of *body*, and adds up."""
        return self.reference == reference_of(body) and sum(ns for _, ns, _ in self.terms) == self.reference[-1]

    @classmethod
    def parse(cls, text: bytes) -> Self | None:
        """The account that *text* is; None if it is none, or one of another version."""
        try:
            return cls.model_validate_json(text)
        except ValidationError:
            return None


def reference_of(body: VMClockBody) -> tuple[int, int, int, int]:
    """What tells the reference of *body* from others: ``Account.reference``."""
    return body.counter_value, body.time_sec, body.time_frac_sec, body.time_maxerror_nanosec


def record_account(fd: int, account: Account | None) -> None:
    """Record *account* at the file of *fd*; None removes the record."""
    with suppress(OSError, ValueError):  # ValueError: a stranger's words are no Unicode
        if account is None:
            os.removexattr(fd, _ATTRIBUTE)
        else:
            os.setxattr(fd, _ATTRIBUTE, account.model_dump_json().encode(errors="replace"))


def recorded_account(fd: int) -> Account | None:
    """The account that is recorded at the file of *fd*; None if there is none."""
    try:
        return Account.parse(os.getxattr(fd, _ATTRIBUTE))
    except OSError:
        return None
