"""A log of transactions that is externally consistent: its timestamps agree with what anybody could see happen.

    python examples/transaction_log.py append LOG [SEGMENT] [--fence DEVICE] [--count 20] [--no-wait]
    python examples/transaction_log.py verify LOG [SEGMENT] [--fence DEVICE]

Run two or more ``append`` at once, then ``verify``. The promise: where one transaction was acknowledged before another
began, its timestamp is the smaller, whichever processes made them and however their clocks differ within their bounds.

Commit-wait is all it takes. A timestamp is the latest that it can be now, and is acknowledged once it is past for
certain: whoever begins after that has a clock whose latest is later still. There is no rule here that a timestamp must
be above the last one in the file: it would order no more than what goes through this file, and would hide whether the
clocks do it. So lines come in the order of writing, and a reader sorts them by timestamp, then id.

``verify`` needs the log alone, and takes the arguments of ``append``: it compares with CLOCK_MONOTONIC, which all
processes of one machine have in common. To see it find something, append with ``--no-wait`` and segments that have
different bounds.
"""

import argparse
import fcntl
import sys
import time
from functools import partial
from itertools import permutations
from pathlib import Path

import anyio
from pydantic import BaseModel

from vmclock_async import Clock, VMClockError, open_clock


class Transaction(BaseModel):
    """A line of the log."""

    id: str
    timestamp_ns: int


class Receipt(BaseModel):
    """What the client knows of its transaction, by CLOCK_MONOTONIC; a line of the log's receipts."""

    id: str
    began_ns: int
    acknowledged_ns: int


def receipts_of(log: Path) -> Path:
    """Where they lie."""
    return log.with_name(log.name + ".receipts")


def write(path: Path, line: BaseModel) -> None:
    """Append *line* whole, whoever else writes there."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing ends it, once the line is written
        print(line.model_dump_json(), file=file)


async def commit(clock: Clock, log: Path, number: int, *, wait: bool) -> Receipt:
    """Write a transaction, and return once its timestamp is past.

    Raises:
        ClockError, SegmentError: it may have been written, but is not acknowledged.
    """
    began_ns = time.monotonic_ns()
    name = f"{clock.incarnation}/{number}"  # no other process has it, not even this one's clone
    transaction = Transaction(id=name, timestamp_ns=clock.now().latest_ns)
    write(log, transaction)
    if wait:
        await clock.wait_past(transaction.timestamp_ns)
    return Receipt(id=name, began_ns=began_ns, acknowledged_ns=time.monotonic_ns())


async def append(arguments: argparse.Namespace) -> None:
    """Commit one transaction after the other."""
    async with open_clock(arguments.segment, fence=arguments.fence) as clock:
        for number in range(arguments.count):
            await clock.wait_bounded()
            try:
                receipt = await commit(clock, arguments.log, number, wait=not arguments.no_wait)
            except VMClockError as exc:
                print(f"transaction {number} is not acknowledged: {exc}", file=sys.stderr)
            else:
                write(receipts_of(arguments.log), receipt)


def verify(log: Path) -> bool:
    """Whether the log is in order: each two transactions of which one ended before the other began are compared."""
    lines = [Transaction.model_validate_json(line) for line in log.read_text().splitlines()]
    timestamps = {line.id: line.timestamp_ns for line in lines}
    receipts = [Receipt.model_validate_json(line) for line in receipts_of(log).read_text().splitlines()]
    across = 0
    for first, then in permutations(receipts, 2):
        if first.acknowledged_ns < then.began_ns:
            across += first.id.split("/")[0] != then.id.split("/")[0]
            late_ns = timestamps[first.id] - timestamps[then.id]
            if late_ns >= 0:
                print(
                    f"out of order: {first.id} ended before {then.id} began, but is stamped {late_ns} ns later",
                    file=sys.stderr,
                )
                return False
    print(f"in order: {len(receipts)} transactions, {across} pairs of different processes")
    return True


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description="A log with commit-wait.")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("log", type=Path)
    shared.add_argument("segment", nargs="?", help="default: where the publisher puts it")
    shared.add_argument("--fence", default="auto", help="the device; default: /dev/vmclock0 where there is one")
    commands = parser.add_subparsers(dest="command", required=True)
    appending = commands.add_parser("append", parents=[shared], help="commit transactions")
    appending.add_argument("--count", type=int, default=20, help="so many")
    appending.add_argument("--no-wait", action="store_true", help="acknowledge at once, which is wrong")
    commands.add_parser("verify", parents=[shared], help="look whether they are in order; SEGMENT is not read")
    arguments = parser.parse_args()
    try:
        if arguments.command == "verify":
            sys.exit(0 if verify(arguments.log) else 1)
        else:
            anyio.run(partial(append, arguments))
    except (VMClockError, OSError) as exc:
        sys.exit(f"transaction_log: {exc}")


if __name__ == "__main__":
    main()
