"""What ``publish`` tells a service manager: a played one, at a real socket, hears that it is ready and alive."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from kit.commands import start_command
from kit.played_manager import PlayedManager
from kit.publishing import time_fields
from kit.replays import ROOT, header, timed, write
from kit.sources import Scripted
from kit.waits import until
from vmclock_async import BodyUpdate, ClockStatus, Emit, Publisher
from vmclock_async._cli.service_manager import Readiness, ServiceManager, notifying, watched

LOST = ROOT / "examples/recordings/time-source-lost.jsonl"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[PlayedManager]:
    """A manager that listens in the test's directory."""
    with PlayedManager(tmp_path / "notify") as played:
        yield played


def unbounded(tmp_path: Path) -> Path:
    """A recording of a machine whose time nobody bounds."""
    return write(tmp_path / "unbounded.jsonl", [timed(0, flags=0), timed(10**7, flags=0)], header())


def has_status(messages: list[str], *parts: str) -> bool:
    """Whether a status with all *parts* has come."""
    return any(text.startswith("STATUS=") and all(part in text for part in parts) for text in messages)


@pytest.mark.parametrize("ready", ["bounded", "segment"])
def test_publisher_says_that_it_is_ready_and_when_it_stops(
    manager: PlayedManager, segment_path: Path, tmp_path: Path, ready: str
) -> None:
    """With a bound there is READY=1 once, the time with its source, WATCHDOG=1, and at SIGTERM STOPPING=1 at last."""
    args = ("--segment", segment_path, "--ready", ready)
    sets = ("--set", "replay.mode=live", "--set", f"replay.path={LOST}")
    variables = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1000000"}
    with start_command(tmp_path, "publish", "replay", *args, *sets, variables=variables) as publisher:
        manager.read_until(lambda heard: "READY=1" in heard and "WATCHDOG=1" in heard)
        manager.read_until(lambda heard: has_status(heard, "from replay", "off by at most", "SYNCHRONIZED"))
        publisher.terminate()
        assert publisher.wait(30) == 0
    assert manager.read()[-1] == "STOPPING=1"
    assert manager.count("READY=1") == manager.count("STOPPING=1") == 1


@pytest.mark.parametrize(("ready", "times"), [("bounded", 0), ("segment", 1)])
def test_without_a_bound_only_the_segment_is_ready(
    manager: PlayedManager, segment_path: Path, tmp_path: Path, ready: str, times: int
) -> None:
    """Who asked for a bound hears why there is none, and no READY=1; who asked for the segment hears that."""
    args = ("--segment", segment_path, "--ready", ready)
    sets = ("--set", f"replay.path={unbounded(tmp_path)}", "--set", "replay.loop=true")
    variables = {"NOTIFY_SOCKET": manager.address}
    with start_command(tmp_path, "publish", "replay", *args, *sets, variables=variables) as publisher:
        manager.read_until(lambda heard: has_status(heard, "no bounded time"))
        publisher.terminate()
        publisher.wait(30)
    assert manager.read()[-1] == "STOPPING=1"
    assert manager.count("READY=1") == times
    assert manager.count("WATCHDOG=1") == 0  # no WATCHDOG_USEC


@pytest.mark.long
@pytest.mark.asyncio
async def test_status_comes_when_it_changes_and_not_with_each_commit(
    manager: PlayedManager, segment_path: Path
) -> None:
    """Many commits of one quality are one status; another quality is another one."""
    fields, is_lost = time_fields(), anyio.Event()

    async def script(emit: Emit) -> None:
        while not is_lost.is_set():
            await emit(BodyUpdate.model_validate(time_fields()))
            await anyio.sleep(0.01)
        await emit(BodyUpdate.model_validate({**fields, "clock_status": ClockStatus.UNKNOWN}))
        await anyio.sleep_forever()

    publisher = Publisher(segment_path, {"scripted": Scripted(script)})
    with anyio.fail_after(30):
        async with notifying(ServiceManager(manager.address), publisher, Readiness.BOUNDED):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publisher.run)
                await until(lambda: has_status(manager.read(), "from scripted"))
                await until(lambda: publisher.statistics().commits > 150)  # 1.5 s, so there are looks among them
                assert sum(has_status([text], "from scripted") for text in manager.read()) == 1
                is_lost.set()
                await until(lambda: has_status(manager.read(), "no bounded time"))
                tasks.cancel_scope.cancel()
    assert manager.read()[-1] == "STOPPING=1"


@pytest.mark.asyncio
async def test_watchdog_is_silent_while_the_writer_takes_no_turn(manager: PlayedManager) -> None:
    """A loop that runs is not enough: the message comes once for each time that the writer was seen to go on."""
    turns = looks = 0

    def look() -> int:
        nonlocal looks
        looks += 1
        return turns

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watched, ServiceManager(manager.address), 0.01, look)
            await until(lambda: looks > 10)
            assert manager.count("WATCHDOG=1") == 0
            turns += 1
            await until(lambda: manager.count("WATCHDOG=1"))
            seen = looks
            await until(lambda: looks > seen + 10)
            assert manager.count("WATCHDOG=1") == 1
            tasks.cancel_scope.cancel()


@pytest.mark.long
@pytest.mark.asyncio
async def test_writer_takes_turns_while_its_sources_are_quiet(segment_path: Path) -> None:
    """A publisher with nothing to publish does not hang, and its watchdog must not say so."""

    async def script(emit: Emit) -> None:
        await emit(BodyUpdate.model_validate(time_fields()))
        await anyio.sleep_forever()

    publisher = Publisher(segment_path, {"scripted": Scripted(script)})
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            await until(lambda: publisher.statistics().turns >= 2)
            assert publisher.statistics().sources["scripted"].updates == 1
            tasks.cancel_scope.cancel()


@pytest.mark.long
@pytest.mark.asyncio
async def test_watchdog_is_silent_while_a_source_holds_the_writer(
    manager: PlayedManager, segment_path: Path
) -> None:
    """A source that blocks the loop holds the writer too: no message comes before it lets go."""
    held, let_go = threading.Event(), threading.Event()
    counts: list[int] = []

    async def script(emit: Emit) -> None:
        while True:
            await emit(BodyUpdate.model_validate(time_fields()))
            await anyio.sleep(0.01)
            if manager.count("WATCHDOG=1") > 3 and not held.is_set():
                held.set()
                let_go.wait(30)  # what a source must not do

    def watch_from_outside() -> None:
        held.wait(20)
        for _ in range(2):
            counts.append(manager.count("WATCHDOG=1"))
            time.sleep(0.3)  # fifteen intervals, in which messages would come if anything but the loop sent them
        let_go.set()

    outside = threading.Thread(target=watch_from_outside)
    outside.start()
    publisher = Publisher(segment_path, {"scripted": Scripted(script)})
    watching = ServiceManager(manager.address, watchdog_s=0.08)
    try:
        with anyio.fail_after(30):
            async with notifying(watching, publisher, Readiness.SEGMENT), anyio.create_task_group() as tasks:
                tasks.start_soon(publisher.run)
                await until(lambda: let_go.is_set() and manager.count("WATCHDOG=1") > counts[-1])
                tasks.cancel_scope.cancel()
    finally:
        held.set()
        outside.join()
    assert counts[0] == counts[1] > 3


@pytest.mark.asyncio
async def test_readiness_reaches_a_manager_whose_queue_was_full(
    manager: PlayedManager, segment_path: Path
) -> None:
    """A manager that does not read blocks nothing, and loses nothing that it has to know."""
    talker = ServiceManager(manager.address)
    while talker.notify("STATUS=before"):
        pass

    async def script(emit: Emit) -> None:
        while True:
            await emit(BodyUpdate.model_validate(time_fields()))
            await anyio.sleep(0.01)

    publisher = Publisher(segment_path, {"scripted": Scripted(script)})
    with anyio.fail_after(30):
        async with notifying(talker, publisher, Readiness.BOUNDED), anyio.create_task_group() as tasks:
            tasks.start_soon(publisher.run)
            await until(lambda: publisher.statistics().commits > 30)  # 0.3 s, with looks at which it is not taken
            await until(lambda: "READY=1" in manager.read() and has_status(manager.read(), "from scripted"))
            tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("pid", "watchdog_s"), [("own", 2.5), (None, 2.5), ("1", None)], ids=["this process", "unsaid", "another's"]
)
def test_manager_is_taken_out_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pid: str | None, watchdog_s: float | None
) -> None:
    """So no child speaks in this process's name; and another process's watchdog is left alone."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    monkeypatch.setenv("WATCHDOG_USEC", "2500000")
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    taken = ServiceManager.take()
    assert taken is not None
    assert taken.watchdog_s == watchdog_s
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & os.environ.keys()
    assert not taken.notify("READY=1")  # nobody listens: no error
    assert ServiceManager.take() is None


def test_address_may_be_an_abstract_name() -> None:
    """The form ``@name``, which some managers use."""
    with PlayedManager(f"@vmclock-async-test-{os.getpid()}") as played:
        assert ServiceManager(played.address).notify("READY=1")
        assert played.read() == ["READY=1"]


@pytest.mark.parametrize("address", ["/" + "a" * 200, "vsock:2:1234", "no\0where", "@" + "a" * 200])
def test_address_that_is_of_no_use_fails_nothing(address: str) -> None:
    """Too long, of another family, or no path at all: the message is not taken, and that is all."""
    assert not ServiceManager(address).notify("READY=1")
