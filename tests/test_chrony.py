"""The chrony source as it runs: against a chronyd whose reports are played, and against a real one.

Where the kernel's own clock is played as well, the source runs in a process of its own (``kit/adjtimex.c``).
"""

import errno
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest

from kit.adjtimex import AdjtimexStandIn
from kit.chrony_source import running, settings, under
from kit.chronyd import Chronyd, needs_chronyd
from kit.fitness import fit
from kit.notes import Notes, contains_realtime
from kit.played_chronyd import PlayedChronyd, PlayedSource
from kit.waits import BOUND_S, until
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    CounterId,
    SourceUnavailableError,
    TimeType,
)
from vmclock_async.testing import check_source
from vmclock_async.timebase import Pairing, pair
from vmclock_chrony import ChronySource
from vmclock_chrony.connection import Connection
from vmclock_chrony.source import _Run, _Trust, _Warnings

pychrony = pytest.importorskip("pychrony")
pytestmark = fit

NS = 10**9


# What is told


def test_counter_that_became_unfit_is_told(played: PlayedChronyd) -> None:
    """Looked at in each new epoch: another clocksource may be why it began."""
    notes, unfit = Notes(), list[str | None]([None])

    async def script() -> None:
        source = ChronySource(settings(played.address), counter_unfit_because=lambda: unfit[-1])

        async def find_out() -> None:
            await until(lambda: ClockStatus.SYNCHRONIZED in notes.statuses)
            unfit.append("the watchdog found it out")
            notes.epoch = 1

        with anyio.fail_after(BOUND_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(find_out)
                with pytest.raises(SourceUnavailableError, match="watchdog"):
                    await source.run(notes)

    anyio.run(script)
    assert notes.updates[-1] == BodyUpdate(counter_id=CounterId.INVALID)


def test_status_goes_with_chronyds(played: PlayedChronyd) -> None:
    """INITIALIZING until it was synchronized, FREERUNNING when it is not any more or is stale: each told once."""
    notes = Notes()

    async def script() -> None:
        async with running(ChronySource(settings(played.address)), notes):

            async def for_a_while() -> None:
                asked = played.asked
                await until(lambda: played.asked >= asked + 4)

            played.say(leap=3)
            await for_a_while()
            for lost in ({"leap": 3}, {"age_s": 12.0}, {"age_s": -12.0}, {"reference_id": 0x7F7F0101}):
                played.say(leap=0, age_s=0.0, reference_id=1)
                await until(lambda: notes.updates[-1].clock_status == ClockStatus.SYNCHRONIZED)
                played.say(**lost)
                await for_a_while()

    anyio.run(script)
    assert notes.statuses == [ClockStatus.INITIALIZING, *[ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING] * 4]
    for update in notes.updates:
        if update.clock_status != ClockStatus.SYNCHRONIZED:
            assert update.model_fields_set == {"clock_status"}, "a measurement without synchronization"
    assert [update.clock_status for update in notes.updates].count(ClockStatus.FREERUNNING) == 4
    assert [update.clock_status for update in notes.updates].count(ClockStatus.INITIALIZING) == 1


def test_new_run_remembers_that_chronyd_was_synchronised(played: PlayedChronyd) -> None:
    """The publisher runs it again when chronyd has been restarted: that time runs free, it does not begin."""
    source, notes, again = ChronySource(settings(played.address)), Notes(), Notes()

    async def script() -> None:
        async with running(source, notes):
            await until(lambda: bool(notes.updates))
        played.say(leap=3)
        async with running(source, again):
            await until(lambda: bool(again.updates))

    anyio.run(script)
    assert again.updates == [BodyUpdate(clock_status=ClockStatus.FREERUNNING)]


@pytest.mark.long
def test_slow_answers_are_dropped(played: PlayedChronyd) -> None:
    """A reply after more than 100 ms is no measurement; five in a row are an overloaded machine."""
    notes = Notes()
    quick = {2, 7}  # of the answers, which are counted from 0
    told: list[int] = []

    def dawdle() -> None:
        told.append(len(notes.updates))
        if len(told) - 1 not in quick:
            time.sleep(0.11)  # being slow is what is played

    played.before_answer = dawdle

    async def script() -> None:
        with anyio.fail_after(BOUND_S):
            await ChronySource(settings(played.address)).run(notes)

    with pytest.raises(SourceUnavailableError, match=r"takes \d+\.\d+ s to answer.*5 times in a row"):
        anyio.run(script)
    measured = [after > before for before, after in pairwise([*told, len(notes.updates)])]
    # On a busy machine the quick ones may be slow, too. The first five in a row are the end.
    assert {number for number, is_measured in enumerate(measured) if is_measured} <= quick
    fives = [number for number in range(len(measured) - 4) if not any(measured[number : number + 5])]
    assert fives == [len(measured) - 5]
    assert {update.clock_status for update in notes.updates} <= {ClockStatus.SYNCHRONIZED}


def test_counter_that_nobody_saw_jump_is_calibrated_anew(played: PlayedChronyd) -> None:
    """Set back, its rate cannot be told; set forward, each answer looks like a step. Neither is for ever."""

    async def script(jump: int) -> None:
        notes = Notes()
        with Connection(played.address) as connection:
            run = _Run(settings(played.address), connection, notes, _Warnings(settings(played.address)))
            first = pair(time.CLOCK_MONOTONIC_RAW)
            run._calibration._first = Pairing(first.counter_ticks - jump, first.clock_ns - NS // 10, 0)
            trust = _Trust(0, None)
            await run.poll(trust)
            assert notes.updates == []
            await run.poll(trust)
        assert contains_realtime(notes.updates[0])

    for jump in (-(2**50), 2**50):
        anyio.run(script, jump)


def test_smeared_time_is_neither_utc_nor_tai(played: PlayedChronyd) -> None:
    """With the setting, while a leap second is announced; without it, and else, it is what it is."""

    async def time_type(**options: Any) -> int | None:
        notes = Notes()
        async with running(ChronySource(settings(played.address, **options)), notes):
            await until(lambda: bool(notes.updates))
        return notes.updates[0].time_type

    played.say(leap=1)
    assert anyio.run(lambda: time_type(smeared=True)) == TimeType.INVALID_MAYBE_SMEARED
    assert anyio.run(time_type) in (TimeType.UTC, TimeType.TAI)


# After a disruption


@pytest.mark.long
def test_time_returns_when_all_measurements_are_new(played: PlayedChronyd) -> None:
    """Where chronyd cannot be reset: not while one that counts has older ones, nor by what came of them."""
    notes, old_ns = Notes(), time.time_ns()
    played.say(ref_time=old_ns)

    async def script() -> None:
        async with running(ChronySource(settings(played.address, poll_interval=0.02)), notes):

            async def nothing_is_told() -> None:
                asked = played.asked
                await until(lambda: played.asked >= asked + 8)
                assert set(notes.epochs) == {0}

            await until(lambda: bool(notes.updates))
            notes.epoch, began_s = 1, time.monotonic()
            await nothing_is_told()
            await until(lambda: time.monotonic() - began_s > 2.1)
            for sources in (
                [],
                [PlayedSource(1, 0)],
                [PlayedSource(0, 1)],
                [PlayedSource(0, 0), PlayedSource(9, 0, 4)],
            ):
                played.sources = sources
                await nothing_is_told()
            played.sources = [PlayedSource(0, 0), PlayedSource(900, 0, 1)]
            await nothing_is_told()
            played.say(ref_time=old_ns + 1000)
            await until(lambda: notes.epochs[-1] == 1)

    anyio.run(script)
    assert contains_realtime(notes.updates[-1])


def test_source_that_begins_after_a_disruption_waits_too(played: PlayedChronyd) -> None:
    """A publisher's first epoch is 0: in any other, chronyd's measurements may be of before."""
    notes = Notes()
    notes.epoch = 3
    played.sources = [PlayedSource(100, 0)]

    async def script() -> None:
        async with running(ChronySource(settings(played.address)), notes):
            await until(lambda: played.asked >= 8)

    anyio.run(script)
    assert notes.updates == []


def samples_of(chronyd: Chronyd) -> int:
    """How many measurements it has of its one source."""
    with pychrony.ChronyConnection(str(chronyd.socket)) as connection:
        samples: int = connection.get_source_stats()[0].samples
        return samples


@needs_chronyd
@pytest.mark.anyio
async def test_chronyd_is_reset_after_a_disruption(followed: tuple[Chronyd, int]) -> None:
    """Where it lets us: it forgets what it has measured, and time returns with what it measures then."""
    client, _ = followed
    notes = Notes()
    async with running(ChronySource(settings(client.socket, poll_interval=0.02)), notes):
        await until(lambda: bool(notes.updates) and samples_of(client) >= 6)
        before = samples_of(client)
        disrupted_at = pair(time.CLOCK_REALTIME).counter_ticks
        notes.epoch = 1
        await until(lambda: notes.epochs[-1] == 1 and notes.updates[-1].clock_status == ClockStatus.SYNCHRONIZED)
        first = notes.updates[-1]
        assert samples_of(client) < before
    assert first.counter_value is not None
    assert first.counter_value > disrupted_at
    assert contains_realtime(first)


@needs_chronyd
def test_reset_counts_where_there_is_no_burst_to_do() -> None:
    """With reference clocks alone chronyd refuses ``burst``: it was reset all the same."""
    from vmclock_chrony.recovery import Recovery

    async def script(address: str) -> None:
        recovery = Recovery()
        with Connection(address) as connection:
            await recovery.reset(connection)
        assert recovery._old is not None

    with Chronyd("port 0", "cmdport 0") as chronyd:
        anyio.run(script, str(chronyd.socket))


# Under a kernel that is played


def test_tai_where_the_kernel_knows_it(
    run_script: Callable[..., str], played_clock: AdjtimexStandIn, played: PlayedChronyd
) -> None:
    """The segment is in TAI, with the offset that leads to UTC, and chronyd's leap seconds ahead."""
    played.say(leap=2, offset=0.25)
    began_s = time.time() + 37.25
    (update,) = under(played_clock, run_script, played)
    assert (update["time_type"], update["tai_offset_sec"], update["leap_indicator"]) == (TimeType.TAI, -37, 2)
    assert began_s - 1 < update["time_sec"] < began_s + BOUND_S
    assert update["time_maxerror_nanosec"] < NS // 50, "an age of 37 s, or 20 ms of it"


def test_utc_where_adjtimex_is_refused(
    run_script: Callable[..., str], played_clock: AdjtimexStandIn, played: PlayedChronyd
) -> None:
    """A seccomp filter keeps nobody from chronyd's time, which is in UTC then."""
    played_clock.play(refused=errno.EPERM)
    (update,) = under(played_clock, run_script, played)
    assert (update["clock_status"], update["time_type"]) == (ClockStatus.SYNCHRONIZED, TimeType.UTC)
    assert "tai_offset_sec" not in update
    # The kernel may be slewing its clock by a tenth.
    slewed = update["counter_period_maxerror_rate_frac_sec"] / update["counter_period_frac_sec"]
    assert 0.1 < slewed < 0.11


@pytest.mark.parametrize("step_ns", [NS // 2, -NS // 2])
def test_step_during_a_request_is_asked_again(
    run_script: Callable[..., str], played_clock: AdjtimexStandIn, played: PlayedChronyd, step_ns: int
) -> None:
    """A measurement across a step of half a second is none; the next is made at once, not at the next poll."""
    played_clock.play_realtime(time.time_ns())
    interval_s = 5.0
    asked_s: list[float] = []

    def step() -> None:
        asked_s.append(time.monotonic())
        if played.asked <= 2:
            played_clock.play_realtime(time.time_ns() + step_ns * played.asked)

    played.before_answer = step
    (update,) = under(played_clock, run_script, played, interval=interval_s)
    assert len(asked_s) >= 3  # a slow answer is dropped, and asked for again at the next poll
    assert asked_s[2] - asked_s[0] < interval_s
    assert update["clock_status"] == ClockStatus.SYNCHRONIZED


def test_clock_that_is_stepped_each_time_is_not_measured(
    run_script: Callable[..., str], played_clock: AdjtimexStandIn, played: PlayedChronyd
) -> None:
    """Three tries; then at the next poll, when it has come to rest."""
    played_clock.play_realtime(time.time_ns())

    def step() -> None:
        if played.asked <= 4:
            played_clock.play_realtime(time.time_ns() + played.asked * NS // 2)

    played.before_answer = step
    (update,) = under(played_clock, run_script, played, interval=0.01)
    assert played.asked >= 5  # more where the machine is busy: a slow answer is dropped
    assert update["clock_status"] == ClockStatus.SYNCHRONIZED


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # they hold on every loop alike, and take seconds
async def test_promises_are_kept(played: PlayedChronyd) -> None:
    """Every promise of ``Source``, with a chronyd that is synchronized, and with none."""
    updates = await check_source(lambda: ChronySource(settings(played.address)))
    assert len(updates) > 1
    assert all(update.measures for update in updates)
    assert await check_source(lambda: ChronySource(settings("/no/such/socket"))) == ()
