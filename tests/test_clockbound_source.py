"""The source ``clockbound`` over segments that a twin of ClockBound's writer makes, and this machine's own clock."""

import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from kit.clockbound import DISRUPTED, FREERUNNING, NS, UNKNOWN, coarse_ns, put, segment
from kit.fitness import fit
from kit.notes import Notes, contains_realtime
from kit.publishing import publish
from kit.told_world import device_page
from kit.waits import BOUND_S, until
from vmclock_async import (
    BodyUpdate,
    Clock,
    ClockStatus,
    CounterId,
    Publisher,
    SourceSettingsError,
    SourceUnavailableError,
)
from vmclock_async._segment.time_source import TimeSource, recorded_time_source
from vmclock_async.clockbound import Layout
from vmclock_async.sources import Probes, build_source
from vmclock_async.testing import check_source
from vmclock_async.timebase import Pairing, Timex
from vmclock_clockbound import ClockBoundSettings, ClockBoundSource
from vmclock_clockbound.machine import UNKNOWN_TIMEX, Machine

pytestmark = [pytest.mark.anyio, fit]
MARKED = {"enabled": 1, "marker": 7}


class PlayedMachine(Machine):
    """This machine, with a segment of the test's."""

    def __init__(self, directory: Path, layout: Layout = Layout.V2) -> None:
        self.directory = directory
        self.path = directory / layout.file_name
        self.device = directory / "vmclock0"
        super().__init__(self.path, layout, self.device)
        self._twin = layout.value
        self.unfit: str | None = None
        self.refused = False
        self.off_ns = 0
        self.polls = 0
        self.fresh: dict[str, Any] | None = None
        """What ClockBound says at each poll; None: what is there stays."""

    def say(self, **fields: Any) -> None:
        """Let ClockBound write this once."""
        self.fresh = None
        put(self.path, segment(self._twin, **fields))

    def keep_saying(self, **fields: Any) -> None:
        """Let ClockBound write this from now on, each time as of that moment."""
        self.fresh = fields
        put(self.path, segment(self._twin, **fields))

    def counter_unfit_because(self) -> str | None:
        return self.unfit

    def timex(self) -> Timex:
        if self.refused:
            return UNKNOWN_TIMEX
        now_ns = time.time_ns() + self.off_ns
        return super().timex()._replace(realtime_ns=now_ns)

    def pair(self, clock_id: int) -> Pairing:
        pairing = super().pair(clock_id)
        return pairing._replace(clock_ns=pairing.clock_ns + self.off_ns)

    def read(self) -> Any:
        if self.fresh is not None:
            put(self.path, segment(self._twin, **self.fresh))
        self.polls += 1
        return super().read()


@pytest.fixture
def machine(tmp_path: Path) -> PlayedMachine:
    return PlayedMachine(tmp_path / "clockbound")


@asynccontextmanager
async def running(machine: PlayedMachine, notes: Notes, **options: object) -> AsyncIterator[ClockBoundSource]:
    """A source that polls *machine* as fast as it can."""
    settings = ClockBoundSettings.model_validate({"poll_interval": 0.002, **options})
    source = ClockBoundSource(settings, machine=machine)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, notes)
        yield source
        tasks.cancel_scope.cancel()


async def polled(machine: PlayedMachine, times: int = 3) -> None:
    """Return once *machine* was polled a few times more."""
    polls = machine.polls
    await until(lambda: machine.polls >= polls + times)


@pytest.mark.parametrize("layout", list(Layout))
async def test_source_tells_the_clocks_time(tmp_path: Path, layout: Layout) -> None:
    """From poll to poll it is CLOCK_REALTIME, within ClockBound's bound; each update is of the epoch it began in."""
    machine, notes = PlayedMachine(tmp_path, layout), Notes()
    machine.keep_saying(bound=123_456)
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 5)
    assert set(notes.epochs) == {0}
    for update in notes.updates:
        assert update.clock_status == ClockStatus.SYNCHRONIZED
        assert contains_realtime(update)
        assert update.time_maxerror_nanosec is not None
        assert update.time_maxerror_nanosec > 123_456
        assert update.counter_period_maxerror_rate_frac_sec
        assert update.counter_period_frac_sec
        assert update.counter_period_maxerror_rate_frac_sec >= update.counter_period_frac_sec * 49 // 10**6
    counters = [update.counter_value or 0 for update in notes.updates]
    assert counters == sorted(set(counters))


async def test_explanation_is_of_the_last_update(machine: PlayedMachine) -> None:
    """Its terms make up the published bound."""
    machine.keep_saying()
    notes = Notes()
    async with running(machine, notes) as source:
        assert source.explanation() is None
        await until(lambda: notes.updates)
        explained = source.explanation()
    assert explained is not None
    assert explained.counter_value == notes.last.counter_value
    assert [term.name for term in explained.terms] == ["bound", "growth", "pairing", "clock"]


async def test_free_running_is_a_time(machine: PlayedMachine) -> None:
    """ClockBound says so itself, and still bounds it."""
    notes = Notes()
    machine.keep_saying(status=FREERUNNING)
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 2)
    assert notes.statuses == [ClockStatus.FREERUNNING]
    assert contains_realtime(notes.last)


async def test_old_bound_is_no_measurement(machine: PlayedMachine, caplog: pytest.LogCaptureFixture) -> None:
    """A daemon that has ended: FREERUNNING once after what was measured, and nothing that rests on the old bound."""
    notes = Notes()
    machine.keep_saying()
    async with running(machine, notes):
        await until(lambda: notes.updates)
        machine.say(as_of=coarse_ns() - 6 * NS)
        await until(lambda: notes.last.clock_status == ClockStatus.FREERUNNING)
        assert notes.last == BodyUpdate(clock_status=ClockStatus.FREERUNNING)
        told = len(notes.updates)
        await polled(machine)
        assert len(notes.updates) == told
        machine.keep_saying()
        await until(lambda: notes.last.clock_status == ClockStatus.SYNCHRONIZED)
    assert [record.name for record in caplog.records] == ["vmclock_async.clockbound"]
    assert "does its daemon run?" in caplog.text


async def test_old_bound_at_the_start(machine: PlayedMachine) -> None:
    """Nothing was measured that could run free."""
    notes = Notes()
    machine.say(as_of=coarse_ns() - 6 * NS)
    async with running(machine, notes):
        await until(lambda: notes.updates)
    assert notes.last == BodyUpdate(clock_status=ClockStatus.INITIALIZING)


NO_TIME: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"status": UNKNOWN}, "does not know"),
    "disrupted": ({"status": DISRUPTED}, "was disrupted"),
    "void": ({"as_of": 0, "void_after": 1}, "is void"),
    "ahead": ({"as_of_s": 2**32}, "from .* ns ahead"),
}


@pytest.mark.parametrize("name", NO_TIME)
async def test_bound_that_gives_no_time(
    machine: PlayedMachine, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """UNKNOWN, once, and the log says why; the time is back with the next good bound."""
    fields, words = NO_TIME[name]
    notes = Notes()
    machine.say(**fields)
    async with running(machine, notes):
        await until(lambda: notes.updates)
        await polled(machine)
        assert notes.updates == [BodyUpdate(clock_status=ClockStatus.UNKNOWN)]
        machine.keep_saying()
        await until(lambda: notes.last.clock_status == ClockStatus.SYNCHRONIZED)
    assert len(caplog.records) == 1
    assert re.match(f"there is no time: .*{words}", caplog.records[0].getMessage())


async def test_marker_begins_an_epoch(machine: PlayedMachine) -> None:
    """It is emitted once, alone; after that only what ClockBound has measured since counts."""
    machine.directory.mkdir()
    machine.device.write_bytes(device_page(7))

    class Epochs(Notes):
        async def __call__(self, update: BodyUpdate, *, epoch: int | None = None) -> None:
            if update == BodyUpdate(disruption_marker=8):
                self.epoch += 1
            await super().__call__(update, epoch=epoch)

    notes = Epochs()
    machine.keep_saying(**MARKED)
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 3)
        assert notes.updates[0] == BodyUpdate(disruption_marker=7)
        assert notes.last.clock_status == ClockStatus.SYNCHRONIZED
        machine.device.write_bytes(device_page(8))
        await until(lambda: notes.last.clock_status == ClockStatus.UNKNOWN)  # the device says more than ClockBound
        machine.say(enabled=1, marker=8, status=DISRUPTED)
        await until(lambda: notes.epoch == 1)
        machine.say(enabled=1, marker=8)  # as of before the source has seen the epoch begin, perhaps
        await polled(machine)
        machine.keep_saying(enabled=1, marker=8)
        await until(lambda: notes.last.clock_status == ClockStatus.SYNCHRONIZED)
    assert [update.disruption_marker for update in notes.updates if update.disruption_marker] == [7, 8]
    assert notes.epochs[-1] == 1


async def test_bound_from_before_an_epoch_does_not_count(machine: PlayedMachine) -> None:
    """A disruption that nothing but the publisher has seen: ClockBound has to measure again."""
    notes = Notes()
    machine.keep_saying()
    async with running(machine, notes):
        await until(lambda: notes.updates)
        machine.say()
        notes.epoch = 1
        await until(lambda: notes.epochs[-1] == 1)
        assert notes.last == BodyUpdate(clock_status=ClockStatus.INITIALIZING)
        machine.keep_saying()
        await until(lambda: notes.last.clock_status == ClockStatus.SYNCHRONIZED)


async def test_first_epoch_of_a_disrupted_machine(machine: PlayedMachine) -> None:
    """A publisher whose first epoch is not 0: what ClockBound measured before does not count."""
    notes = Notes()
    notes.epoch = 3
    machine.say()
    async with running(machine, notes):
        await until(lambda: notes.updates)
        assert notes.last == BodyUpdate(clock_status=ClockStatus.INITIALIZING)


async def test_clock_that_was_set(machine: PlayedMachine) -> None:
    """A step of CLOCK_REALTIME is in no bound from before: FREERUNNING until ClockBound has measured again."""
    notes = Notes()
    machine.keep_saying()
    async with running(machine, notes):
        await until(lambda: notes.updates)
        machine.say()
        machine.off_ns = 3600 * NS
        await until(lambda: notes.last.clock_status == ClockStatus.FREERUNNING)
        assert all((update.time_sec or 0) < time.time() + 1800 for update in notes.updates)
        machine.keep_saying()
        await until(lambda: notes.last.measures)
    assert notes.last.time_sec is not None
    assert notes.last.time_sec >= time.time() + 3599


async def test_device_that_cannot_be_read(machine: PlayedMachine, caplog: pytest.LogCaptureFixture) -> None:
    """ClockBound's marker has to do; the log says once what that costs."""
    notes = Notes()
    machine.keep_saying(**MARKED)
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 4)
    assert notes.last.clock_status == ClockStatus.SYNCHRONIZED
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "let this user read it" in caplog.text


async def test_kernel_that_refuses_adjtimex(machine: PlayedMachine) -> None:
    """The bound is ClockBound's; the time is in UTC, and its rate's error has all that the kernel may correct."""
    notes = Notes()
    machine.refused = True
    machine.keep_saying()
    async with running(machine, notes):
        await until(lambda: notes.updates)
    assert (notes.last.time_type, notes.last.clock_status) == (0, ClockStatus.SYNCHRONIZED)
    assert contains_realtime(notes.last)


UNUSABLE: dict[str, tuple[bytes, str]] = {
    "of a dead writer": (segment(generation=3), "stays odd at 3"),
    "malformed": (segment(drift=NS), "max_drift_ppb"),
    "of another version": (segment(3), "its version is"),
    "not begun": (segment(generation=0), "generation is 0"),
    "something else": (b"hello\n" * 20, "is no segment of ClockBound"),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.parametrize(
    "anyio_backend", ["asyncio"]
)  # half a second each, and the bytes are the same on every loop
async def test_segment_that_cannot_be_used(machine: PlayedMachine, name: str) -> None:
    """The source is unavailable, and says what was seen and what to do; the publisher tries it again."""
    page, words = UNUSABLE[name]
    put(machine.path, page)
    with anyio.fail_after(BOUND_S):
        with pytest.raises(SourceUnavailableError, match=words) as caught:
            await ClockBoundSource(ClockBoundSettings(), machine=machine).run(Notes())
    assert caught.value.source == "clockbound"
    assert caught.value.remedy


@pytest.mark.parametrize(
    "page", [segment(version=0), segment(generation=0), segment(generation=9), b""], ids=range(4)
)
async def test_clockbound_that_starts_is_waited_for(machine: PlayedMachine, page: bytes) -> None:
    """It begins its segment afresh, or repairs what it left half written: that is no outage."""
    notes = Notes()
    machine.say()
    async with running(machine, notes):
        await until(lambda: notes.updates)
        machine.path.write_bytes(page)
        await polled(machine)
        told = len(notes.updates)
        machine.say()
        await until(lambda: len(notes.updates) > told)
    assert notes.statuses == [ClockStatus.SYNCHRONIZED]


async def test_segment_that_is_replaced(machine: PlayedMachine) -> None:
    """Another file at the path is read from the next poll on."""
    notes = Notes()
    machine.keep_saying(bound=1000)
    async with running(machine, notes):
        await until(lambda: notes.updates)
        machine.fresh = None
        put(machine.directory / "new", segment(bound=10**9)).rename(machine.path)
        await until(lambda: (notes.last.time_maxerror_nanosec or 0) > 10**9)


async def test_unfit_counter_tells_no_time(machine: PlayedMachine) -> None:
    """It says so, as every source of time does."""
    machine.keep_saying()
    machine.unfit = "no counter"
    notes = Notes()
    with pytest.raises(SourceUnavailableError, match="no counter"):
        await ClockBoundSource(ClockBoundSettings(), machine=machine).run(notes)
    assert notes.updates == [BodyUpdate(counter_id=CounterId.INVALID)]
    with pytest.raises(SourceUnavailableError, match="no counter"):
        ClockBoundSource(ClockBoundSettings(), machine=machine).probe()


async def test_probe_says_what_is_there(machine: PlayedMachine) -> None:
    """Path, status, bound and age; without a segment, what to do."""
    source = ClockBoundSource(ClockBoundSettings(path=machine.path), machine=machine)
    assert isinstance(source, Probes)
    with pytest.raises(SourceUnavailableError, match="nothing is there; start ClockBound"):
        source.probe()
    machine.say(bound=41_200)
    assert source.probe().startswith(f"{machine.path}, SYNCHRONIZED, bound 41.2 us, ")


async def test_source_keeps_its_promises(machine: PlayedMachine) -> None:
    """Those of the protocol, at each of its awaits."""
    machine.keep_saying(**MARKED)
    settings = ClockBoundSettings(poll_interval=0.01)
    updates = await check_source(lambda: ClockBoundSource(settings, machine=machine), patience_s=0.25)
    assert any(update.measures for update in updates)


async def test_published_time_is_of_the_clock(machine: PlayedMachine, segment_path: Path) -> None:
    """Through a publisher: a reader's interval contains CLOCK_REALTIME, and its source rests on that clock."""
    machine.keep_saying()
    source = ClockBoundSource(ClockBoundSettings(poll_interval=0.01), machine=machine)

    async def meanwhile(publisher: Publisher) -> None:
        with Clock(await _there(segment_path), fence=None) as clock:
            await clock.wait_bounded()
            for _ in range(20):
                before_ns, interval, after_ns = time.time_ns(), clock.now(), time.time_ns()
                assert interval.earliest_ns <= after_ns
                assert before_ns <= interval.latest_ns
        with segment_path.open("rb") as file:
            assert recorded_time_source(file.fileno()) in (None, TimeSource("clockbound", True))

    await publish(segment_path, {"clockbound": source}, meanwhile)


async def _there(path: Path) -> Path:
    await until(lambda: path.exists() and path.read_bytes()[8])
    return path


async def test_settings() -> None:
    """By name from the command line; a path follows the layout; nonsense is refused."""
    source = build_source("clockbound", {"layout": "2", "max_clock_error_ppm": "20"})
    assert "/var/run/clockbound/shm0" in str(vars(source)["_path"])
    assert str(vars(ClockBoundSource(ClockBoundSettings(layout=3)))["_path"]) == "/var/run/clockbound/shm1"
    for options in ({"layout": "4"}, {"poll_interval": "0"}, {"max_clock_error_ppm": "-1"}, {"nonsense": "1"}):
        with pytest.raises(SourceSettingsError):
            build_source("clockbound", options)
