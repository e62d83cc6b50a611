"""An agent that becomes somebody else when its machine is restored from a snapshot.

    python examples/restored_agent.py SESSIONS [SEGMENT] [--fence DEVICE] [--seed 1] [--every 0.2] [--acts 100]

A snapshot may be restored twice, and then there are two of whatever the agent is: its session, and all the random
numbers that it will ever draw. So on a restore it draws a new seed and opens a new session as a new incarnation, and
does nothing in between. A migration leaves it who it is. SESSIONS stands for the authority that gives out sessions.

Two agents with the same --seed are like two clones: they print the same nonces, until a restore sets them apart. To
see one, publish ``replay --set replay.path=examples/recordings/snapshot-restore.jsonl.gz --set replay.mode=live``.
"""

import argparse
import random
import secrets
import sys
from pathlib import Path
from uuid import UUID

import anyio

from vmclock_async import Clock, Snapshot, VMClockError, open_clock
from vmclock_async.restore import reseed_python


class Authority:
    """A file of sessions, a line each; it gives one to an incarnation, and no second one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open_session(self, incarnation: UUID) -> str:
        """A session for *incarnation*, which must not have one yet."""
        with self.path.open("a+") as file:
            file.seek(0)
            if any(line.split()[1] == str(incarnation) for line in file):
                raise PermissionError(f"{incarnation} has a session already: is this a clone?")
            session = secrets.token_hex(8)
            print(session, incarnation, file=file)
        return session


class Agent:
    """What a process must not have in common with its clone: a session, and a state of ``random``."""

    session: str

    def __init__(self, clock: Clock, authority: Authority) -> None:
        self.clock = clock
        self.authority = authority

    def begin(self, seed: int | None) -> None:
        """Seed ``random``, and open the first session."""
        random.seed(seed)
        self.session = self.authority.open_session(self.clock.incarnation)

    async def reseed(self, _: Snapshot) -> None:
        """Forget the state that the snapshot holds, and that a clone has too."""
        reseed_python()
        print("reseeded", flush=True)

    async def reauthenticate(self, _: Snapshot) -> None:
        """Drop the session, which a clone may have too, and open one as the new incarnation."""
        self.session = self.authority.open_session(self.clock.incarnation)
        print(f"authenticated as {self.clock.incarnation}", flush=True)

    def act(self) -> None:
        """Act once, unless the agent must first become somebody else."""
        try:
            incarnation = self.clock.incarnation
        except VMClockError as exc:  # restored, or the page cannot be read at the moment
            print(f"refused to act: {exc}", flush=True)
        else:
            nonce = f"{random.getrandbits(64):016x}"
            print(f"acted as {incarnation} in session {self.session} with nonce {nonce}", flush=True)


async def main(arguments: argparse.Namespace) -> None:
    """Act every so often."""
    async with open_clock(arguments.segment, fence=arguments.fence) as clock:
        agent = Agent(clock, Authority(arguments.sessions))
        async with clock.on_restore(agent.reseed, agent.reauthenticate):
            agent.begin(arguments.seed)  # inside: a restore after this is never missed
            for _ in range(arguments.acts):
                agent.act()
                await anyio.sleep(arguments.every)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Act, as nobody else does.")
    parser.add_argument("sessions", type=Path)
    parser.add_argument("segment", nargs="?", help="default: where the publisher puts it")
    parser.add_argument("--fence", default="auto", help="the device; default: /dev/vmclock0 where there is one")
    parser.add_argument("--seed", type=int, help="of random; default: another each time")
    parser.add_argument("--every", type=float, default=0.2, help="seconds between acts")
    parser.add_argument("--acts", type=int, default=100, help="end after so many")
    try:
        anyio.run(main, parser.parse_args())
    except VMClockError as exc:
        sys.exit(f"restored_agent: {exc}")
