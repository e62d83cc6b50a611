"""The ntp source as it runs, against servers whose truth is known and is not CLOCK_REALTIME."""

import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import anyio
import pytest

import vmclock_ntp.exchange
import vmclock_ntp.source
from kit.chronyd import free_port
from kit.fitness import fit
from kit.notes import Notes
from kit.ntp import NtpResponder
from kit.ntp_source import LEAST_PAUSE_S, contains_truth, running, source_of
from kit.waits import BOUND_S, eventually, until
from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    CounterId,
    LeapIndicator,
    Publisher,
    SegmentReader,
    SourceUnavailableError,
    TimeType,
)
from vmclock_async.testing import check_source
from vmclock_ntp import NtpSettings, NtpSource
from vmclock_ntp.address import ServerName
from vmclock_ntp.server import Server

pytestmark = fit

MS = 10**6


def ahead(ns: int) -> int:
    """A truth far from CLOCK_REALTIME."""
    return ns + 90 * 86_400 * 10**9 + 123_456_789


@pytest.fixture
def server() -> Iterator[NtpResponder]:
    with NtpResponder(ahead, root_dispersion_ns=50_000) as responder:
        yield responder


@pytest.fixture
def other() -> Iterator[NtpResponder]:
    with NtpResponder(ahead, root_dispersion_ns=50_000) as responder:
        yield responder


async def seen(notes: Notes, status: ClockStatus, *, times: int = 1) -> None:
    """Wait until the source has turned to *status* that often."""
    await until(lambda: notes.statuses.count(status) == times)


@pytest.mark.anyio
async def test_source_keeps_its_promises(server: NtpResponder) -> None:
    """All that a source promises, at its usual pace."""
    updates = await check_source(lambda: source_of(server))
    assert updates[0].clock_status == ClockStatus.SYNCHRONIZED
    assert contains_truth(updates[-1], ahead)
    assert NtpSource.rests_on_system_clock is False


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_time_is_the_servers(server: NtpResponder, other: NtpResponder) -> None:
    """And not CLOCK_REALTIME: in every measurement, though they come more often than answers; the terms add up."""
    notes, source = Notes(), source_of(server, other)
    async with running(source, notes):
        await until(lambda: len(server.heard) >= 3)
        assert contains_truth(notes.last, ahead)
        explained = source.explanation()
        assert explained is not None
        await until(lambda: explained.counter_value in [update.counter_value for update in notes.updates])
        (measured,) = (one for one in notes.updates if one.counter_value == explained.counter_value)
        await until(lambda: len(notes.updates) > len(server.heard) + len(other.heard))
    assert set(notes.statuses) == {ClockStatus.SYNCHRONIZED}
    assert {update.time_type for update in notes.updates} == {TimeType.UTC}
    assert notes.last.leap_indicator == LeapIndicator.NONE
    terms_ns = sum(Fraction(term.ns) for term in explained.terms)
    assert measured.time_maxerror_nanosec is not None
    assert 0 <= measured.time_maxerror_nanosec - terms_ns <= 1
    values = [update.counter_value for update in notes.updates]
    assert values == sorted(values, key=lambda value: value or 0), "a measurement of an earlier moment"


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_status_goes_with_the_servers(server: NtpResponder, caplog: pytest.LogCaptureFixture) -> None:
    """FREERUNNING once, without a measurement, when eight requests in a row brought none; and back. The log has one
    line for each turn."""
    caplog.set_level(logging.INFO, "vmclock_async.ntp")
    notes = Notes()
    async with running(source_of(server), notes):
        await until(lambda: ClockStatus.SYNCHRONIZED in notes.statuses)
        for number in (1, 2):
            server.says = {"leap": 3}
            await seen(notes, ClockStatus.FREERUNNING, times=number)
            server.says = {}
            await seen(notes, ClockStatus.SYNCHRONIZED, times=number + 1)
    free = [update for update in notes.updates if update.clock_status == ClockStatus.FREERUNNING]
    assert free == [BodyUpdate(clock_status=ClockStatus.FREERUNNING)] * 2
    said = [message for message in caplog.messages if server.name in message]
    assert (
        said
        == [f"{server.name}: it is not synchronized (leap indicator 3)", f"{server.name} gives the time again"] * 2
    )


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_epoch_ends_what_was_measured(server: NtpResponder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The servers are asked again, not sooner than they may be, and only answers of the new epoch count."""
    asked_at: list[float] = []
    note_request = Server.note_request

    def note(asked: Server, now_s: float) -> None:
        asked_at.append(now_s)
        note_request(asked, now_s)

    monkeypatch.setattr(Server, "note_request", note)
    notes = Notes()
    async with running(source_of(server), notes):
        await until(lambda: bool(notes.updates))
        for epoch in (1, 2, 3):
            notes.epoch = epoch
            asked, told = len(server.heard), len(notes.updates)
            await until(partial(lambda epoch: notes.epochs[-1] == epoch, epoch))
            first = next(
                number
                for number, seen in enumerate(notes.epochs)
                if seen == epoch and notes.updates[number].measures
            )
            assert first >= told
            assert len(server.heard) > asked
            assert contains_truth(notes.last, ahead)
    assert min(later - earlier for earlier, later in pairwise(asked_at)) > LEAST_PAUSE_S * 0.9


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_answer_from_before_a_disruption_is_dropped(server: NtpResponder) -> None:
    """If the epoch ends while the answer is on its way, it measures nothing in the next one."""
    source, notes = source_of(server), Notes()

    def disrupt(answer: bytes) -> list[bytes]:
        if len(server.heard) == 3:
            server.says["stratum"] = 16  # so that no later one is good
            notes.epoch = 1
            eventually(lambda: source._knowledge.epoch == 1)
        return []

    server.before = disrupt
    async with running(source, notes):
        await until(lambda: len(server.heard) >= 6)
        await until(lambda: notes.statuses[-1] == ClockStatus.INITIALIZING)
    assert any(update.measures for update in notes.updates)
    measured = [epoch for update, epoch in zip(notes.updates, notes.epochs, strict=True) if update.measures]
    assert set(measured) == {0}


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_servers_that_refuse_are_not_asked_again(server: NtpResponder, other: NtpResponder) -> None:
    """One does: the other goes on. Both do: the source is unavailable, and asks neither in another run."""
    source, notes = source_of(server, other), Notes()
    async with running(source, notes):
        await until(lambda: len(server.heard) >= 2 and bool(notes.updates))
        server.says = {"stratum": 0, "reference_id": b"DENY"}
        await until(lambda: source._knowledge.servers and any(one.forbidden for one in source._knowledge.servers))
        asked, told = len(server.heard), len(other.heard)
        await until(lambda: len(other.heard) >= told + 3)
        assert len(server.heard) == asked
        assert notes.statuses[-1] == ClockStatus.SYNCHRONIZED
    other.says = {"stratum": 0, "reference_id": b"RSTR"}
    with anyio.fail_after(BOUND_S), pytest.raises(SourceUnavailableError, match=r"refuses to be asked.*RSTR"):
        await source.run(notes)
    asked = len(server.heard) + len(other.heard)
    with anyio.fail_after(BOUND_S), pytest.raises(SourceUnavailableError):
        await source.run(notes)
    assert len(server.heard) + len(other.heard) == asked


@pytest.mark.long
def test_servers_that_do_not_answer_are_named(server: NtpResponder) -> None:
    """Each with what is wrong: nobody listens, no answer, not synchronized."""
    with NtpResponder(lambda ns: ns) as silent:
        silent.is_silent = True
        server.says["leap"] = 3
        quiet, deaf = silent.name, f"127.0.0.1:{free_port()}"
        source = NtpSource(NtpSettings(servers=(server.name, quiet, deaf)))
        with pytest.raises(SourceUnavailableError) as caught:
            anyio.run(source.run, Notes())
    assert f"{server.name}: it is not synchronized (leap indicator 3)" in caught.value.reason
    assert f"{quiet}: no answer from 127.0.0.1 within 2 s" in caught.value.reason
    assert f"{deaf}: 127.0.0.1 cannot be asked (Connection refused)" in caught.value.reason
    assert "check ntp.servers" in caught.value.reason


@pytest.mark.anyio
async def test_name_that_does_not_resolve_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the resolver's own words."""

    def fail(name: ServerName) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(ServerName, "resolve", fail)
    with anyio.fail_after(BOUND_S), pytest.raises(SourceUnavailableError) as caught:
        await NtpSource(NtpSettings(servers=("ntp.example.org",))).run(Notes())
    assert "ntp.example.org: its name cannot be resolved (Name or service not known)" in caught.value.reason


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_next_address_of_a_name_is_tried(server: NtpResponder, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once if nobody listens at the first, with the next request if it is silent, also in another run; and the
    resolver is asked again when none is left."""
    monkeypatch.setattr(vmclock_ntp.exchange, "ANSWERED_WITHIN_S", 0.05)
    with NtpResponder(lambda ns: ns) as silent:
        silent.is_silent = True
        ports = [free_port(), silent.port, server.port]
        looked_up: list[str] = []

        def found(name: ServerName) -> object:
            looked_up.append(name.host)
            return [(socket.AF_INET, ("127.0.0.1", port)) for port in ports]

        monkeypatch.setattr(ServerName, "resolve", found)
        notes, source = Notes(), NtpSource(NtpSettings(servers=("ntp.example.org",)))

        async def run() -> None:
            while True:  # as the publisher does
                with suppress(SourceUnavailableError):
                    await source.run(notes)

        with anyio.fail_after(BOUND_S):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                await until(lambda: ClockStatus.SYNCHRONIZED in notes.statuses)
                assert silent.heard
                server.close()
                before = len(looked_up)
                await until(lambda: len(looked_up) > before)
                tasks.cancel_scope.cancel()


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_name_that_is_looked_up_for_longer_than_a_run_is_found(
    server: NtpResponder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first run says that it waits for the resolver; a later run takes the answer, and does not ask again."""
    monkeypatch.setattr(vmclock_ntp.source, "_FIRST_ROUND_S", 0.01)
    looked_up: list[str] = []
    answered = threading.Event()

    def find(name: ServerName) -> object:
        looked_up.append(name.host)
        answered.wait(BOUND_S)
        return [(socket.AF_INET, ("127.0.0.1", server.port))]

    monkeypatch.setattr(ServerName, "resolve", find)
    source, notes = NtpSource(NtpSettings(servers=("ntp.example.org",))), Notes()
    for _ in range(2):
        with pytest.raises(SourceUnavailableError, match=r"ntp\.example\.org: its name is still being looked up"):
            await source.run(notes)
    monkeypatch.setattr(vmclock_ntp.source, "_FIRST_ROUND_S", BOUND_S)
    answered.set()
    async with running(source, notes):
        await until(lambda: bool(notes.updates))
    assert contains_truth(notes.last, ahead)
    assert looked_up == ["ntp.example.org"]


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_one_machine_has_one_vote(server: NtpResponder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A liar with two names of three is no majority; the second name says whose address it has."""
    with NtpResponder(lambda ns: ahead(ns) + 300 * MS) as liar:
        addresses = {"honest": server.port, "liar": liar.port, "alias": liar.port}
        monkeypatch.setattr(
            ServerName, "resolve", lambda name: [(socket.AF_INET, ("127.0.0.1", addresses[name.host]))]
        )
        source, notes = NtpSource(NtpSettings(servers=tuple(addresses))), Notes()
        async with running(source, notes):
            await until(lambda: len(server.heard) >= 6 and len(liar.heard) >= 6)
    assert not any(update.measures for update in notes.updates)
    (failure,) = (one.failure for one in source._knowledge.servers if one.failure)
    assert re.fullmatch(r"127\.0\.0\.1 is asked already, as (liar|alias): each server has one vote", failure)


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_two_that_contradict_each_other_give_no_time(server: NtpResponder) -> None:
    """INITIALIZING; with a third that agrees with one of them there is a time, that of the two."""
    with NtpResponder(lambda ns: ns) as liar:
        notes = Notes()
        async with running(source_of(server, liar), notes):
            await until(lambda: bool(notes.updates))
        assert notes.updates == [BodyUpdate(clock_status=ClockStatus.INITIALIZING)]
        with NtpResponder(ahead) as third:
            notes = Notes()
            async with running(source_of(server, liar, third), notes):
                await until(lambda: any(update.measures for update in notes.updates))
                assert contains_truth(notes.last, ahead)


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_unfit_counter_is_told(server: NtpResponder) -> None:
    """No time, why, and no server is asked; at the start, and in a later epoch."""
    notes, unfit = Notes(), list[str | None](["the TSC does not keep its rate"])
    settings = NtpSettings(servers=(server.name,))
    source = NtpSource(settings, counter_unfit_because=lambda: unfit[-1])
    with pytest.raises(SourceUnavailableError, match="does not keep its rate"):
        await source.run(notes)
    with pytest.raises(SourceUnavailableError, match="does not keep its rate"):
        source.probe()
    assert notes.updates == [BodyUpdate(counter_id=CounterId.INVALID)]
    assert server.heard == []
    unfit.append(None)

    async def find_out() -> None:
        await until(lambda: ClockStatus.SYNCHRONIZED in notes.statuses)
        unfit.append("the watchdog found it out")
        notes.epoch = 1

    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(find_out)
            with pytest.raises(SourceUnavailableError, match="watchdog"):
                await source.run(notes)
    assert notes.updates[-1] == BodyUpdate(counter_id=CounterId.INVALID)


# What a cloud has


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_servers_of_a_cloud_are_asked_by_default(
    server: NtpResponder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Those that answer count, the others are no news; if none does, the message says what to set."""
    local = [ServerName("127.0.0.1", free_port()), ServerName("127.0.0.1", server.port)]
    monkeypatch.setattr(vmclock_ntp.source, "LINK_LOCAL", tuple(local))
    source, notes = NtpSource(NtpSettings()), Notes()
    assert source.probe() == f"{server.name} of this cloud gives the time"
    async with running(source, notes):
        await until(lambda: len(server.heard) >= 4)
        assert contains_truth(notes.last, ahead)
    assert caplog.messages == []
    monkeypatch.setattr(vmclock_ntp.source, "LINK_LOCAL", tuple(local[:1]))
    source = NtpSource(NtpSettings())
    with pytest.raises(SourceUnavailableError, match=r"; say with ntp\.servers which ones to ask"):
        source.probe()
    with anyio.fail_after(BOUND_S), pytest.raises(SourceUnavailableError, match=r"say with ntp\.servers"):
        await source.run(Notes())


def test_probe_asks_nobody_who_is_set(server: NtpResponder) -> None:
    """It says whom the source would ask."""
    assert source_of(server).probe() == f"asks {server.name}"
    assert server.heard == []


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_smeared_time_is_neither_utc_nor_tai(server: NtpResponder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Near a leap second, or what may be one; not far from it, and not without the setting."""

    async def time_type(**options: bool) -> int | None:
        notes = Notes()
        async with running(source_of(server, **options), notes):
            await until(lambda: bool(notes.updates))
        return notes.updates[0].time_type

    server.says["leap"] = 1
    assert await time_type(smeared=True) == TimeType.INVALID_MAYBE_SMEARED
    assert await time_type() == TimeType.UTC
    server.says["leap"] = 0
    monkeypatch.setattr(vmclock_ntp.source, "is_near_leap", lambda utc_s: False)
    assert await time_type(smeared=True) == TimeType.UTC
    monkeypatch.setattr(vmclock_ntp.source, "is_near_leap", lambda utc_s: utc_s > 10**9)
    assert await time_type(smeared=True) == TimeType.INVALID_MAYBE_SMEARED
    assert await time_type(smeared=False) == TimeType.UTC


# Through a publisher


@pytest.mark.anyio
@pytest.mark.usefixtures("quick_ntp")
async def test_publisher_keeps_it_synchronized(server: NtpResponder, segment_path: Path) -> None:
    """Its page contains true time, and does not run free between two answers."""
    publisher = Publisher(segment_path, {"ntp": source_of(server)})
    with anyio.fail_after(BOUND_S):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            await until(lambda: publisher.statistics().commits >= 5)
            with SegmentReader(segment_path) as reader:
                body = reader.snapshot().body
            assert body.clock_status == ClockStatus.SYNCHRONIZED
            assert contains_truth(BodyUpdate.from_body(body, counter_id=CounterId.X86_TSC, time_type=0), ahead)
            tasks.cancel_scope.cancel()
