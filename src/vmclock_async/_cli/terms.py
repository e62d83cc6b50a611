"""The error of one reading, term by term: what the page tells, and of what the publisher made the reference's error.

All terms are of one snapshot and one counter value, and ``reckoning`` makes them, as it makes the interval that ``now``
prints. So their sum is that interval's error, to the nanosecond. The publisher's account takes the place of one term,
and only if it is of that snapshot's reference and adds up to the same number.
"""

import time
from collections.abc import Callable
from fractions import Fraction
from typing import Final, NamedTuple, final

from vmclock_async._notation import duration_text
from vmclock_async._reading.readings import Readings, age_ns
from vmclock_async._segment.account import Account
from vmclock_async.abi import ClockStatus
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot, VMClockBody
from vmclock_async.reckoning import Budget, budget_at

__all__ = ("Explained", "Row")

_TRIES: Final = 5
_PAUSE_S: Final = 0.001
"""Longer than the publisher takes from a commit to its account."""


class Row(NamedTuple):
    """A term of the sum; the name of its field in JSON is ``ns``, because every term is in nanoseconds."""

    name: str
    ns: int
    words: str


@final
class Explained(NamedTuple):
    """An interval, and all that it was made from."""

    interval: TimeInterval
    budget: Budget
    snapshot: Snapshot
    counter: int
    account: Account | None = None
    """The publisher's account of the error of the snapshot's reference; None: the page alone tells about it."""
    is_of_another: bool = False
    """Whether the publisher keeps accounts, and the last one is of another reference."""

    @classmethod
    def now(cls, readings: Readings, account: Callable[[], Account | None] = lambda: None) -> "Explained":
        """The present interval of *readings*; *account* gives the publisher's last account.

        A commit may come between the two looks: then both are taken again. This may block for some milliseconds.

        Raises:
            ClockError, SegmentError: there is none; as ``Clock.now`` raises them.
        """
        for _ in range(_TRIES):
            explained, last = cls._of_page(readings), account()
            if last is None:
                return explained
            if last.belongs_to(explained.snapshot.body):
                return explained._replace(account=last)
            time.sleep(_PAUSE_S)
        return explained._replace(is_of_another=True)

    @classmethod
    def _of_page(cls, readings: Readings) -> "Explained":
        snapshot, counter = readings.sample()
        interval = readings.interval(snapshot, counter, None)
        budget = budget_at(snapshot, counter, counter_id=readings.feed.counter_id, max_age_s=readings.max_age)
        return cls(interval, budget, snapshot, counter)

    @property
    def age_ns(self) -> int:
        """The age of the reference, as ``Clock.age_ns`` has it."""
        return age_ns(self.snapshot, self.counter)

    @property
    def reference(self) -> tuple[Row, ...]:
        """The error of the reference; the page has it as one number."""
        if self.account is not None:
            return tuple(Row(*term) for term in self.account.terms)
        why = (
            "the publisher's account is of another measurement"
            if self.is_of_another
            else "the page has no more about it"
        )
        return (Row("reference", self.budget.reference_ns, f"as measured; {why}"),)

    @property
    def since(self) -> tuple[Row, ...]:
        """What came to the error of the reference until this reading."""
        rows = [
            Row("growth", self.budget.growth_ns, self._growth()),
            Row("rounding", self.budget.rounding_ns, "of this reading, outward to whole nanoseconds"),
        ]
        if self.budget.leap_ns:
            rows.append(Row("leap second", self.budget.leap_ns, "it may be over, or not"))
        return tuple(rows)

    def _growth(self) -> str:
        body, age = self.snapshot.body, self.age_ns
        when = f"in {duration_text(age)} since" if age >= 0 else f"in {duration_text(-age)} before it"
        runs_free = "; no measurement comes" if body.clock_status == ClockStatus.FREERUNNING else ""
        return f"{when}, at {_rate_text(body)}{runs_free}"


def _rate_text(body: VMClockBody) -> str:
    ppm = Fraction(body.counter_period_maxerror_rate_frac_sec * 10**6, body.counter_period_frac_sec)
    return f"{float(ppm):.3g} ppm"
