"""The examples that use a clock, run as processes of their own against a machine to which things happen.

Each is asked for what it promises on its first line: to step down, to be consistent, to refuse, to begin anew.
"""

import fcntl
import json
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kit.examples import Start, ended, line_of, on, started_examples
from kit.forks import Started
from kit.waits import eventually
from vmclock_async.testing import PlayedSegment


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts the example of a name with arguments, its output in pipes; killed when the test ends."""
    with started_examples() as start:
        yield start


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Callable[[str], PlayedSegment]]:
    """Makes another machine, for tests that need more than `segment`."""
    made: list[PlayedSegment] = []

    def make(name: str) -> PlayedSegment:
        (tmp_path / name).mkdir()
        made.append(PlayedSegment(tmp_path / name))
        return made[-1]

    yield make
    for played in made:
        played.close()


def read(path: Path) -> list[str]:
    """The whole lines of a file that others write, of none while there is no file."""
    return (
        [line for line in path.read_text().splitlines(keepends=True) if line[-1] == "\n"] if path.exists() else []
    )


def is_asleep(process: Started) -> bool:
    """Whether *process* waits for something."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def is_locked_out(process: Started) -> bool:
    """Whether *process* waits for a file that somebody else has locked."""
    return re.search(rf"-> FLOCK .* {process.pid} ", Path("/proc/locks").read_text()) is not None


def tokens(ledger: Path) -> list[int]:
    """The token of each line of *ledger*."""
    return [int(line.split()[0]) for line in read(ledger)]


def test_lease_holder_steps_down_on_migration(start: Start, segment: PlayedSegment, tmp_path: Path) -> None:
    """From the migration on nothing is done under the old lease, even while the publisher has not told of it;
    work goes on under a newer token once time is bounded again."""
    ledger = tmp_path / "ledger"
    holder = start("lease_holder.py", ledger, *on(segment), "--every", 0.01, "--lines", 10_000)
    eventually(lambda: len(tokens(ledger)) >= 3)

    with ledger.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        eventually(lambda: is_locked_out(holder))  # as if it were paused right before it acts
        before = tokens(ledger)
        segment.freeze()
        segment.migrate()
    assert line_of(holder.stderr).startswith(
        "stepped down: the lease is over: the device's disruption marker is 2"
    )
    stopped = tokens(ledger)
    assert stopped == before
    assert len(set(stopped)) == 1

    segment.thaw()
    eventually(lambda: len(tokens(ledger)) >= len(stopped) + 3)
    resumed = tokens(ledger)[len(stopped) :]
    assert min(resumed) > stopped[0]

    segment.migrate()  # and with a publisher that tells at once
    assert line_of(holder.stderr).startswith("stepped down: the lease is over: ")
    eventually(lambda: len(set(tokens(ledger))) == 3)
    assert tokens(ledger) == sorted(tokens(ledger))


def test_lease_holder_outlasts_a_publisher(start: Start, segment: PlayedSegment, tmp_path: Path) -> None:
    """While a commit is left half done it does not act; it takes another lease once a publisher has repaired that."""
    ledger = tmp_path / "ledger"
    holder = start("lease_holder.py", ledger, *on(segment), "--every", 0.01, "--lines", 10_000)
    eventually(lambda: len(tokens(ledger)) >= 3)
    segment.die_mid_commit()
    assert "seq_count stayed odd" in line_of(holder.stderr)
    stopped = tokens(ledger)
    segment.regain_sync()
    eventually(lambda: len(tokens(ledger)) >= len(stopped) + 3)
    assert min(tokens(ledger)[len(stopped) :]) > stopped[-1]


def test_lease_holder_renews(start: Start, segment: PlayedSegment, tmp_path: Path) -> None:
    """Work that takes several times as long as the lease is done under one token, for it is renewed."""
    ledger = tmp_path / "ledger"
    holder = start("lease_holder.py", ledger, *on(segment), "--lease", 0.3, "--every", 0.02, "--lines", 50)
    assert ended(holder) == (0, "", "")
    assert len(tokens(ledger)) == 50
    assert len(set(tokens(ledger))) == 1


def test_ledger_refuses_the_older_lease(start: Start, segment: PlayedSegment, tmp_path: Path) -> None:
    """Where a second worker took a lease, the first is refused and ends: no line of its comes after the second's."""
    ledger = tmp_path / "ledger"
    first = start("lease_holder.py", ledger, *on(segment), "--every", 0.01, "--lines", 10_000)
    eventually(lambda: tokens(ledger))
    start("lease_holder.py", ledger, *on(segment), "--every", 0.01, "--lines", 10_000)
    status, _, errors = ended(first)
    older, newer = sorted(set(tokens(ledger)))
    assert (status, errors) == (
        1,
        f"lease_holder: token {older} is older than {newer}: another worker took over\n",
    )
    written = tokens(ledger)  # once: the second goes on writing
    assert written == sorted(written)


def disagree(wide: PlayedSegment) -> None:
    """Let *wide* be 10 ms behind, and as honest as ever: bounded to 15 ms."""
    wide.step(-10_000_000)
    wide.change(time_maxerror_nanosec=15_000_000)


def test_transactions_of_two_processes_are_consistent(
    start: Start, machine: Callable[[str], PlayedSegment], tmp_path: Path
) -> None:
    """Two processes append at once by clocks that disagree by 10 ms: none that ended first has the later timestamp."""
    log, near, wide = tmp_path / "log", machine("near"), machine("wide")
    disagree(wide)
    processes = [
        start("transaction_log.py", "append", log, *on(near), "--count", 200),
        start("transaction_log.py", "append", log, *on(wide), "--count", 20),
    ]
    assert [ended(process) for process in processes] == [(0, "", "")] * 2
    assert len(read(log)) == 220
    status, output, _ = ended(start("transaction_log.py", "verify", log))
    assert status == 0
    assert ended(start("transaction_log.py", "verify", log, *on(near))) == (0, output, "")
    found = re.fullmatch(r"in order: 220 transactions, (\d+) pairs of different processes\n", output)
    assert found is not None
    assert int(found[1]) > 100


def test_without_commit_wait_the_order_is_wrong(
    start: Start, machine: Callable[[str], PlayedSegment], tmp_path: Path
) -> None:
    """It is the wait that makes them consistent: without it, verify finds one that is stamped later than its like."""
    log, near, wide = tmp_path / "log", machine("near"), machine("wide")
    wide.change(time_maxerror_nanosec=60_000_000_000)
    for segment in (wide, near):
        assert ended(start("transaction_log.py", "append", log, *on(segment), "--count", 1, "--no-wait"))[0] == 0
    status, output, errors = ended(start("transaction_log.py", "verify", log))
    assert (status, output) == (1, "")
    assert errors.startswith("out of order: ")


def test_transaction_is_not_acknowledged_over_a_migration(
    start: Start, segment: PlayedSegment, tmp_path: Path
) -> None:
    """A migration during the wait leaves a transaction without a receipt; the next one is committed by the new time."""
    log = tmp_path / "log"
    segment.change(time_maxerror_nanosec=60_000_000_000)
    process = start("transaction_log.py", "append", log, *on(segment), "--count", 2)
    eventually(lambda: read(log))
    eventually(lambda: is_asleep(process))
    segment.migrate()
    status, _, errors = ended(process)
    assert status == 0
    assert errors.startswith("transaction 0 is not acknowledged: ")
    assert "disruption marker" in errors
    names = [json.loads(line)["id"] for line in read(log)]
    assert [json.loads(line)["id"] for line in read(tmp_path / "log.receipts")] == names[1:]


def test_transactions_outlast_a_publisher(start: Start, segment: PlayedSegment, tmp_path: Path) -> None:
    """While a commit is left half done none is acknowledged; then they go on."""
    log = tmp_path / "log"
    process = start("transaction_log.py", "append", log, *on(segment), "--count", 10_000)
    for _ in range(3):
        eventually(lambda: len(read(log)) >= 3)
        segment.die_mid_commit()
        eventually(lambda: is_asleep(process))
        log.unlink()
        segment.regain_sync()
    eventually(lambda: len(read(log)) >= 3)
    assert process.poll() is None


def test_agent_begins_anew_after_a_restore(start: Start, segment: PlayedSegment, tmp_path: Path) -> None:
    """A migration leaves the agent who it is. From a restore on it refuses to act, until it was seeded anew and has
    a session of its new incarnation; none of its old random numbers come again."""
    sessions = tmp_path / "sessions"
    agent = start("restored_agent.py", sessions, *on(segment), "--seed", 1, "--every", 0.02, "--acts", 10_000)
    acted = re.compile(r"acted as (\S+) in session (\S+) with nonce (\S+)")
    lines = [line_of(agent.stdout)]
    segment.migrate()
    while len(lines) < 5:  # it may have looked between the device's commit and the publisher's
        lines += [line for line in [line_of(agent.stdout)] if not line.startswith("refused to act: ")]

    segment.freeze()
    segment.restore()
    while not (line := line_of(agent.stdout)).startswith("refused to act: "):
        lines.append(line)
    segment.thaw()
    while (line := line_of(agent.stdout)).startswith("refused to act: "):
        pass
    assert line == "reseeded"
    authenticated = line_of(agent.stdout)
    later = [line_of(agent.stdout) for _ in range(3)]

    old = [acted.fullmatch(line).groups() for line in lines]  # type: ignore[union-attr]
    new = [acted.fullmatch(line).groups() for line in later]  # type: ignore[union-attr]
    assert {groups[:2] for groups in old + new} == {old[0][:2], new[0][:2]}
    assert [line.split() for line in read(sessions)] == [[session, who] for who, session, _ in (old[0], new[0])]
    assert authenticated == f"authenticated as {new[0][0]}"

    twin = random.Random(1)
    foreseen = [f"{twin.getrandbits(64):016x}" for _ in range(len(old) + 100)]
    assert [nonce for _, _, nonce in old] == foreseen[: len(old)]
    assert not {nonce for _, _, nonce in new} & set(foreseen)


def test_agent_outlasts_a_publisher(start: Start, segment: PlayedSegment, tmp_path: Path) -> None:
    """While a commit is left half done it refuses to act, and then goes on as who it was."""
    agent = start("restored_agent.py", tmp_path / "sessions", *on(segment), "--every", 0.02, "--acts", 10_000)
    assert line_of(agent.stdout).startswith("acted as ")
    segment.die_mid_commit()
    while not (line := line_of(agent.stdout)).startswith("refused to act: "):
        pass
    assert "seq_count stayed odd" in line
    segment.regain_sync()
    while not line_of(agent.stdout).startswith("acted as "):
        pass
    assert len(read(tmp_path / "sessions")) == 1
