"""The chrony source against real chronyds: is true time in every interval, and what becomes of one that fails.

Two kinds of truth. A chronyd that follows another on the same machine: both read the kernel's clock, so true time
is CLOCK_REALTIME. And servers whose time is not CLOCK_REALTIME, by a known law: they prove the signs.
"""

import signal
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import anyio
import pytest

from kit.chronyd import Chronyd, ReferenceClock, free_port, needs_chronyd
from kit.ntp import NtpResponder, Truth
from kit.told_world import open_descriptors
from kit.waits import until
from vmclock_async import ClockStatus, Publisher, SegmentReader, Snapshot
from vmclock_async.errors import ClockError
from vmclock_async.reckoning import bounds_at
from vmclock_async.sources import Source
from vmclock_async.timebase import COUNTER_ID, pair
from vmclock_chrony import ChronySettings, ChronySource

pytestmark = [needs_chronyd, pytest.mark.timeout(120)]

PAUSE_S = 0.002


class Look(NamedTuple):
    """One evaluation of the segment, as ``now()`` will make it."""

    at_s: float
    error_ns: int | None
    """Half the interval's width; None: no interval was given."""
    off_ns: int
    """True time from the interval's middle."""
    snapshot: Snapshot

    @property
    def is_right(self) -> bool:
        return self.error_ns is None or abs(self.off_ns) <= self.error_ns


class Watch:
    """A publisher of one chronyd, and all that a reader of its segment has seen."""

    def __init__(self, path: Path, chronyd: Chronyd, truth: Truth, **options: Any) -> None:
        settings = ChronySettings(address=str(chronyd.socket), **options)
        sources: dict[str, Source] = {"chrony": ChronySource(settings)}
        self.publisher = Publisher(path, sources)
        self.truth = truth
        self.looks: list[Look] = []
        self._path = path

    async def follow(self) -> None:
        """Look at the segment some hundred times a second, from when it is there."""
        while not self._path.exists() or self.publisher.statistics().commits == 0:
            await anyio.sleep(0.01)
        with SegmentReader(self._path) as reader:
            while True:
                self.looks.append(self._look(reader))
                await anyio.sleep(PAUSE_S)

    def _look(self, reader: SegmentReader) -> Look:
        snapshot = reader.snapshot()
        now = pair(time.CLOCK_REALTIME)
        try:
            bounds = bounds_at(snapshot, now.counter_ticks, counter_id=COUNTER_ID)
        except ClockError:
            return Look(time.monotonic(), None, 0, snapshot)
        # Half the window of this look's own pairing is no error of the interval's.
        window_ns = now.window_ticks  # more than enough: no counter here ticks slower than once a nanosecond
        off = self.truth(now.clock_ns) - bounds.midpoint_ns
        return Look(time.monotonic(), bounds.error_ns + window_ns, off, snapshot)

    async def until(self, status: ClockStatus, *, since: float = 0.0) -> Look:
        """The first look after *since* that saw *status*."""
        seen = 0
        while True:
            for look in self.looks[seen:]:
                if look.at_s > since and look.snapshot.body.clock_status == status:
                    return look
            seen = len(self.looks)
            await anyio.sleep(0.02)


async def run(watches: list[Watch], *scripts: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run publishers and looks until every script has ended."""
    async with anyio.create_task_group() as tasks:
        for watch in watches:
            tasks.start_soon(watch.publisher.run)
            tasks.start_soon(watch.follow)
        async with anyio.create_task_group() as playing:
            for script in scripts:
                playing.start_soon(script)
        tasks.cancel_scope.cancel()


def realtime(clock_ns: int) -> int:
    return clock_ns


@pytest.mark.waits
def test_two_chronyds_on_one_clock(segment_path: Path) -> None:
    """Every interval contains CLOCK_REALTIME: for 30 s; without the server; through kill -9 and SIGSTOP."""
    threads, descriptors = threading.active_count(), open_descriptors()
    with ExitStack() as stack:

        def pair_of_chronyds(name: str) -> tuple[Chronyd, Chronyd, Watch]:
            port = free_port()
            server = stack.enter_context(Chronyd.server(port))
            client = stack.enter_context(Chronyd.client(port))
            return server, client, Watch(segment_path.with_name(name), client, realtime)

        _, _, steady = pair_of_chronyds("steady")
        served, _, serverless = pair_of_chronyds("serverless")
        _, killed, restarted = pair_of_chronyds("restarted")
        _, hung, stopped = pair_of_chronyds("stopped")

        async def go_on() -> None:
            await anyio.sleep(33)

        async def lose_the_server() -> None:
            start = (await serverless.until(ClockStatus.SYNCHRONIZED)).at_s
            await anyio.sleep(3)
            served.kill()
            lost = time.monotonic()
            free = await serverless.until(ClockStatus.FREERUNNING, since=start)
            assert free.at_s - lost > 5
            # Growing at 50 ppm, where chronyd itself counts on 1: from two seconds of age to the last look.
            early, late = (next(x for x in serverless.looks if x.at_s > lost + 2), serverless.looks[-1])
            growth = ((late.error_ns or 0) - (early.error_ns or 0)) / (late.at_s - early.at_s)
            assert 40e-6 < growth / 10**9 < 70e-6
            served.start()
            await serverless.until(ClockStatus.SYNCHRONIZED, since=free.at_s)

        async def kill_and_restart() -> None:
            await restarted.until(ClockStatus.SYNCHRONIZED)
            await anyio.sleep(2)
            killed.kill()
            at = time.monotonic()
            await anyio.sleep(7)
            assert restarted.looks[-1].snapshot.body.clock_status == ClockStatus.FREERUNNING
            # In between it is tried again, and runs until that fails.
            await until(lambda: restarted.publisher.statistics().sources["chrony"].state == "unavailable")
            await anyio.to_thread.run_sync(killed.start)
            await restarted.until(ClockStatus.SYNCHRONIZED, since=at + 7)
            assert restarted.publisher.statistics().sources["chrony"].restarts > 0

        async def hang() -> None:
            await stopped.until(ClockStatus.SYNCHRONIZED)
            await anyio.sleep(1)
            hung.signal(signal.SIGSTOP)
            at = time.monotonic()
            await anyio.sleep(20)
            assert stopped.looks[-1].snapshot.body.clock_status == ClockStatus.FREERUNNING
            assert "no answer" in (stopped.publisher.statistics().sources["chrony"].last_error or "")
            hung.signal(signal.SIGCONT)
            await stopped.until(ClockStatus.SYNCHRONIZED, since=at + 20)

        watches = [steady, serverless, restarted, stopped]
        anyio.run(run, watches, go_on, lose_the_server, kill_and_restart, hang)
    assert threading.active_count() <= threads
    assert not open_descriptors() - descriptors
    for watch in watches:
        first = next(number for number, look in enumerate(watch.looks) if look.error_ns is not None)
        after = watch.looks[first:]
        assert [look for look in after if not look.is_right] == []
        assert [look for look in after if look.error_ns is None] == [], "an outage"
        assert {look.snapshot.body.disruption_marker for look in after} == {0}
        # As often as the machine let it look, but for as long as they ran.
        assert after[-1].at_s - after[0].at_s > 25


@pytest.mark.waits
def test_servers_of_another_time(segment_path: Path) -> None:
    """Every interval contains that server's time: ahead, behind, fast, slow, lopsided, within its stated error."""
    start_s, start_ns = time.monotonic(), time.time_ns()
    step_s = start_s + 9
    step_ns = start_ns + 9 * 10**9
    ms = 10**6
    servers = {
        "ahead": NtpResponder(lambda ns: ns + 5 * ms),
        "behind": NtpResponder(lambda ns: ns - 5 * ms),
        "fast": NtpResponder(lambda ns: ns + (ns - start_ns) * 80 // 10**6),
        "slow": NtpResponder(lambda ns: ns - (ns - start_ns) * 80 // 10**6),
        "lopsided": NtpResponder(lambda ns: ns, reply_delay_ns=20 * ms),
        "off": NtpResponder(lambda ns: ns, error_ns=4_900_000, root_delay_ns=4 * ms, root_dispersion_ns=3 * ms),
        "stepping": NtpResponder(lambda ns: ns if ns < step_ns else ns + 500 * ms),
        "lost": NtpResponder(lambda ns: ns + 5 * ms),
    }
    with ExitStack() as stack:
        watches: dict[str, Watch] = {}
        for name, server in servers.items():
            stack.enter_context(server)
            # Without its server the last one says that its own clock is the best there is, and without error.
            client = Chronyd.client(server.port, *(["local stratum 10"] if name == "lost" else []))
            stack.enter_context(client)
            watches[name] = Watch(segment_path.with_name(name), client, server.truth, poll_interval=0.5)

        async def lose() -> None:
            await watches["lost"].until(ClockStatus.SYNCHRONIZED)
            await anyio.sleep(2)
            await anyio.to_thread.run_sync(servers["lost"].close)
            lost = time.monotonic()
            await watches["lost"].until(ClockStatus.FREERUNNING, since=lost)

        async def go_on() -> None:
            await anyio.sleep(18)

        anyio.run(run, list(watches.values()), lose, go_on)
    for name, watch in watches.items():
        given = [look for look in watch.looks if look.error_ns is not None]
        assert given[-1].at_s - given[0].at_s > 8, name
        wrong = [look for look in given if not look.is_right]
        if name == "stepping":
            # A server that steps breaks its own promise; chronyd takes a second or two to believe it.
            assert any(look.snapshot.body.disruption_marker for look in given), "the step was not told"
            assert given[-1].is_right
            assert all(look.at_s >= step_s for look in wrong)
        else:
            assert wrong == [], name
            assert {look.snapshot.body.disruption_marker for look in given} == {0}, name


def test_chronyd_that_cannot_step_forgets_nothing_unseen(segment_path: Path) -> None:
    """Told by makestep to step a clock that it may not touch, a chronyd before 4.7 forgets 5 s: true time is in every
    interval all the same, from the first report on and for a source that comes later; and the bound is small again
    once chronyd has made up for it."""
    start = {
        "always": "makestep 1 -1",
        "thrice": "makestep 1 3",
        "late": "makestep 1 -1",
        "by hand": "",
    }
    with ExitStack() as stack:
        server = stack.enter_context(NtpResponder(lambda ns: ns + 5 * 10**9))
        clients = {name: stack.enter_context(Chronyd.client(server.port, line)) for name, line in start.items()}
        watches = {
            name: Watch(segment_path.with_name(name), client, server.truth, poll_interval=0.05)
            for name, client in clients.items()
        }
        late, by_hand = watches.pop("late"), watches["by hand"]

        async def come_later() -> None:
            await anyio.sleep(3)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(late.publisher.run)
                tasks.start_soon(late.follow)
                await late.until(ClockStatus.SYNCHRONIZED)
                await anyio.sleep(3)
                tasks.cancel_scope.cancel()

        async def step_by_hand() -> None:
            await by_hand.until(ClockStatus.SYNCHRONIZED)
            await anyio.sleep(3)
            assert [look for look in by_hand.looks if (look.error_ns or 0) < 10**8]
            await anyio.run_process(["chronyc", "-h", str(clients["by hand"].socket), "makestep"], check=False)
            await anyio.sleep(3)

        anyio.run(run, list(watches.values()), come_later, step_by_hand)
    for name, watch in {**watches, "late": late}.items():
        given = [look for look in watch.looks if look.error_ns is not None]
        assert given, name
        assert [look for look in given if not look.is_right] == [], name
        if name != "by hand":  # there, the step and chronyd's next update may come between two reports
            assert {look.snapshot.body.disruption_marker for look in given} == {0}, name
        if name in ("thrice", "by hand"):
            assert (given[-1].error_ns or 0) < 10**8, name


@pytest.mark.waits
def test_reference_clock_that_is_off(segment_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """chronyd takes a hypervisor's clock for the truth: with what that may be off in a setting and in a file, true time
    is in every interval; without both, it is not, and the log says what is missing."""
    (tmp_path / "phc_error_bound").write_text("1100000\n")
    stated = {"reference_error": "0.001", "reference_error_path": tmp_path / "phc_error_bound"}
    with (
        Chronyd.of_reference_clock() as chronyd,
        ReferenceClock(chronyd.reference_socket, ahead_ns=2_000_000) as clock,
    ):
        unset = Watch(segment_path.with_name("unset"), chronyd, realtime, poll_interval=0.1)
        told = Watch(segment_path.with_name("set"), chronyd, realtime, poll_interval=0.1, **stated)

        async def tell() -> None:
            with anyio.CancelScope() as telling:
                async with anyio.create_task_group() as tasks:

                    async def end() -> None:
                        for watch in (unset, told):
                            await watch.until(ClockStatus.SYNCHRONIZED)
                        await anyio.sleep(2)
                        telling.cancel()

                    tasks.start_soon(end)
                    while True:
                        clock.tell()
                        await anyio.sleep(0.05)

        anyio.run(run, [unset, told], tell)
    bounded, believed = ([look for look in watch.looks if look.error_ns is not None] for watch in (told, unset))
    assert bounded
    assert [look for look in bounded if not look.is_right] == []
    assert min(look.error_ns or 0 for look in bounded) >= 2_100_000
    assert [look for look in believed if not look.is_right], "chronyd knows what its reference is off"
    (message,) = (message for message in caplog.messages if "reference clock" in message)
    assert "reference clock (PHC0)" in message
