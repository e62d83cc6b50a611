"""A worker that acts only while it holds a lease, and steps down when its machine is migrated.

    python examples/lease_holder.py LEDGER [SEGMENT] [--fence DEVICE] [--lease 2] [--every 0.1] [--lines 200]

It ends once it has added as many lines under one lease; until then it takes a new lease for each one that it lost.
Each line that it adds to the file LEDGER begins with the token of its lease. Three things keep two workers from
acting at once, however long one was paused:

* The lease ends by itself: by time, or at once when the machine was migrated or restored.
* ``check()`` comes right before each act, because nobody else can stop the worker between two awaits.
* The ledger refuses a token older than the last one, because a machine may be paused right after the check.

Start a second one: the newest lease wins, and the first worker is refused and ends. To see one step down, publish
``replay --set replay.path=examples/recordings/live-migration.jsonl --set replay.mode=live``.
"""

import argparse
import fcntl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TextIO

import anyio

from vmclock_async import Clock, Lease, LeaseLostError, VMClockError, open_clock


class RefusedError(Exception):
    """The ledger has a line with a newer token."""


class Ledger:
    """A file of lines, each with a fencing token: the resource, which has no clock and trusts no holder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def locked(self) -> Iterator[TextIO]:
        """The file, for this process alone. Waiting for it takes time, so look at the lease afterwards."""
        with self.path.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # closing ends the lock, after everything was written
            yield file

    def append(self, file: TextIO, token: int, text: str) -> None:
        """Add a line, unless a newer token is there."""
        file.seek(0)
        newest = max((int(line.split()[0]) for line in file), default=token)
        if token < newest:
            raise RefusedError(f"token {token} is older than {newest}: another worker took over")
        print(token, text, file=file)


async def work(ledger: Ledger, lease: Lease, every_s: float, lines: int) -> None:
    """Add *lines* lines; LeaseLostError as soon as the lease is over."""
    for number in range(lines):
        lease.renew()  # the lease is still held, and the time is still bounded
        await anyio.sleep(every_s)  # the work; if it takes longer than the lease, the lease is lost
        with ledger.locked() as file:
            lease.check()
            ledger.append(file, lease.token, f"line {number}")


async def hold(clock: Clock, ledger: Ledger, lease_s: float, every_s: float, lines: int) -> None:
    """Work under one lease after another."""
    while True:
        await clock.wait_bounded(int(lease_s * 10**9) // 4)  # acquiring a lease takes twice the error
        try:
            async with clock.lease(lease_s) as lease:
                return await work(ledger, lease, every_s, lines)
        except LeaseLostError as exc:
            print(f"stepped down: {exc}", file=sys.stderr, flush=True)
        except VMClockError:
            continue  # the bound, or the page, was gone again before the lease began


async def main(arguments: argparse.Namespace) -> None:
    """Open the clock, and work."""
    async with open_clock(arguments.segment, fence=arguments.fence) as clock:
        await hold(clock, Ledger(arguments.ledger), arguments.lease, arguments.every, arguments.lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Add lines to a file while holding a lease.")
    parser.add_argument("ledger", type=Path)
    parser.add_argument("segment", nargs="?", help="default: where the publisher puts it")
    parser.add_argument("--fence", default="auto", help="the device; default: /dev/vmclock0 where there is one")
    parser.add_argument("--lease", type=float, default=2, help="seconds that a lease lasts")
    parser.add_argument("--every", type=float, default=0.1, help="seconds of work for a line")
    parser.add_argument("--lines", type=int, default=200, help="end after so many under one lease")
    try:
        anyio.run(partial(main, parser.parse_args()))
    except (VMClockError, RefusedError) as exc:
        sys.exit(f"lease_holder: {exc}")
