"""The error of one reading, term by term: what the page tells by itself.

All terms are of one snapshot and one counter value, and ``reckoning`` makes them, as it makes the interval that ``now``
prints. So their sum is that interval's error, to the nanosecond.
"""

from fractions import Fraction
from typing import NamedTuple, final

from vmclock_async._notation import duration_text
from vmclock_async._reading.readings import Readings, age_ns
from vmclock_async.abi import ClockStatus
from vmclock_async.intervals import TimeInterval
from vmclock_async.models import Snapshot, VMClockBody
from vmclock_async.reckoning import Budget, budget_at

__all__ = ("Explained", "Row")


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

    @classmethod
    def now(cls, readings: Readings) -> "Explained":
        """The present interval of *readings*.

        Raises:
            ClockError, SegmentError: there is none; as ``Clock.now`` raises them.
        """
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
        """The error of the reference. Of what it is made, the page does not tell."""
        return (Row("reference", self.budget.reference_ns, "as measured; the page has no more about it"),)

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
