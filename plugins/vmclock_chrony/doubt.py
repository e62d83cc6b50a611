"""How much of the offset that chronyd last measured may be missing from its time.

A chronyd before 4.7 that cannot step its clock (started with -x, or without the capability), and that makestep orders
to step, forgets the offset: it reports a current correction of zero and a small dispersion, while its time is as
far off as before. Two things reveal this: ``last offset`` is what it measured, and the counter shows by how much
its time moved.

    T       = system clock + current correction
    moved   = T - (T of the report before + the ticks between * P_raw * (1 - frequency * 1e-6))
    missing = |moved + last offset|     after an update that came between two reports
              |last offset|             after an update that came before the first report, so that nobody saw it
              and |moved| on top        where T moved without an update (``chronyc makestep``, somebody else's step)

Chronyd says that true time is T, and the bound holds for T with what is missing. If T stood still while chronyd
measured an offset, or moved while it measured nothing, chronyd was seen to forget that much: true time is rather
T less ``forgotten``. If more than one update came between two reports, nobody knows.

A positive last offset means that the clock is ahead: true time moves back by that much when chronyd takes it into
account. Whether chronyd slews, corrects only its own time (-x) or steps CLOCK_REALTIME, T moves alike; so a step counts
if the clock was seen to make it. The next update measures again whatever is missing, so no doubt outlasts it.

A report without a source counts as well: a source that existed before chronyd's first update sees what became of
it. Nothing here waits or looks at a clock.
"""

from fractions import Fraction
from typing import Final, NamedTuple, final

from vmclock_async import LeapIndicator
from vmclock_async.timebase import Rate
from vmclock_chrony.measure import MAX_KERNEL_PPM, PPM, WIRE, Exchange, leap_of

__all__ = ("Doubt",)

_LEAP_NS: Final = {LeapIndicator.PRE_POS: -(10**9), LeapIndicator.PRE_NEG: 10**9}
"""Movement of UTC by an announced leap second, in nanoseconds."""
_ABOUT_A_LEAP_NS: Final = 50_000_000
"""The most by which a clock may be slewed meanwhile. A movement farther from the leap's is not the leap's."""


class _Report(NamedTuple):
    exchange: Exchange
    raw: Rate

    @property
    def ns_per_tick(self) -> Fraction:
        """Rate of chronyd's time against the counter."""
        return self.raw.ns_per_tick * (1 - self.exchange.tracking.frequency_ppm * PPM)

    def noise_ns(self) -> Fraction:
        """The most by which T may be off for reasons other than a step."""
        exchange = self.exchange
        windows_ns = max(exchange.before.window_ticks, exchange.after.window_ticks) * self.raw.ns_per_tick
        return exchange.disagreement_ns(self.raw) + windows_ns + WIRE * abs(exchange.tracking.offset_ns) + 2


@final
class Doubt:
    """Conclusions from chronyd's reports, one after the other, while the counter goes on undisturbed."""

    def __init__(self) -> None:
        self._last: _Report | None = None
        self._missing_ns = Fraction(0)
        self._forgotten_ns = Fraction(0)

    @property
    def missing_ns(self) -> Fraction:
        """The most that may be missing from chronyd's time, 0 or more."""
        return self._missing_ns

    @property
    def forgotten_ns(self) -> Fraction:
        """By how much its time was seen to stay or go ahead of what chronyd measured; 0 while nothing was seen."""
        return self._forgotten_ns

    def hear(self, exchange: Exchange, raw: Rate) -> None:
        """Process the next report; *raw* is the counter's rate against CLOCK_MONOTONIC_RAW."""
        last, now = self._last, _Report(exchange, raw)
        self._last = now
        offset_ns = exchange.tracking.last_offset_ns
        if last is None or last.exchange.timescale != exchange.timescale:
            self._missing_ns, self._forgotten_ns = abs(offset_ns), Fraction(0)
            return
        ticks = exchange.before.counter_ticks - last.exchange.before.counter_ticks
        moved_ns = exchange.true_ns - last.exchange.true_ns - ticks * last.ns_per_tick
        if offset_ns != last.exchange.tracking.last_offset_ns:  # it has 25 bits: no update finds the same again
            self._missing_ns = abs(moved_ns + offset_ns)
            self._forgotten_ns = moved_ns + offset_ns if 2 * abs(moved_ns) < abs(offset_ns) else Fraction(0)
        elif abs(moved_ns) > last.noise_ns() + now.noise_ns() + ticks * raw.ns_per_tick * MAX_KERNEL_PPM * PPM:
            leap_ns = _LEAP_NS.get(leap_of(last.exchange.tracking), 0)
            if leap_ns and abs(moved_ns - leap_ns) <= _ABOUT_A_LEAP_NS:
                return  # the announced leap second
            self._forgotten_ns += moved_ns
            self._missing_ns += abs(moved_ns)
