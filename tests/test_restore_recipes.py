"""The recipes of docs/how-to/after-a-restore.md: two machines of one snapshot differ, and no time is misjudged."""

import importlib.util
import json
import re
import sqlite3
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import anyio
import anyio.to_thread
import pytest

from kit.programs import started
from vmclock_async import ClockDisruptedError, TimeInterval, open_clock
from vmclock_async.testing import ManualClock, PlayedSegment

NS: Final = 10**9
RECIPES: Final = Path(__file__).parent.parent / "examples/recipes"
RunScript = Callable[..., str]


def recipe(name: str) -> ModuleType:
    """The module *name* of examples/recipes."""
    spec = importlib.util.spec_from_file_location(f"recipe_{name}", RECIPES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Server(ThreadingHTTPServer):
    """Gives each incarnation one session, and work to those that have one."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.sessions: dict[str, str] = {}
        self.connections = 0
        self.slow: tuple[str, int] = ("", 0)
        """Method and number of the request whose answer waits for `go_on`."""
        self.asked = Counter[str]()
        self.waits, self.go_on = threading.Event(), threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """One connection, which is kept alive."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        incarnation = self.rfile.read(int(self.headers["Content-Length"])).decode()
        is_new = incarnation not in self.server.sessions
        session = self.server.sessions.setdefault(incarnation, f"session-{len(self.server.sessions)}")
        self.answer(200 if is_new else 409, session)

    def do_GET(self) -> None:
        session = self.headers["Authorization"].removeprefix("Bearer ")
        self.answer(200 if session in self.server.sessions.values() else 401, f"work for {session}")

    def answer(self, status: int, text: str) -> None:
        self.server.asked[self.command] += 1
        if (self.command, self.server.asked[self.command]) == self.server.slow:
            self.server.waits.set()
            self.server.go_on.wait()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server on loopback, until the test ends; whatever proxy this machine has, it is reached without one."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server() as running:
        running.daemon_threads = True
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.go_on.set()
        running.shutdown()
        thread.join()


def test_two_machines_of_one_snapshot_differ(run_script: RunScript, server: Server, tmp_path: Path) -> None:
    """In incarnation, session, connections and random numbers; neither has the lease, and then one has."""
    first, second = json.loads(run_script("restored_twice", tmp_path / "db", server.url))
    for name in ("incarnation", "session", "nonce"):
        assert first[name] != second[name], name
    for life in (first, second):
        assert not life["has_old_connections"]
        assert not life["is_held"]
        assert life["renewed"] is None
    assert (first["acquired"], first["held"]) == (2, True)
    assert (second["acquired"], second["held"]) == (None, False)
    assert {*server.sessions} == {first["incarnation"], second["incarnation"]}


def test_without_a_restore_both_are_the_same(run_script: RunScript, server: Server, tmp_path: Path) -> None:
    """The state is common to them indeed: each believes that it is the one from before."""
    first, second = json.loads(run_script("restored_twice", tmp_path / "db", server.url, "unchanged"))
    assert first == {**second, "acquired": 1}
    assert first["is_held"]
    assert first["session"] == "of the snapshot"


def test_client_goes_on_with_new_connections(server: Server, segment: PlayedSegment) -> None:
    """The whole program: it works, is restored, and works on in another session over another connection."""
    with started() as start:
        environment = {"VMCLOCK_ASYNC_SEGMENT": str(segment.path)}
        program = start(RECIPES / "connections.py", server.url, environment=environment)
        assert program.stdout is not None
        assert program.stdout.readline() == "work for session-0\n"
        assert server.connections == 1
        segment.restore()
        assert "work for session-1\n" in iter(program.stdout.readline, "")
        assert server.connections == 2


@pytest.mark.parametrize(
    "slow", [pytest.param(("GET", 1), id="asking"), pytest.param(("POST", 1), id="authenticating")]
)
def test_client_outlives_restore_in_mid_request(
    server: Server, segment: PlayedSegment, slow: tuple[str, int]
) -> None:
    """The request that loses its connection is not answered; the next one is, in the other session."""
    server.slow = slow
    with started() as start:
        environment = {"VMCLOCK_ASYNC_SEGMENT": str(segment.path)}
        program = start(RECIPES / "connections.py", server.url, environment=environment, stderr=subprocess.PIPE)
        assert program.stdout is not None
        assert program.stderr is not None
        server.waits.wait()
        segment.restore()
        assert any(line.startswith("not answered: ReadError") for line in iter(program.stderr.readline, ""))
        assert program.stdout.readline() == "work for session-1\n"


def test_client_asks_nothing_while_it_authenticates(server: Server, segment: PlayedSegment) -> None:
    """After a restore, a slow server delays the requests; it does not end the program."""
    server.slow = ("POST", 2)
    with started() as start:
        environment = {"VMCLOCK_ASYNC_SEGMENT": str(segment.path)}
        program = start(RECIPES / "connections.py", server.url, environment=environment, stderr=subprocess.PIPE)
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == "work for session-0\n"
        segment.restore()
        server.waits.wait()
        refused = "not answered: ClockDisruptedError"
        assert any(line.startswith(refused) for line in iter(program.stderr.readline, ""))
        server.go_on.set()
        lines = iter(program.stdout.readline, "")
        assert next(line for line in lines if line != "work for session-0\n") == "work for session-1\n"


@pytest.mark.anyio
async def test_session_of_before_the_restore_is_not_kept(server: Server, segment: PlayedSegment) -> None:
    """An answer that comes after a restore is for the incarnation from before: the callback opens the session."""
    server.slow = ("POST", 1)
    async with open_clock(segment.path, fence=segment.device) as clock:
        client = recipe("connections").Client(clock, server.url)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.authenticate)
            await anyio.to_thread.run_sync(server.waits.wait)
            segment.restore()
            server.go_on.set()
        assert client.session == ""
        await client.authenticate()
        assert client.session == "session-1"
        await client.http.aclose()


def test_two_agents_of_one_seed_differ_after_a_restore(segment: PlayedSegment, tmp_path: Path) -> None:
    """examples/restored_agent.py, twice from one state: the same nonces before, and nothing in common afterwards."""
    acted = re.compile(r"acted as (\S+) in session (\S+) with nonce (\S+)\n")
    arguments = (segment.path, "--fence", segment.device, "--seed", 1, "--every", 0.02, "--acts", 10_000)
    with started() as start:
        agents = [start(RECIPES.parent / "restored_agent.py", tmp_path / f"of-{i}", *arguments) for i in range(2)]
        before, after = [], []
        for agent in agents:
            assert agent.stdout is not None
            before.append(acted.findall(agent.stdout.readline())[0])
        segment.restore()
        for agent in agents:
            assert agent.stdout is not None
            assert any(line.startswith("authenticated as ") for line in iter(agent.stdout.readline, ""))
            after.append(acted.findall(agent.stdout.readline())[0])
    assert before[0][2] == before[1][2]
    assert not {*after[0]} & {*after[1]}


@pytest.mark.anyio
async def test_client_asks_nothing_as_its_clone(server: Server, segment: PlayedSegment) -> None:
    """A restore that the callbacks have not seen to yet ends the request before it is sent."""
    async with open_clock(segment.path, fence=segment.device) as clock:
        client = recipe("connections").Client(clock, server.url)
        await client.authenticate()
        segment.freeze()
        segment.restore()
        with pytest.raises(ClockDisruptedError):
            await client.ask("/work")
        await client.http.aclose()


# Tokens

NOW: Final = TimeInterval(100 * NS - 5, 100 * NS + 5)


@pytest.mark.parametrize(
    ("claims", "refused"),
    [
        pytest.param({}, None, id="no-times"),
        pytest.param({"exp": 101}, None, id="lasts"),
        pytest.param({"exp": 100}, "may be", id="may-be-expired"),
        pytest.param({"exp": 99}, "expired", id="is-expired"),
        pytest.param({"nbf": 99}, None, id="has-begun"),
        pytest.param({"nbf": 100}, "may not be", id="may-have-begun"),
        pytest.param({"nbf": 101}, "not valid yet", id="has-not-begun"),
        pytest.param({"iat": 100}, None, id="may-be-just-issued"),
        pytest.param({"iat": 101}, "in the future", id="issued-in-the-future"),
        pytest.param({"exp": 100.5, "nbf": 99.5, "iat": 99.5}, None, id="fractions"),
    ],
)
def test_token_is_valid_only_where_that_is_certain(claims: dict[str, float], refused: str | None) -> None:
    """exp takes the latest side of the interval, nbf the earliest; iat is refused only if it is certainly ahead."""
    require_valid = recipe("tokens").require_valid
    if refused is None:
        require_valid(claims, NOW)
        return
    with pytest.raises(PermissionError, match=refused):
        require_valid(claims, NOW)


def test_token_is_valid_from_its_issue_for_no_longer_than_its_time() -> None:
    """By its issuer's clock, and by every other whose bound holds: another interval contains the same true time."""
    tokens = recipe("tokens")
    claims = tokens.claims_for(60, NOW)
    tokens.require_valid(claims, NOW)
    true_ns = 100 * NS + 60 * NS  # a minute later, by a clock with another error
    with pytest.raises(PermissionError, match="expired"):
        tokens.require_valid(claims, TimeInterval(true_ns - 3 * NS, true_ns + 1))


def test_token_of_before_the_snapshot_is_not_taken_for_a_fresh_one() -> None:
    """The clock has no time until it is right again; three days later the token is expired."""
    tokens = recipe("tokens")
    with ManualClock(follow_loop=False) as clock:
        claims = tokens.claims_for(3600, clock.now())
        clock.freeze()
        clock.restore()
        with pytest.raises(ClockDisruptedError):
            tokens.require_valid(claims, clock.now())
        clock.thaw()
        clock.step(3 * 86400 * NS)
        with pytest.raises(PermissionError, match="expired"):
            tokens.require_valid(claims, clock.now())


# The lease in SQL


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    """One that several machines share."""
    shared = sqlite3.connect(":memory:")
    shared.execute(recipe("lease_row").SCHEMA)
    yield shared
    shared.close()


def clocks(*errors_ns: int) -> list[ManualClock]:
    """Clocks of machines at the same moment, with errors of their own."""
    return [ManualClock(follow_loop=False, max_error_ns=error_ns) for error_ns in errors_ns]


def test_lease_has_one_holder_whatever_the_clocks_errors(database: sqlite3.Connection) -> None:
    """Another machine takes it only once its own interval is past the end; its holder gives it up before that."""
    rows: Any = recipe("lease_row")
    exact, vague = clocks(1000, NS)
    assert rows.acquire(database, vague, "leader", 10) == 1
    assert rows.is_held(database, vague, "leader")
    held_by_both = taken_after_s = 0.0
    for tenths in range(1, 140):
        for clock in (exact, vague):
            clock.advance(0.1)
        was_held = rows.is_held(database, vague, "leader")
        if rows.acquire(database, exact, "leader", 10) is not None and not taken_after_s:
            taken_after_s = tenths / 10
            held_by_both += was_held
    assert not held_by_both
    assert 10 < taken_after_s < 12
    assert rows.is_held(database, exact, "leader")


def test_renewal_keeps_the_token_and_a_new_holder_gets_a_greater_one(database: sqlite3.Connection) -> None:
    """So a resource can refuse a holder that is late."""
    rows: Any = recipe("lease_row")
    one, two = clocks(1000, 1000)
    assert [rows.acquire(database, one, "leader", 10) for _ in range(3)] == [1, 1, 1]
    assert rows.acquire(database, two, "leader", 10) is None
    assert rows.acquire(database, two, "other", 10) == 1
    one.advance(11)
    two.advance(11)
    assert rows.acquire(database, two, "leader", 10) == 2
    assert not rows.is_held(database, one, "leader")
    one.close()
    two.close()
