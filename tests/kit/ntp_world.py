"""A machine with an oscillator that wanders, and NTP servers of every kind, in simulated time: is true time inside?

The counter is 0.2 to 500 ppm off its nominal 2 GHz, and departs from its own mean by up to 25 ppm to either side. The
servers answer over ways of random lengths, and are off by what they state at most, except for one that lies.
"""

import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from kit.ntp import ntp_timestamp
from kit.ntp_exchanges import NS, PPM, exchange
from vmclock_async import BodyUpdate, ClockStatus, CounterId, TimeType, VMClockBody
from vmclock_async.errors import ClockError
from vmclock_async.models import Contents
from vmclock_async.reckoning import bounds_at
from vmclock_async.timebase import COUNTER_ID, Rate
from vmclock_ntp.address import ServerName
from vmclock_ntp.knowledge import Knowledge, Lack, Measured
from vmclock_ntp.server import Server

START_NS: Final = 1_790_000_000 * NS
_WANDER_PPM: Final = 25


@dataclass
class Model:
    """What a server is like; nanoseconds, and parts per million."""

    there_ns: int = 200_000
    back_ns: int = 200_000
    """The longest way there and back; each time it is another."""
    stated_ns: int = 500_000
    """The root dispersion, and how far it may be off."""
    delay_ns: int = 0
    """The root delay; half of that may be added to how far it is off."""
    off_ns: int = 0
    """A lie: how far it is off on top, and says nothing of."""
    fast_ppm: int = 0
    """A lie: how fast its clock is."""
    loses: float = 0.0
    leap: int = 0


class NtpWorld:
    """The machine and its servers, like *models*; ``run`` lets time go by."""

    def __init__(self, models: dict[str, Model], draw: random.Random) -> None:
        self.models: Final = models
        self.draw: Final = draw
        self.true_ns = Fraction(START_NS)
        self._counter = Fraction(2**64 - 20 * NS)
        """It wraps after ten seconds."""
        self._mean_ppm = draw.choice((-1, 1)) * draw.uniform(0.2, 500 - 2 * _WANDER_PPM)
        self._wander_ppm = draw.uniform(-_WANDER_PPM, _WANDER_PPM)
        nominal = Rate(Fraction(1, 2), Fraction(0))
        self.knowledge: Final = Knowledge(
            [ServerName.parse(name) for name in models], calibrate=lambda: lambda: nominal
        )
        self.knowledge.begin(0)
        self._due_s = dict.fromkeys(self.knowledge.servers, 0.0)
        self.updates: list[BodyUpdate] = []
        self.half_widths_ns: list[int] = []
        self.lacks: list[Lack] = []
        self.wrong: list[str] = []
        """What was found outside its interval."""
        self.leap_ns: int | None = None
        """When the servers' UTC goes back by a second."""

    @property
    def counter(self) -> int:
        return int(self._counter) % 2**64

    @property
    def now_s(self) -> float:
        return float(self.true_ns - START_NS) / NS

    @property
    def utc_ns(self) -> Fraction:
        """UTC, with the leap second."""
        return self.true_ns - (NS if self.leap_ns is not None and self.true_ns >= self.leap_ns else 0)

    def _go_on(self, ns: int | Fraction) -> None:
        self.true_ns += ns
        rate_ppm = self._mean_ppm + self._wander_ppm
        self._counter += 2 * ns * (1 + Fraction(rate_ppm) * PPM)

    def run(self, seconds: float) -> None:
        """Let *seconds* go by: ask servers when they are due, and look each second."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            for server in self.knowledge.servers:
                if not server.forbidden and self._due_s[server] <= self.now_s:
                    self._ask(server)
            self._look()
            self._go_on(NS)
            if self.draw.random() < 0.02:
                self._wander_ppm = self.draw.uniform(-_WANDER_PPM, _WANDER_PPM)

    def _ask(self, server: Server) -> None:
        model = self.models[server.name]
        server.note_request(self.now_s)
        before = self.counter
        held_ns = self.draw.randrange(50_000)
        self._go_on(self.draw.randrange(model.there_ns + 1))
        off_ns = self.draw.uniform(-1, 1) * (model.stated_ns + model.delay_ns / 2)
        off_ns += model.off_ns + float(self.true_ns - START_NS) * model.fast_ppm / 10**6
        received_ns = int(self.utc_ns) + int(off_ns)
        self._go_on(held_ns)
        self._go_on(self.draw.randrange(model.back_ns + 1))
        if self.draw.random() < model.loses:
            server.miss("lost")
        else:
            trip_ticks = (self.counter - before) % 2**64 + 1
            answered = exchange(
                counter=before,
                ns=received_ns,
                held_ns=held_ns,
                trip_ticks=trip_ticks,
                precision=-24,
                root_dispersion=model.stated_ns * 65536 // NS + 1,
                root_delay=model.delay_ns * 65536 // NS + 1,
                reference=ntp_timestamp(received_ns - 5 * NS),
                leap=0 if self.utc_ns < self.true_ns else model.leap,  # withdrawn when it is over
            )
            self.knowledge.hear(server, answered)
        self._due_s[server] = self.now_s + server.wait_s(self.now_s)

    def _look(self) -> None:
        measured = self.knowledge.measure(self.counter)
        if not isinstance(measured, Measured):
            self.lacks.append(measured)
        else:
            update = measured.update
            assert update.clock_status == ClockStatus.SYNCHRONIZED
            assert update.time_maxerror_nanosec is not None
            self.updates.append(update)
            self.half_widths_ns.append(update.time_maxerror_nanosec)
            terms_ns = sum(Fraction(term.ns) for term in measured.explanation.terms)
            assert 0 <= update.time_maxerror_nanosec - terms_ns <= 1, "the terms do not make up the bound"
        if self.updates:
            self._read(self.updates[-1])

    def _read(self, update: BodyUpdate) -> None:
        """What a reader gets from the last measurement, however old."""
        contents = Contents(VMClockBody(), CounterId.INVALID, TimeType.UTC).updated(update)
        try:
            bounds = bounds_at(contents, self.counter, counter_id=COUNTER_ID)
        except ClockError:
            return
        # A tick for the counter's own: it was cut to a whole one.
        if not bounds.earliest_ns - 1 <= self.utc_ns <= bounds.latest_ns + 1:
            self.wrong.append(
                f"at {self.now_s:.3f} s: {float(self.utc_ns - bounds.earliest_ns):.0f} ns above the earliest, "
                f"{float(bounds.latest_ns - self.utc_ns):.0f} ns below the latest"
            )
