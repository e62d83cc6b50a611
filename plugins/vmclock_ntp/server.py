"""What is known of one server: its answers in this epoch, whether it may be asked, and when next.

The pauses between two requests:

    4 s          for the first four, so that the counter's rate is soon known
    16 s         from then on
    to 64 s      doubled each time while the drift of a longer pause is less than the error of the server's own answer

each with up to a tenth more at random, so that many machines do not ask in step. No request is sent sooner than 4 s
after the one before, whatever happens: not after a disruption, and not in another run of the source. RATE doubles the
pauses for good, up to an hour; DENY and RSTR end them (RFC 5905, section 7.4).

Of the last eight answers the one counts that leaves the least open now: the round trip of one answer may be worse by
more than what the counter has drifted since another. An answer that contradicts that one shows that the server's clock
was stepped: the older ones are forgotten. A server that has left eight requests in a row without a useful answer
counts no more, until it answers.
"""

import random
from collections import deque
from fractions import Fraction
from typing import Final, final

from vmclock_async.sources import Term
from vmclock_async.timebase import Rate
from vmclock_ntp.exchange import Address
from vmclock_ntp.measure import Moment, Sample

__all__ = ("LEAST_PAUSE_S", "Server")

LEAST_PAUSE_S: Final = 4.0
_AT_FIRST: Final = 4
"""Number of requests with the least pause."""
_PAUSE_S: Final = 16.0
_LONGEST_PAUSE_S: Final = 64.0
_LONGEST_SLOWED_S: Final = 3600.0
_JITTER: Final = 0.1
_REMEMBERED: Final = 8
_UNREACHABLE: Final = 8
"""Requests in a row without a useful answer, as in the reach register of RFC 5905, section 9.2."""
_SEVERAL: Final = 3
_FORBIDDEN: Final = ("DENY", "RSTR")
_SLOWER: Final = "RATE"


@final
class Server:
    """The server called *name*."""

    def __init__(self, name: str) -> None:
        self.name: Final = name
        self.forbidden: str | None = None
        """The kiss code with which it forbade to be asked again."""
        self.failure: str | None = None
        """Why the last request brought no useful answer; None if it brought one, or none was sent."""
        self.addresses: list[Address] = []
        """Addresses that its name had at the last look, without those that have failed since."""
        self.asks: Address | None = None
        """The address that was asked last."""
        self._least_s = LEAST_PAUSE_S
        self._asked_at_s: float | None = None
        self.begin()

    def begin(self) -> None:
        """Forget all answers: an epoch begins. What the server forbade stays forbidden."""
        self._samples: deque[Sample] = deque(maxlen=_REMEMBERED)
        self._best: Sample | None = None
        """The answer that leaves the least open."""
        self.heard_from: Address | None = None
        """The address that gave these answers."""
        self.leap = 0
        """Its last leap indicator."""
        self._is_erratic = False
        """Whether its last answer contradicted those before."""
        self._asked = 0
        self._missed = 0
        self._pause_s = _PAUSE_S
        self._at_once = True

    @property
    def is_reachable(self) -> bool:
        """Whether it has an answer that counts."""
        return self._best is not None and not self.forbidden and self._missed < _UNREACHABLE

    @property
    def is_failing(self) -> bool:
        """Whether it has no answer that counts, or has left several requests in a row without one; one gets lost."""
        return not self.is_reachable or self._missed >= _SEVERAL

    @property
    def is_waited_for(self) -> bool:
        """Whether it may yet give its first answer: it has not left the first requests without one."""
        return self._best is None and not self.forbidden and self._missed < _AT_FIRST

    def wait_s(self, now_s: float) -> float:
        """How long to wait, at *now_s* of the event loop's clock, until it may be asked next."""
        if self._asked_at_s is None:
            return 0.0
        pause_s = self._least_s if self._at_once else self._usual_s * (1 + _JITTER * random.random())
        since_s = now_s - self._asked_at_s
        return max(0.0, pause_s - (since_s if since_s >= 0 else 0.0))  # negative: that was another loop's clock

    @property
    def _usual_s(self) -> float:
        """The pause after the last request, without what is added at random."""
        return max(self._least_s, self._pause_s if self._asked >= _AT_FIRST else 0.0)

    def note_request(self, now_s: float) -> None:
        """A request is sent at *now_s*."""
        self._asked_at_s = now_s
        self._asked += 1
        self._at_once = False

    def take(self, sample: Sample, rate: Rate) -> str | None:
        """Take the answer to it; returns how it contradicts the earlier ones, in words.

        None if it does not, or if the answer before did too: a clock that jumps each time is one matter.
        """
        self._missed = 0
        self.failure = None
        self.leap = sample.leap
        if self.heard_from != self.asks:  # another machine answers to the same name
            self.heard_from = self.asks
            self._samples.clear()
            self._best = None
        stepped = None
        contradicts = False
        if self._best is not None:
            now, before = (taken.moment(sample.counter_ticks, rate) for taken in (sample, self._best))
            if contradicts := now.contradicts(before):
                self._samples.clear()
                if not self._is_erratic:
                    stepped = f"{before.text} by its earlier answer, now {now.text}"
        self._is_erratic = contradicts
        self._samples.append(sample)
        self._choose(sample.counter_ticks, rate)
        self._pause_s = self._next_pause_s(sample.moment(sample.counter_ticks, rate), rate)
        return stepped

    def miss(self, because: str) -> None:
        """The request brought nothing useful, *because* of that."""
        self.failure = because
        self._missed += 1
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)

    def kiss(self, code: str) -> None:
        """The server sent a kiss-o'-death packet with *code*."""
        self.miss(f"it sent the kiss code {code}" if code else "it gives no time (stratum 0)")
        if code in _FORBIDDEN:
            self.forbidden = code
            self.failure = f"it refuses to be asked (kiss code {code})"
        elif code == _SLOWER:
            self._least_s = min(2 * self._usual_s, _LONGEST_SLOWED_S)

    def moment(self, counter_ticks: int, rate: Rate) -> Moment:
        """True time at *counter_ticks*, by this server, which is reachable."""
        return self._counting.moment(counter_ticks, rate)

    def terms(self, counter_ticks: int, rate: Rate) -> tuple[Term, ...]:
        """The terms of that time's error."""
        return self._counting.terms(counter_ticks, rate)

    @property
    def _counting(self) -> Sample:
        assert self._best is not None, "it is not reachable"
        return self._best

    def _choose(self, counter_ticks: int, rate: Rate) -> None:
        """Choose among the answers. The order stays the same until the next: all drift alike."""
        self._best = min(self._samples, key=lambda sample: sample.moment(counter_ticks, rate).error_ns)

    def _next_pause_s(self, moment: Moment, rate: Rate) -> float:
        longer_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        drift_ns = Fraction(longer_s) * 10**9 * rate.error / rate.ns_per_tick
        return longer_s if drift_ns < moment.error_ns and self._asked >= _AT_FIRST else _PAUSE_S
