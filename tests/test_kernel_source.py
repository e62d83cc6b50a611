"""The kernel source on a machine whose kernel state is a test's (``PlayedMachine``)."""

import logging
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from kit.fitness import fit
from kit.kernel_readings import MS, NS, STEP, SYNCHRONIZED, US, timex
from kit.notes import Notes, bounds, contains_realtime
from kit.waits import BOUND_S, until
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    ClockUnboundedError,
    CounterId,
    LeapIndicator,
    SourceSettingsError,
)
from vmclock_async.errors import SourceUnavailableError
from vmclock_async.sources import Probes, build_source
from vmclock_async.testing import check_source
from vmclock_async.timebase import (
    ClockStatusBits,
    Pairing,
    Timex,
    pair,
)
from vmclock_kernel import KernelSettings, KernelSource
from vmclock_kernel.machine import Machine

# The loop


class PlayedMachine(Machine):
    """This machine, with a kernel state of the test's; a second goes by with each poll."""

    def __init__(self, **changes: Any) -> None:
        self.state = timex(**changes)
        self.later: list[dict[str, Any]] = []
        """Changes that come between the two looks of one reading, the first of them at the next reading."""
        self.polls = 0
        self.unfit: str | None = None
        self.chronyd = False
        self.refused = False

    def play(self, **changes: Any) -> None:
        """Let the kernel's state be another."""
        self.state = self.state._replace(**changes)

    def counter_unfit_because(self) -> str | None:
        return self.unfit

    def timex(self) -> Timex:
        if self.refused:
            return super().timex()
        return self.state._replace(realtime_ns=time.time_ns())

    def pair(self, clock_id: int) -> Pairing:
        pairing = pair(time.CLOCK_REALTIME)
        if self.later:
            self.play(**self.later.pop(0))
        tai_ns = self.state.tai_offset_s * NS if clock_id == time.CLOCK_TAI else 0
        return pairing._replace(clock_ns=pairing.clock_ns + tai_ns)

    def monotonic_ns(self) -> int:
        self.polls += 1
        if self.state.maxerror_ns is not None:
            self.play(maxerror_ns=self.state.maxerror_ns + STEP)
        return self.polls * NS

    def chronyd_runs(self, proc: Path = Path("/proc")) -> bool:
        return self.chronyd


@asynccontextmanager
async def running(machine: Machine, notes: Notes, **options: object) -> AsyncIterator[KernelSource]:
    """A source that polls *machine* as fast as it can."""
    source = KernelSource(KernelSettings.model_validate({"poll_interval": 0.002, **options}), machine=machine)
    async with run_again(source, notes):
        yield source


@asynccontextmanager
async def run_again(source: KernelSource, notes: Notes) -> AsyncIterator[None]:
    """*source*, running."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, notes)
        yield
        tasks.cancel_scope.cancel()


@pytest.mark.anyio
async def test_source_tells_the_kernels_time() -> None:
    """From poll to poll it is the kernel's clock, within its bound; each update is of the epoch it began in."""
    machine, notes = PlayedMachine(), Notes()
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 5)
    assert set(notes.epochs) == {0}
    for update in notes.updates:
        assert update.clock_status == ClockStatus.SYNCHRONIZED
        assert contains_realtime(update)
    counters = [update.counter_value or 0 for update in notes.updates]
    assert counters == sorted(set(counters))
    assert notes.last.time_maxerror_nanosec is not None
    assert 2001 * US + STEP <= notes.last.time_maxerror_nanosec


@pytest.mark.anyio
@pytest.mark.parametrize("bit", [ClockStatusBits.UNSYNC, ClockStatusBits.CLOCKERR])
async def test_lost_synchronization_is_told_once(bit: ClockStatusBits) -> None:
    """UNKNOWN when it is lost, once, and the time again when it is back."""
    machine, notes = PlayedMachine(status=SYNCHRONIZED | bit), Notes()
    async with running(machine, notes):
        await until(lambda: machine.polls >= 5)
        assert notes.updates == [BodyUpdate(clock_status=ClockStatus.UNKNOWN)]
        machine.play(status=SYNCHRONIZED)
        await until(lambda: len(notes.updates) > 1)
        assert notes.last.clock_status == ClockStatus.SYNCHRONIZED
        machine.play(status=SYNCHRONIZED | bit)
        await until(lambda: notes.last.clock_status == ClockStatus.UNKNOWN)
        told, polls = len(notes.updates), machine.polls
        await until(lambda: machine.polls >= polls + 5)
        assert len(notes.updates) == told


@pytest.mark.anyio
async def test_zero_is_no_bound(caplog: pytest.LogCaptureFixture) -> None:
    """A daemon that writes 0 (systemd-timesyncd): the time without a bound, and one warning that helps."""
    machine, notes = PlayedMachine(maxerror_ns=0), Notes()
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 5)
    assert all(update.time_maxerror_nanosec is None for update in notes.updates)
    assert notes.last.time_esterror_nanosec is not None
    with pytest.raises(ClockUnboundedError, match="time_maxerror_nanosec"):
        bounds(notes.last, notes.last.counter_value or 0)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert [record.name for record in warnings] == ["vmclock_async.kernel"]
    assert "source chrony" in warnings[0].message
    assert "kernel.assumed_error" in warnings[0].message


@pytest.mark.anyio
async def test_assumed_error_makes_a_bound_of_zero(caplog: pytest.LogCaptureFixture) -> None:
    """With the setting there is a bound, and nothing to warn of."""
    machine, notes = PlayedMachine(maxerror_ns=0), Notes()
    async with running(machine, notes, assumed_error="0.25"):
        await until(lambda: len(notes.updates) >= 2)
    assert notes.updates[0].time_maxerror_nanosec is not None
    assert 250 * MS + STEP < notes.updates[0].time_maxerror_nanosec < 252 * MS
    assert contains_realtime(notes.last)
    assert not caplog.records


@pytest.mark.anyio
async def test_chronyd_is_allowed_10_ms() -> None:
    """Where chronyd runs, its maxerror leaves out what it is still slewing."""
    machine, notes = PlayedMachine(), Notes()
    machine.chronyd = True
    async with running(machine, notes):
        await until(lambda: bool(notes.updates))
    assert notes.updates[0].time_maxerror_nanosec is not None
    assert 12_501 * US < notes.updates[0].time_maxerror_nanosec < 13_002 * US


@pytest.mark.anyio
async def test_state_that_changed_meanwhile_is_asked_again() -> None:
    """A pairing between two states of the kernel's clock is of neither: nothing of it is published."""
    machine, notes = PlayedMachine(), Notes()
    machine.later = [{"tai_offset_s": 38}, {"tai_offset_s": 37}, {"status": SYNCHRONIZED | ClockStatusBits.INS}]
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 3)
    assert not machine.later
    assert {(u.tai_offset_sec, u.leap_indicator) for u in notes.updates} == {(-37, LeapIndicator.PRE_POS)}


@pytest.mark.anyio
async def test_no_time_after_a_disruption_until_the_daemon_writes() -> None:
    """What maxerror says of the clock is from before the disruption, until it falls; a new run does not forget."""
    machine, notes = PlayedMachine(maxerror_ns=30 * MS + US), Notes()
    async with running(machine, notes) as source:
        await until(lambda: len(notes.updates) >= 2)
        notes.epoch = 1
        polls = machine.polls
        await until(lambda: machine.polls >= polls + 3)
        told = notes.epochs.count(0)
    async with run_again(source, notes):
        polls = machine.polls
        await until(lambda: machine.polls >= polls + 3)
        assert notes.epochs == [0] * told
        machine.play(maxerror_ns=8 * MS + US)
        await until(lambda: len(notes.epochs) > told)
    assert set(notes.epochs[told:]) == {1}
    assert contains_realtime(notes.last)


@pytest.mark.anyio
async def test_source_that_begins_after_a_disruption_waits_too() -> None:
    """A publisher's first epoch is 0: in any other, what the daemon wrote may be of before."""
    machine, notes = PlayedMachine(maxerror_ns=30 * MS + US), Notes()
    notes.epoch = 3
    async with running(machine, notes):
        await until(lambda: machine.polls >= 3)
        assert notes.updates == []
        machine.play(maxerror_ns=US)
        await until(lambda: bool(notes.updates))
    assert notes.epochs[0] == 3


@pytest.mark.anyio
async def test_unfit_counter_is_told_and_named() -> None:
    """No time in terms of such a counter: counter_id INVALID, once, and the reason as an error."""
    machine, notes = PlayedMachine(), Notes()
    machine.unfit = "the TSC does not keep its rate"
    source = KernelSource(KernelSettings(), machine=machine)
    with pytest.raises(SourceUnavailableError, match="kernel: the TSC does not keep its rate"):
        await source.run(notes)
    assert notes.updates == [BodyUpdate(counter_id=CounterId.INVALID)]
    with pytest.raises(SourceUnavailableError, match="the TSC does not keep its rate"):
        source.probe()


@pytest.mark.anyio
async def test_counter_that_became_unfit_is_told() -> None:
    """The kernel turned to another clocksource, which is a disruption: the counter's fitness is asked again."""
    machine, notes = PlayedMachine(), Notes()
    source = KernelSource(KernelSettings(poll_interval=0.002), machine=machine)

    async def lose_it() -> None:
        await until(lambda: bool(notes.updates))
        machine.unfit = "the kernel does not trust the TSC"
        notes.epoch = 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lose_it)
        with pytest.raises(SourceUnavailableError, match="does not trust"):
            await source.run(notes)
    assert notes.last == BodyUpdate(counter_id=CounterId.INVALID)


@fit
def test_probe_says_what_there_is() -> None:
    """For ``publish auto``, in a few words."""
    machine = PlayedMachine()
    source = KernelSource(KernelSettings(), machine=machine)
    assert isinstance(source, Probes)
    assert source.probe() == "the kernel's clock in TAI (offset -37 s), synchronized, maxerror 2.001 ms"
    machine.play(tai_offset_s=0)
    assert "UTC (no TAI offset known)" in source.probe()
    machine.play(maxerror_ns=None, nonsense="maxerror -450")
    assert source.probe().endswith("synchronized, without a bound (out of range: maxerror -450)")


@fit
@pytest.mark.parametrize(
    ("chronyd", "frequency_ppb", "seen", "remedy"),
    [
        (True, 12_500, "though chronyd runs", "add rtcsync, or use the source chrony"),
        (False, 12_500, "though its rate is corrected by 12.5 ppm", "if that is chronyd, add rtcsync"),
        (False, 0, "no daemon is seen", "start one"),
        (False, None, "no daemon is seen", "start one"),
    ],
)
@pytest.mark.anyio
async def test_unsynchronized_clock_says_what_is_seen(
    chronyd: bool, frequency_ppb: int | None, seen: str, remedy: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A chronyd without rtcsync keeps the clock and does not say so to the kernel: nobody is told that none does."""
    machine, notes = PlayedMachine(status=ClockStatusBits.UNSYNC, frequency_ppb=frequency_ppb), Notes()
    machine.chronyd = chronyd
    caplog.set_level(logging.INFO)
    async with running(machine, notes) as source:
        await until(lambda: bool(notes.updates))
        for said in (source.probe(), caplog.messages[-1]):
            assert "STA_UNSYNC" in said
            assert seen in said
            assert remedy in said


def test_chronyd_is_not_seen_where_there_is_no_proc(tmp_path: Path) -> None:
    """In a container or chroot without /proc: not known, and no error."""
    assert not Machine().chronyd_runs(tmp_path / "proc")


# Settings and chronyd


@pytest.mark.parametrize(
    ("given", "expected"), [(0.25, 250 * MS), ("0.25", 250 * MS), ("1e-10", 1), (Decimal("0"), 0), (None, None)]
)
def test_assumed_error_is_exact(given: object, expected: int | None) -> None:
    """Seconds as TOML or the command line has them, to nanoseconds, rounded up."""
    assert KernelSettings.model_validate({"assumed_error": given}).assumed_error_ns == expected


@pytest.mark.parametrize(
    "options",
    [
        {"poll_interval": 0},
        {"poll_interval": "inf"},
        {"poll_interval": "nan"},
        {"assumed_error": "-0.1"},
        {"assumed_error": "Infinity"},
        {"assumed_error": "NaN"},
        {"poll": 1},
    ],
)
def test_bad_settings_are_named(options: dict[str, object]) -> None:
    """Out of range or unknown: the option is named, and those there are."""
    with pytest.raises(SourceSettingsError, match=rf"kernel: {next(iter(options))}.*its options: poll_interval"):
        build_source("kernel", options)


def test_chronyd_is_found_by_name(tmp_path: Path) -> None:
    """One that is gone, not waited for, called otherwise or told to leave the clock alone (-x) does not count."""
    (tmp_path / "chronyd").symlink_to("/bin/sleep")
    process = subprocess.Popen([tmp_path / "chronyd", "60"])
    try:
        give_up = time.monotonic() + BOUND_S
        while not Machine().chronyd_runs():  # its arguments are there a moment after it has begun
            assert time.monotonic() < give_up
    finally:
        process.kill()
        process.wait()
    assert not Machine().chronyd_runs(tmp_path / "none")  # else a zero that timesyncd wrote would get a bound
    for name, comm in (("1", "systemd\n"), ("22", "chronyd-helper\n"), ("self", "chronyd\n")):
        (tmp_path / "proc" / name).mkdir(parents=True)
        (tmp_path / "proc" / name / "comm").write_text(comm)
    (tmp_path / "proc" / "333").mkdir()
    assert not Machine().chronyd_runs(tmp_path / "proc")
    (tmp_path / "proc" / "333" / "comm").write_text("chronyd\n")
    assert not Machine().chronyd_runs(tmp_path / "proc")
    for arguments, steers in (("", False), ("chronyd\0-dx\0", False), ("chronyd\0-F\0002\0", True)):
        (tmp_path / "proc" / "333" / "cmdline").write_text(arguments)
        assert Machine().chronyd_runs(tmp_path / "proc") == steers


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they hold on every loop alike, and take seconds
async def test_promises_are_kept() -> None:
    """Every promise of ``Source``, with a daemon that keeps the clock."""
    settings = KernelSettings(poll_interval=0.005)
    updates = await check_source(lambda: KernelSource(settings, machine=PlayedMachine()))
    assert len(updates) > 1
    assert all(update.measures for update in updates)
