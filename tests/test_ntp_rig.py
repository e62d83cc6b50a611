"""The ntp source against servers in other threads and processes: is true time in every interval?

A real chronyd and a real ntpd, whose truth is CLOCK_REALTIME; and servers whose time is not CLOCK_REALTIME, by a
known law: they prove the signs.
"""

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise

import anyio
import pytest

from kit.chronyd import Chronyd, free_port, needs_chronyd
from kit.fitness import fit
from kit.notes import Notes
from kit.ntp import NtpResponder
from kit.ntp_source import contains_truth, running, source_of
from kit.ntpd import asking_ntpd, needs_ntpd
from kit.waits import BOUND_S, until
from vmclock_async import ClockStatus
from vmclock_ntp import NtpSettings, NtpSource

pytestmark = fit

MS = 10**6


def realtime(clock_ns: int) -> int:
    return clock_ns


async def look(notes: Notes, truth: Callable[[int], int], wrong: list[float]) -> None:
    """Look every few milliseconds at what a reader would get."""
    while True:
        if any(update.measures for update in notes.updates):
            last = next(update for update in reversed(notes.updates) if update.measures)
            if not contains_truth(last, truth):
                wrong.append(time.monotonic())
        await anyio.sleep(0.02)


@needs_chronyd
def test_chronyd_is_a_server(caplog: pytest.LogCaptureFixture) -> None:
    """Its time is in every interval, at the source's usual pace, and the bound becomes smaller with another answer."""
    port = free_port()
    notes, wrong = Notes(), list[float]()

    def errors_ns() -> list[int]:
        return [update.time_maxerror_nanosec or 0 for update in notes.updates]

    async def watch() -> None:
        source = NtpSource(NtpSettings(servers=(f"127.0.0.1:{port}",)))
        async with running(source, notes), anyio.create_task_group() as tasks:
            tasks.start_soon(look, notes, realtime, wrong)
            await until(lambda: any(later < earlier for earlier, later in pairwise(errors_ns())))
            tasks.cancel_scope.cancel()

    with Chronyd.server(port):
        anyio.run(watch)
    assert wrong == []
    assert notes.statuses == [ClockStatus.SYNCHRONIZED]
    assert caplog.messages == []


@pytest.mark.waits
@needs_ntpd
def test_ntpd_is_a_server() -> None:
    """The same with ntpsec, at another pace, in a network of its own."""
    with asking_ntpd() as asking:
        try:
            output, messages = asking.communicate(timeout=2 * BOUND_S)  # ntpd itself needs ten seconds
        finally:
            asking.kill()
    assert asking.returncode == 0, messages
    found = json.loads(output)
    assert found["outside"] == 0, found
    assert found["looks"] >= 100
    assert found["statuses"] == [ClockStatus.SYNCHRONIZED]
    assert found["errors_ns"][-1] <= 50 * MS, "its dispersion falls"


@pytest.mark.long
@pytest.mark.usefixtures("quick_ntp")
def test_servers_of_another_time() -> None:
    """Every interval contains that server's time: ahead, behind, fast, slow, lopsided, within its stated error, and
    that of a majority over a liar; one that steps is followed."""
    start_ns = time.time_ns()
    step_ns = start_ns + 1500 * MS

    def stepping(ns: int) -> int:
        return ns if ns < step_ns else ns + 500 * MS

    kinds = {
        "ahead": [NtpResponder(lambda ns: ns + 5 * MS)],
        "behind": [NtpResponder(lambda ns: ns - 5 * MS)],
        "far": [NtpResponder(lambda ns: ns + 10**18)],
        "fast": [NtpResponder(lambda ns: ns + (ns - start_ns) * 80 // 10**6)],
        "slow": [NtpResponder(lambda ns: ns - (ns - start_ns) * 80 // 10**6)],
        "lopsided": [NtpResponder(realtime, reply_delay_ns=20 * MS)],
        "off": [NtpResponder(realtime, error_ns=4_900_000, root_delay_ns=4 * MS, root_dispersion_ns=3 * MS)],
        "liar": [NtpResponder(realtime), NtpResponder(realtime), NtpResponder(lambda ns: ns + 300 * MS)],
        "stepping": [NtpResponder(stepping)],
    }
    wrong: dict[str, list[float]] = {name: [] for name in kinds}
    notes = {name: Notes() for name in kinds}

    async def watch() -> None:
        async with anyio.create_task_group() as tasks:
            for name, servers in kinds.items():
                tasks.start_soon(source_of(*servers).run, notes[name])
                tasks.start_soon(look, notes[name], servers[0].truth, wrong[name])
            await until(lambda: time.time_ns() > step_ns)
            seen = {name: len(said.updates) for name, said in notes.items()}
            await until(lambda: all(len(said.updates) > seen[name] + 10 for name, said in notes.items()))
            await until(lambda: contains_truth(notes["stepping"].last, stepping))
            tasks.cancel_scope.cancel()

    with ExitStack() as stack:
        for servers in kinds.values():
            for server in servers:
                stack.enter_context(server)
        anyio.run(watch)
    del wrong["stepping"]  # it broke its own promise, and it takes until its next answer to see that
    assert wrong == {name: [] for name in wrong}
