"""The ptp source, poll by poll, on a machine whose PTP clocks are played."""

import errno
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import anyio
import pytest

from kit.kernel_readings import MS, NS, US, timex
from kit.notes import Notes, bounds, contains_realtime
from kit.played_machine import timed_page
from kit.played_ptp import KVM, PlayedPtp
from kit.waits import until
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    ClockUnboundedError,
    CounterId,
    SourceSettingsError,
    SourceUnavailableError,
    TimeType,
)
from vmclock_async.sources import Probes, build_source
from vmclock_async.testing import check_source
from vmclock_async.timebase import ClockState, Pairing
from vmclock_ptp import PtpSettings, PtpSource


@pytest.fixture
def machine(tmp_path: Path) -> PlayedPtp:
    """A KVM guest."""
    machine = PlayedPtp(tmp_path)
    machine.add(0)
    return machine


def source_on(machine: PlayedPtp, **options: object) -> PtpSource:
    """A source that polls *machine* as fast as it can."""
    return PtpSource(PtpSettings.model_validate({"poll_interval": 0.002, **options}), machine=machine)


@asynccontextmanager
async def running(machine: PlayedPtp, notes: Notes, **options: object) -> AsyncIterator[PtpSource]:
    """Such a source, running."""
    source = source_on(machine, **options)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, notes)
        yield source
        tasks.cancel_scope.cancel()


def counter_explained(source: PtpSource) -> int | None:
    """The counter value of the measurement whose terms *source* has."""
    explained = source.explanation()
    return explained and explained.counter_value


async def read_again(machine: PlayedPtp, times: int) -> None:
    """Return once the clock was read *times* more."""
    reads = machine.reads
    await until(lambda: machine.reads >= reads + times)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings of the source."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name == "vmclock_async.ptp"
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("is_precise", [False, True])
async def test_source_gives_the_clocks_time(machine: PlayedPtp, is_precise: bool) -> None:
    """From poll to poll it is the clock's, within its bound; the terms of the bound are explained."""
    machine.is_precise = is_precise
    notes = Notes()
    async with running(machine, notes, assumed_error="0.001") as source:
        await until(lambda: len(notes.updates) >= 3 and counter_explained(source) == notes.last.counter_value)
        explained, last = source.explanation(), notes.last
        assert source.rests_on_system_clock is False
    assert set(notes.epochs) == {0}
    for update in notes.updates:
        assert (update.clock_status, update.time_type) == (ClockStatus.SYNCHRONIZED, TimeType.UTC)
        assert contains_realtime(update)
        assert update.time_maxerror_nanosec is not None
        assert MS < update.time_maxerror_nanosec
    assert explained is not None
    assert last.time_maxerror_nanosec is not None
    assert (
        0 <= last.time_maxerror_nanosec - sum(term.ns for term in explained.terms) <= 1
    )  # for the page's rounding


@pytest.mark.anyio
async def test_clock_is_read_in_a_thread_of_its_own(machine: PlayedPtp) -> None:
    """A device may take milliseconds to answer, and the event loop does not wait for it."""
    notes = Notes()
    async with running(machine, notes):
        await until(lambda: len(notes.updates) >= 2)
    assert machine.readers
    assert threading.get_ident() not in machine.readers


@pytest.mark.anyio
async def test_clock_without_a_known_error_has_no_bound(
    machine: PlayedPtp, caplog: pytest.LogCaptureFixture
) -> None:
    """The time is published without one, and one warning says what to set and why."""
    notes = Notes()
    async with running(machine, notes) as source:
        await until(lambda: len(notes.updates) >= 4)
        assert source.explanation() is None
    assert all(update.time_maxerror_nanosec is None for update in notes.updates)
    with pytest.raises(ClockUnboundedError):
        bounds(notes.last, notes.last.counter_value or 0)
    (warning,) = warnings_in(caplog)
    assert f"ptp0 ({KVM}, UTC): no bound" in warning
    assert "Say with ptp.assumed_error how many seconds" in warning
    assert "does not say how far its host's own clock is off" in warning


@pytest.mark.anyio
async def test_devices_claim_is_the_bound_while_it_makes_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ENA's claim of each reading, plus the assumption. Once it turns to nonsense nothing is measured until it is back,
    because the assumption is what comes on top; and one warning says so."""
    machine, notes = PlayedPtp(tmp_path), Notes()
    machine.add(0, "ena-ptp-05", claim="700000000\n")
    async with running(machine, notes, assumed_error="0.02"):
        await until(lambda: bool(notes.updates))
        assert notes.updates[0].time_maxerror_nanosec is not None
        assert 720 * MS < notes.updates[0].time_maxerror_nanosec
        machine.claim(0, "800000000\n")
        await until(lambda: (notes.last.time_maxerror_nanosec or 0) > 820 * MS)
        assert not warnings_in(caplog)
        machine.claim(0, "-1\n")
        await until(lambda: len(warnings_in(caplog)) == 1)
        told = len(notes.updates)
        await read_again(machine, 5)
        assert len(notes.updates) == told
        machine.claim(0, "900000000\n")
        await until(lambda: len(notes.updates) > told)
        assert (notes.last.time_maxerror_nanosec or 0) > 920 * MS
    assert len(warnings_in(caplog)) == 1
    assert "no bound any more, because phc_error_bound cannot be read, or is none" in warnings_in(caplog)[0]


@pytest.mark.anyio
async def test_device_that_never_claims_a_bound_has_the_assumed_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """ENA's without the file, or with one that holds none: the assumption is all, and without it there is no bound."""
    machine, notes = PlayedPtp(tmp_path), Notes()
    machine.add(0, "ena-ptp-05", claim="0\n")
    async with running(machine, notes, assumed_error="0.25"):
        await until(lambda: bool(notes.updates))
    assert 250 * MS < (notes.last.time_maxerror_nanosec or 0) < 700 * MS
    async with running(machine, notes):
        await until(lambda: notes.last.time_maxerror_nanosec is None)
        await until(lambda: len(warnings_in(caplog)) == 1)
    assert "and phc_error_bound cannot be read, or is none" in warnings_in(caplog)[0]


@pytest.mark.parametrize("claims", [(700, 100), (100, 700)])
def test_larger_claim_counts_where_it_changes_during_the_reading(tmp_path: Path, claims: tuple[int, int]) -> None:
    """The reading that counts may be one of before the change, or of after it."""

    class Changing(PlayedPtp):
        def pair(self, clock_id: int) -> Pairing:
            if clock_id < 0:
                self.claim(0, f"{claims[1] * MS}\n")
            return super().pair(clock_id)

    machine = Changing(tmp_path)
    machine.add(0, "ena-ptp-05")
    source = source_on(machine)
    clock = source._open()
    machine.claim(0, f"{claims[0] * MS}\n")
    try:
        measurement, _ = source._measure(clock)
    finally:
        machine.close(clock.descriptor)
    assert measurement.claimed_ns == 700 * MS


@pytest.mark.anyio
async def test_nothing_is_measured_around_a_leap_second(tmp_path: Path) -> None:
    """The kernel's offset and the clock may then be a second apart; the measurement before holds on both sides."""

    class Standing(PlayedPtp):
        at_ns = 1_798_761_599 * NS  # 2026-12-31 23:59:59

        def pair(self, clock_id: int) -> Pairing:
            pairing = super().pair(clock_id)
            return pairing._replace(clock_ns=self.at_ns) if clock_id < 0 else pairing

    machine, notes = Standing(tmp_path), Notes()
    machine.add(0)
    machine.state = timex(state=ClockState.INS, status=0x10)
    async with running(machine, notes, assumed_error=1):
        await read_again(machine, 5)
        assert notes.updates == []
        machine.at_ns += 4 * NS
        await until(lambda: bool(notes.updates))


@pytest.mark.anyio
async def test_clock_in_tai_needs_the_offset(tmp_path: Path) -> None:
    """The kernel's, else the setting's; without one there is no time, and the error says what to set."""
    machine, notes = PlayedPtp(tmp_path), Notes()
    machine.add(0, "vmclock0")
    timed_page(machine.dev / "vmclock0")
    machine.release = "7.3.4"
    machine.ahead_ns["ptp0"] = 37 * NS
    with pytest.raises(SourceUnavailableError, match=r"counts in TAI.*set ptp.tai_offset \(-37 since 2017\)"):
        await source_on(machine).run(notes)
    assert notes.updates == []
    async with running(machine, notes, assumed_error=1, tai_offset=-37):
        await until(lambda: bool(notes.updates))
    assert (notes.last.time_type, notes.last.tai_offset_sec) == (TimeType.TAI, -37)
    assert contains_realtime(notes.last)
    machine.state = timex()
    async with running(machine, notes, assumed_error=1, tai_offset=-20):
        told = len(notes.updates)
        await until(lambda: len(notes.updates) > told)
    assert notes.last.tai_offset_sec == -37
    assert contains_realtime(notes.last)


@pytest.mark.parametrize("look", [1, 2])
def test_page_that_takes_its_time_back_gives_none(tmp_path: Path, look: int) -> None:
    """The kernel's driver goes on from what the page had, so its status counts, before the reading and after it."""

    class Migrated(PlayedPtp):
        looks = 0

        def page_status(self, device: str) -> int:
            self.looks += 1
            return ClockStatus.UNKNOWN if self.looks == look else super().page_status(device)

    machine = Migrated(tmp_path)
    machine.add(0, "vmclock0")
    timed_page(machine.dev / "vmclock0")
    source = source_on(machine, assumed_error=1)
    with pytest.raises(SourceUnavailableError, match=r"page that .*ptp0 \(vmclock0, UTC\) shows says UNKNOWN"):
        source.probe()
    machine.looks = look
    assert "the time of the page /dev/vmclock0" in source.probe()
    (machine.dev / "vmclock0").unlink()
    with pytest.raises(SourceUnavailableError, match=r"its page cannot be read: .*vmclock0"):
        source.probe()


@pytest.mark.anyio
@pytest.mark.parametrize("year", [1970, 2300])
async def test_clock_that_nobody_has_set_gives_no_time(machine: PlayedPtp, year: int) -> None:
    """A clock that counts from 1970 on, or is beyond what a reader can hold: the error says what it shows."""
    machine.ahead_ns["ptp0"] = (year - 2026) * 31_556_952 * NS
    with pytest.raises(SourceUnavailableError, match="s since 1970, which is before 2020 or after 2262"):
        await source_on(machine).run(Notes())


@pytest.mark.anyio
@pytest.mark.parametrize("number", [errno.ENODEV, errno.EBUSY, errno.EINVAL])
async def test_clock_that_fails_ends_the_run_with_one_line(machine: PlayedPtp, number: int) -> None:
    """The publisher runs the source again, with a growing pause; the device is closed, and opened again then."""
    source, notes = source_on(machine, assumed_error=1), Notes()

    async def fail() -> None:
        await until(lambda: bool(notes.updates))
        machine.refused["ptp0"] = number

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fail)
        with pytest.raises(SourceUnavailableError, match=r"ptp0 \(KVM virtual PTP\) cannot be read"):
            await source.run(notes)
    machine.refused.clear()
    told = len(notes.updates)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(source.run, notes)
        await until(lambda: len(notes.updates) > told)
        tasks.cancel_scope.cancel()
    assert contains_realtime(notes.last)


@pytest.mark.anyio
@pytest.mark.parametrize("ahead_s", [100, -100])
async def test_steps_are_reported_once(machine: PlayedPtp, ahead_s: int, caplog: pytest.LogCaptureFixture) -> None:
    """A host that sets its clock, also back: the time follows, the first step is in the log, and no later one."""
    notes = Notes()
    async with running(machine, notes, assumed_error=1):
        await until(lambda: len(notes.updates) >= 2)
        assert not warnings_in(caplog)
        for steps in (1, 2, 3):
            machine.ahead_ns["ptp0"] = steps * ahead_s * NS
            await read_again(machine, 3)
    (warning,) = warnings_in(caplog)
    assert f"ptp0 ({KVM}, UTC) was stepped by {'-' if ahead_s < 0 else ''}" in warning
    found = bounds(notes.last, notes.last.counter_value or 0)
    assert not contains_realtime(notes.last)
    assert found.latest_ns - found.earliest_ns > 2 * NS


@pytest.mark.anyio
async def test_disruption_begins_everything_again(machine: PlayedPtp) -> None:
    """The next reading asks the host's clock again, so it is of the new epoch, with the rate measured from then on."""
    notes = Notes()
    async with running(machine, notes, assumed_error="0.001"):
        await until(lambda: len(notes.updates) >= 2)
        assert machine.calibrations == 1
        notes.epoch = 1
        await until(lambda: notes.epochs[-1] == 1)
    assert machine.calibrations == 2
    assert notes.epochs == sorted(notes.epochs, key=lambda epoch: epoch or 0)
    assert contains_realtime(notes.last)


@pytest.mark.anyio
async def test_clock_that_goes_on_from_a_sample_waits_after_a_disruption(tmp_path: Path) -> None:
    """Hyper-V's driver counts on from the host's last sample, which may be of before a restore: half a minute."""
    machine, notes = PlayedPtp(tmp_path), Notes()
    machine.add(0, "hyperv")
    async with running(machine, notes, assumed_error=1):
        await until(lambda: bool(notes.updates))
        notes.epoch = 1
        await read_again(machine, 5)
        assert set(notes.epochs) == {0}
    told = len(notes.updates)
    notes.epoch = 3
    async with running(machine, notes, assumed_error=1):
        await read_again(machine, 5)
    assert len(notes.updates) == told


@pytest.mark.anyio
async def test_unfit_counter_is_told_and_named(machine: PlayedPtp) -> None:
    """No time by such a counter, from the start or from a disruption on: counter_id INVALID, and the reason."""
    notes = Notes()
    machine.unfit = "the TSC does not keep its rate"
    source = source_on(machine, assumed_error=1)
    with pytest.raises(SourceUnavailableError, match="ptp: the TSC does not keep its rate"):
        await source.run(notes)
    with pytest.raises(SourceUnavailableError, match="the TSC does not keep its rate"):
        source.probe()
    assert notes.updates == [BodyUpdate(counter_id=CounterId.INVALID)]
    machine.unfit = None

    async def lose_it() -> None:
        await until(lambda: len(notes.updates) >= 2)
        machine.unfit = "the kernel does not trust the TSC"
        notes.epoch = 1

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lose_it)
        with pytest.raises(SourceUnavailableError, match="does not trust"):
            await source.run(notes)
    assert notes.last == BodyUpdate(counter_id=CounterId.INVALID)


def test_probe_says_which_clock_and_how_it_is_read(machine: PlayedPtp) -> None:
    """For ``publish auto``, in a few words; and it leaves the device closed."""
    source = source_on(machine, assumed_error="0.0005")
    assert isinstance(source, Probes)
    path = machine.dev / "ptp0"
    said = f"{path} ({KVM}, UTC), CLOCK_REALTIME of the host, by clock_gettime, which may be off by 0.5 ms"
    assert source.probe() == said
    machine.is_precise = True
    assert source.probe() == said.replace("clock_gettime", "PTP_SYS_OFFSET_PRECISE")
    with pytest.raises(
        SourceUnavailableError, match=r"nothing bounds the error of .*ptp0.*; set ptp.assumed_error"
    ):
        source_on(machine).probe()
    assert not any(line.startswith(str(path)) for line in descriptors())
    machine.refused["ptp0"] = errno.EOPNOTSUPP
    with pytest.raises(SourceUnavailableError, match="use another clock"):
        source.probe()


def descriptors() -> list[str]:
    """What this process has open."""
    return [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]


def test_network_cards_clock_may_rest_on_the_system_clock(machine: PlayedPtp) -> None:
    """phc2sys may set it from there, so nobody knows; what ``auto`` takes is always the host's."""
    assert source_on(machine).rests_on_system_clock is False
    assert source_on(machine, device="igc", timescale="tai").rests_on_system_clock is None


# Settings


@pytest.mark.parametrize(
    ("given", "expected"), [(0.25, 250 * MS), ("0.00002", 20 * US), ("1e-10", 1), (Decimal("0"), 0), (None, None)]
)
def test_assumed_error_is_exact(given: object, expected: int | None) -> None:
    """Seconds as TOML or the command line has them, to nanoseconds, rounded up."""
    assert PtpSettings.model_validate({"assumed_error": given}).assumed_error_ns == expected


@pytest.mark.parametrize(
    "options",
    [
        {"poll_interval": 0},
        {"assumed_error": "-0.1"},
        {"assumed_error": "NaN"},
        {"tai_offset": 37},
        {"tai_offset": 0},
        {"timescale": "gps"},
        {"device": ""},
        {"device": "/dev/ptp\0"},
        {"poll": 1},
    ],
)
def test_bad_settings_are_named(options: dict[str, object]) -> None:
    """Out of range or unknown: the option is named, and those there are; so is a TAI offset of the old sign."""
    with pytest.raises(
        SourceSettingsError, match=rf"ptp: {next(iter(options))}.*its options: device, poll_interval"
    ):
        build_source("ptp", options)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they hold on every loop alike, and take seconds
async def test_promises_are_kept(machine: PlayedPtp) -> None:
    """Every promise of ``Source``, on a machine with a PTP clock."""
    updates = await check_source(lambda: source_on(machine, poll_interval=0.005, assumed_error="0.001"))
    assert len(updates) > 1
    assert all(update.measures for update in updates)
