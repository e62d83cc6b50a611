"""What all servers together have said in one epoch, and the measurement that follows from it at a counter value.

Nothing here waits. The log has a line when other servers than before are found false, when too few begin to agree, and
when a server's clock was stepped.
"""

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from enum import Enum, auto
from fractions import Fraction
from typing import Final, NamedTuple, final

from vmclock_async import BodyUpdate, LeapIndicator, TimeInterval
from vmclock_async.sources import Explanation, Term
from vmclock_async.timebase import Calibration, Rate
from vmclock_ntp.address import ServerName
from vmclock_ntp.exchange import Exchange
from vmclock_ntp.leap import LeapSecond
from vmclock_ntp.lookup import Lookup
from vmclock_ntp.measure import Baseline, Moment, Sample, counter_rate, interval_text
from vmclock_ntp.selection import CALM_VOTES, Choice, Selection
from vmclock_ntp.server import Server

__all__ = ("Knowledge", "Lack", "Measured")

_log: Final = logging.getLogger("vmclock_async.ntp")


class Measured(NamedTuple):
    """A measurement, and of what it was made."""

    update: BodyUpdate
    explanation: Explanation
    utc_ns: int


class Lack(Enum):
    """Why there is no measurement."""

    NO_TIME = auto()
    """No server answers, or those that do contradict each other."""
    LEAP_NEAR = auto()
    """A leap second is about to be made, or was made a moment ago."""
    FORGOTTEN = auto()
    """What was known does not hold any more, and the servers have to be asked again."""


@final
class Knowledge:
    """What the servers called *names* have said.

    Args:
        names: the servers.
        are_set: whether a user has named them; else those that are not there have no vote.
        calibrate: begins to measure the counter's rate against CLOCK_MONOTONIC_RAW, and returns what gives it.
    """

    def __init__(
        self,
        names: Iterable[ServerName],
        *,
        are_set: bool = True,
        calibrate: Callable[[], Callable[[], Rate]] = lambda: Calibration().rate,
    ) -> None:
        self._are_set: Final = are_set
        self._calibrate: Final = calibrate
        self.servers: Final = {Server(str(name)): Lookup(name) for name in names}
        """Each server, and what looks up where it is."""
        self.epoch: int | None = None
        self.was_synchronized = False
        """Whether a measurement was made in this epoch."""
        self._selection = Selection()
        self._named: frozenset[str] = frozenset()
        """Names of the servers that the log calls false."""
        self._is_quarrel_named = False
        """Whether the log says that too few servers agree."""
        self._calm_votes = 0
        """Number of votes in a row without either."""

    def begin(self, epoch: int) -> None:
        """Begin *epoch*, if it is another: all that was known is void."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.was_synchronized = False
            self._forget()
            self._is_forgotten = False

    def _forget(self) -> None:
        """Forget all answers, and the counter's rate."""
        self._raw = self._calibrate()
        self._baseline = Baseline()
        self._leap = LeapSecond()
        self._has_news = False
        self._is_forgotten = True
        for server in self.servers:
            server.begin()

    @property
    def has_answers(self) -> bool:
        """Whether a server has given a time that can be used."""
        return any(server.is_reachable for server in self.servers)

    @property
    def all_forbid(self) -> bool:
        """Whether every server has forbidden to be asked."""
        return all(server.forbidden for server in self.servers)

    def _rate(self) -> Rate:
        """P, and R as its error.

        Raises:
            ValueError: the counter was set back.
        """
        return counter_rate(self._raw(), self._baseline.rate)

    def hear(self, server: Server, exchange: Exchange) -> None:
        """Take the answer of *server*."""
        answer = exchange.answer
        if answer.kiss_code is not None:
            server.kiss(answer.kiss_code)
            return
        if objection := answer.objection:
            server.miss(objection)
            return
        sample = Sample(exchange)
        try:
            rate = self._rate()
        except ValueError:
            return  # the next measurement finds that too
        if objection := sample.objection(rate):
            server.miss(objection)
            return
        interval = sample.moment(sample.counter_ticks, rate).interval
        if self._leap.is_over(interval):
            self._forget()
        elif self._leap.is_near(interval):
            return
        if stepped := server.take(sample, rate):
            _log.warning("the clock of %s was stepped: %s", server.name, stepped)
        self._has_news = True

    def measure(self, counter: int) -> Measured | Lack:
        """The measurement at *counter*, or why there is none."""
        if self._is_forgotten:
            self._is_forgotten = False
            return Lack.FORGOTTEN
        try:
            rate = self._rate()
        except ValueError:
            self._forget()
            return self.measure(counter)
        reachable = {server.name: server for server in self.servers if server.is_reachable}
        moments = {name: server.moment(counter, rate) for name, server in reachable.items()}
        choice = self._vote({name: moment.interval for name, moment in moments.items()})
        if choice.interval is None:
            return Lack.NO_TIME
        if self._leap.is_over(choice.interval):
            self._forget()
            return self.measure(counter)
        if self._leap.is_near(choice.interval):
            return Lack.LEAP_NEAR
        believed = [server for server in self.servers if server.name not in self._selection.false]
        self._leap.hear([server.leap for server in believed], choice.interval)
        best = min(choice.right, key=lambda name: moments[name].error_ns)
        terms = reachable[best].terms(counter, rate)
        measured = _measured(choice.interval, counter, rate, terms, len(choice.right), self._leap.indicator)
        if self._has_news:
            self._has_news = False
            self._baseline.add(Moment.of(choice.interval, counter), rate)
        self.was_synchronized = True
        return measured

    def _vote(self, intervals: Mapping[str, TimeInterval]) -> Choice:
        """The choice among *intervals*; the log says what is new about it."""
        silent = sum(server.is_waited_for for server in self.servers) if self._are_set else 0
        choice = self._selection.vote(intervals, silent)
        is_quarrel = choice.interval is None and len(intervals) > 1 and not silent
        if is_quarrel and not self._is_quarrel_named:
            self._is_quarrel_named = True
            said = ", ".join(
                f"{name} has {interval_text(interval)}" for name, interval in sorted(intervals.items())
            )
            _log.warning("no time: too few servers agree (%s); with three or more, a majority decides", said)
        if choice.false - self._named:
            said = ", ".join(f"{name} ({interval_text(intervals[name])})" for name in sorted(choice.false))
            assert choice.interval is not None, "without an interval none is false"
            _log.warning(
                "found false by the other servers, which have %s: %s", interval_text(choice.interval), said
            )
        self._named |= choice.false
        is_calm = choice.interval is not None and not self._selection.false
        self._calm_votes = self._calm_votes + 1 if is_calm else 0
        if self._calm_votes >= CALM_VOTES:
            if self._named:
                _log.info("no server is found false by the others any more")
            self._named, self._is_quarrel_named = frozenset(), False
        return choice


def _measured(
    interval: TimeInterval, counter: int, rate: Rate, terms: tuple[Term, ...], votes: int, leap: LeapIndicator
) -> Measured:
    """The measurement of *interval*; *terms* are those of the best of the servers, of which *votes* agree."""
    middle = Moment.of(interval, counter)
    rest_ns = middle.error_ns - sum(Fraction(term.ns) for term in terms)
    if votes == 1:
        rest = Term("rounding of time", rest_ns, "outward to whole nanoseconds")
    else:
        rest = Term(
            "agreement", rest_ns, f"what most of the {votes} servers that agree have in common differs from that"
        )
    update = BodyUpdate.measured(
        counter_ticks=counter,
        utc_ns=middle.true_ns,
        error_ns=middle.error_ns,
        rate=rate,
        drift=0,  # it is in the rate's error
        leap_indicator=leap,
    )
    return Measured(update, Explanation(counter, (*terms, rest)), math.floor(middle.true_ns))
