"""A simulated machine under a publisher: its true time, drifting counter and device; its sources and readers.

A history is a list of ``Act``s. ``World.run`` plays it through the merging that the publisher uses, commit by
commit, and checks after each act what readers are promised:

* an interval that is given contains true time, unless the measurement it rests on was a bad one;
* the segment keeps the timescale and the counter in which it gave its first interval;
* within one disruption marker, each commit's interval lies in the one before, carried forward;
* a new marker never comes with a time from before the disruption.

Readers here have the fence: between a migration and its commit it is what protects them.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from vmclock_async import BodyUpdate, ClockStatus, CounterId, Flags, TimeType, VMClockBody
from vmclock_async._publishing.merger import Merger, Observed
from vmclock_async._publishing.nesting import TOLERANCE_NS
from vmclock_async._publishing.report import Report
from vmclock_async.errors import ClockError
from vmclock_async.models import Contents
from vmclock_async.reckoning import Bounds, bounds_at
from vmclock_async.timebase import COUNTER_ID, fixed_point_period

START_NS: Final = 1_790_000_000 * 10**9
TAI_OFFSET_S: Final = -37
BOUNDS: Final = Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID
FAR_OFF_NS: Final = 10 * 10**9
"""A bad measurement is off by more than any interval here is wide."""

Kind = Literal[
    "advance",
    "measure",
    "deliver",
    "bad",
    "status",
    "migrate",
    "device",
    "notice",
    "look",
    "suspend",
    "restore",
    "reset",
    "restart",
]
KINDS: Final[tuple[Kind, ...]] = (
    "advance",
    "advance",
    "measure",
    "measure",
    "measure",
    "deliver",
    "bad",
    "status",
    "migrate",
    "device",
    "notice",
    "look",
    "suspend",
    "restore",
    "reset",
    "restart",
)


@dataclass(frozen=True)
class Act:
    """One thing that happens; which of the numbers count depends on its kind."""

    kind: Kind
    source: int = 0
    """0 or 1: which of the two sources of time."""
    at_once: bool = True
    """Whether a measurement reaches the publisher in the same moment; if not, at the next ``deliver``."""
    duration_ns: int = 10**9
    ppm: int = 0
    """Advance: by how much the counter is fast, -40 to 40. Measure: by how much the source's period is off."""
    error: int = 0
    """-100 to 100: the measurement's error, in hundredths of its bound."""
    bound_ns: int = 1000
    jump: int = 0
    """By how much a migration or a suspend moves the counter."""


def random_history(random_: random.Random) -> list[Act]:
    """A history of up to 40 acts."""
    return [
        Act(
            kind=random_.choice(KINDS),
            source=random_.randrange(2),
            at_once=random_.random() < 0.8,
            duration_ns=random_.choice((10**3, 10**6, 10**9, 4 * 10**9, 6 * 10**9, 300 * 10**9, 1100 * 10**9)),
            ppm=random_.choice((-40, -7, 0, 13, 40)),
            error=random_.choice((-100, -99, -50, 0, 1, 60, 100)),
            bound_ns=random_.choice((10, 1000, 50_000, 2_000_000)),
            jump=random_.choice((0, 1, 10**6, -(10**6), 10**12, -(10**12), 2**63)),
        )
        for _ in range(random_.randint(3, 40))
    ]


@dataclass
class _Flight:
    """A measurement on its way."""

    update: BodyUpdate
    epoch: int
    era: int
    good: bool


@dataclass
class _Page:
    """The time on the device's page."""

    marker: int
    time: BodyUpdate
    era: int


@dataclass
class World:
    """The machine, from START_NS on."""

    with_device: bool = True
    device_tells_time: bool = False
    """Its page has a time of its own then, measured at the last migration."""
    utc_knows_offset: bool = True
    """Whether the source in UTC tells an offset from TAI, or the kernel has forgotten it."""
    true_ns: int = START_NS
    counter: int = 2**64 - 5 * 10**9
    """It wraps after five seconds."""
    generations: set[int | None] = field(default_factory=set)
    """The generation counters that restores have drawn."""
    era: int = 0
    """Counts what broke the counter."""
    device_marker: int = 7
    device_flags: int = 0
    suspended: bool = False
    """Whether it was, and the publisher has not noticed since."""
    page: "_Page | None" = None
    flights: list[_Flight | None] = field(default_factory=lambda: [None, None])
    heard: list[_Flight | None] = field(default_factory=lambda: [None, None])
    held: _Flight | None = None
    """What a publisher before this one left behind."""
    commits: int = 0
    given: int = 0
    """Intervals that readers were given."""
    constants: tuple[int, int] | None = None
    """The counter_id and time_type with which the first of them was given."""

    def __post_init__(self) -> None:
        cold = Contents(VMClockBody(), CounterId.ARM_VCNT, TimeType.UTC)
        self._begin(cold, cold=True)

    def _begin(self, contents: Contents, *, cold: bool) -> None:
        names = ["device", "first", "second"] if self.with_device else ["first", "second"]
        self.merger = Merger(names, contents, cold=cold)
        self._device()  # the first to be heard: it need not calibrate

    def run(self, history: Sequence[Act]) -> None:
        """Play *history*; an AssertionError where a promise is broken."""
        acts: dict[Kind, Callable[[Act], None]] = {
            "advance": self._advance,
            "measure": lambda act: self._measure(act, good=True),
            "bad": lambda act: self._measure(act, good=False),
            "deliver": lambda act: self._deliver(act.source),
            "status": self._status,
            "migrate": self._migrate,
            "device": lambda act: self._device(),
            "notice": self._notice,
            "look": lambda act: self._commit(),
            "suspend": self._suspend,
            "restore": self._restore,
            "reset": self._reset,
            "restart": self._restart,
        }
        for act in history:
            acts[act.kind](act)
            self._read()

    def _advance(self, act: Act) -> None:
        self.true_ns += act.duration_ns
        self.counter = (self.counter + act.duration_ns * (10**6 + act.ppm) // 10**6) % 2**64

    def _measure(self, act: Act, *, good: bool) -> None:
        update = self._measurement(act, good=good)
        self.flights[act.source] = _Flight(update, self.merger.epoch, self.era, good)
        if act.at_once:
            self._deliver(act.source)

    def _measurement(self, act: Act, *, good: bool) -> BodyUpdate:
        # The period is off by up to 40 ppm, and so is the counter: together within the 100 that are stated.
        period = fixed_point_period(10**6 + act.ppm, 10**6)
        error_ns = act.error * act.bound_ns // 100 if good else FAR_OFF_NS
        tai = act.source == 1
        time_ns = self.true_ns + error_ns - (TAI_OFFSET_S * 10**9 if tai else 0)
        frac = (time_ns << 64) // 10**9
        return BodyUpdate(
            counter_id=COUNTER_ID,
            time_type=TimeType.TAI if tai else TimeType.UTC,
            clock_status=ClockStatus.SYNCHRONIZED,
            counter_value=self.counter,
            counter_period_shift=period.shift,
            counter_period_frac_sec=period.frac_sec,
            counter_period_maxerror_rate_frac_sec=period.frac_sec // 10_000,
            time_sec=frac >> 64,
            time_frac_sec=frac & 2**64 - 1,
            time_esterror_nanosec=act.bound_ns // 10,
            time_maxerror_nanosec=act.bound_ns + 2,  # the counter is whole, and the fraction rounded down
            # That of a source in UTC says nothing of its own time, and may be a leap second late.
            tai_offset_sec=TAI_OFFSET_S + (not tai) if tai or self.utc_knows_offset else None,
        )

    def _deliver(self, source: int) -> None:
        flight, self.flights[source] = self.flights[source], None
        if flight is None:
            return
        self._observe()
        if flight.epoch == self.merger.epoch:
            self.merger.hear(("first", "second")[source], flight.update)
            self.heard[source] = flight
        self._commit(noticed=True)

    def _status(self, act: Act) -> None:
        status = ClockStatus.FREERUNNING if act.at_once else ClockStatus.UNKNOWN
        self._observe()
        self.merger.hear(("first", "second")[act.source], BodyUpdate(clock_status=status))
        self._commit(noticed=True)

    def _migrate(self, act: Act) -> None:
        if not self.with_device:
            return
        self.device_marker += 1
        self._break(act.jump)

    def _suspend(self, act: Act) -> None:
        self.suspended = True
        self._break(act.jump)

    def _restore(self, act: Act) -> None:
        """The machine is restored, of which no clock shows anything; a program reports it."""
        self._break(act.jump)
        marker = self.merger.contents.body.disruption_marker
        self._observe()
        self.merger.take_report(Report("agent", "the machine was restored", restored=True))
        self._commit(noticed=True)
        body = self.merger.contents.body
        assert body.disruption_marker != marker, "a restore without a new marker"
        assert body.vm_generation_counter not in {None, *self.generations}, "a restore without a new generation"
        self.generations.add(body.vm_generation_counter)

    def _reset(self, act: Act) -> None:
        """The counter begins anew, and is looked at while it is still below what it was at the last look."""
        self._commit()
        self._break(-(2**21) - abs(act.jump) % 2**62)
        self._commit()

    def _break(self, jump: int) -> None:
        self.era += 1
        self.counter = (self.counter + jump) % 2**64

    def _notice(self, act: Act) -> None:
        self.device_flags ^= Flags.DISRUPTION_SOON
        self._device()

    def _device(self) -> None:
        if not self.with_device:
            return
        body = VMClockBody(disruption_marker=self.device_marker, flags=Flags(self.device_flags))
        counter_id = CounterId.INVALID
        if self.device_tells_time:
            if self.page is None or self.page.marker != self.device_marker:
                time = self._measurement(Act("measure"), good=True)
                self.page = _Page(self.device_marker, time, self.era)
            timed = self.page.time.applied_to(body)
            body, counter_id = timed.model_copy(update={"flags": timed.flags | body.flags}), COUNTER_ID
        self._observe()
        page = BodyUpdate.from_body(body, counter_id=counter_id, time_type=TimeType.UTC)
        self.merger.hear("device", page)
        self._commit(noticed=True)

    def _restart(self, act: Act) -> None:
        """Killed, or stopped in good order and then started again; measurements on their way are lost."""
        if self.suspended:
            return  # what only a publisher before could have seen; nobody tells the next one
        if act.at_once:
            self._commit()
            self.merger.final_contents()
        self.held = self._published()
        self.flights = [None, None]
        self.heard = [None, None]
        self._begin(self.merger.contents, cold=self.commits == 0)

    def _observe(self) -> None:
        broken = "suspended" if self.suspended else None
        self.suspended = False
        self.merger.notice(
            Observed(self.counter, broken, ("device", self.device_marker) if self.with_device else None)
        )

    def _published(self) -> _Flight | None:
        """What the published time rests on."""
        match self.merger.groups["time"]:
            case "first":
                return self.heard[0]
            case "second":
                return self.heard[1]
            case "device":
                assert self.page is not None
                return _Flight(self.page.time, 0, self.page.era, good=True)
            case _:
                return self.held

    def _commit(self, *, noticed: bool = False) -> None:
        if not noticed:
            self._observe()
        before = self.merger.contents
        marker_before = before.body.disruption_marker
        promised = self._bounds(before)
        contents = self.merger.compose()
        self.merger.committed()
        self.commits += 1
        published = self._bounds(contents)
        if published is None:
            return
        rests_on = self._published()
        assert rests_on is not None, "an interval out of nothing"
        if contents.body.disruption_marker != marker_before:
            assert rests_on.era == self.era, "a new marker with a time from before"
        elif promised is not None:
            assert published.earliest_ns >= promised.earliest_ns - TOLERANCE_NS, "not nested"
            assert published.latest_ns <= promised.latest_ns + TOLERANCE_NS, "not nested"

    def _bounds(self, contents: Contents) -> Bounds | None:
        try:
            return bounds_at(contents, self.counter, counter_id=COUNTER_ID)
        except ClockError:
            return None

    def _read(self) -> None:
        contents = self.merger.contents
        fence_holds = not self.with_device or contents.body.disruption_marker % 2**32 == self.device_marker % 2**32
        if self.commits == 0 or self.suspended or not fence_holds:
            return
        bounds = self._bounds(contents)
        if bounds is None:
            return
        rests_on = self._published()
        assert rests_on is not None
        self.given += 1
        constants = contents.counter_id, contents.time_type
        self.constants = self.constants or constants
        assert constants == self.constants, "the segment has other constants than it had"
        assert rests_on.era == self.era, "a time of another era"
        if rests_on.good:
            assert bounds.earliest_ns <= self.true_ns <= bounds.latest_ns, "true time is outside"
