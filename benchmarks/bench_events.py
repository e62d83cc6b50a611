"""Latency from a commit to the event in other processes, and the cost of waiting readers to the writer.

    python benchmarks/bench_events.py [--commits 300] [--rate 100] [--readers 0 1 100] [--rounds 1] [--let-idle]

Each commit moves the disruption marker. Each reader is a separate process that notes CLOCK_MONOTONIC once
``events.receive()`` has returned, on asyncio. A latency begins at the call of ``write()``. With more readers than
processors most of them wait for one another: the figures include that.

Two yardsticks run under the same conditions: a process that only calls read() on an inotify descriptor, and one that
waits for it by ``anyio.wait_readable()``, as a program on anyio would. Both look at the marker, and at nothing else.
Rounds go through all of them in turn. A machine that others use too varies in speed: compare figures of one round.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

import anyio
import awake
from inotify_simple import INotify, flags

from vmclock_async import SegmentReader, SegmentWriter, VMClockBody, open_clock
from vmclock_async.events import Disrupted

_LAST = 2**63


class Run(NamedTuple):
    """The results of one run, nanoseconds."""

    latencies: list[int]
    costs: list[int]
    """The cost of each ``write()``."""


async def follow_events(path: str, note: Callable[[int], bool]) -> None:
    """Wait by events."""
    async with open_clock(path, fence=None) as clock, clock.events() as events:
        with anyio.move_on_after(0.2):
            await events.receive()  # the watch is set up meanwhile
        print("ready", flush=True)
        while True:
            event = await events.receive()
            if isinstance(event, Disrupted) and note(event.marker_after):
                return


async def follow_readable(path: str, note: Callable[[int], bool]) -> None:
    """Wait with anyio, and use only a load from the page of this package."""
    with SegmentReader(path) as reader, INotify(nonblocking=True) as inotify:
        inotify.add_watch(path, flags.ATTRIB)
        print("ready", flush=True)
        while True:
            await anyio.wait_readable(inotify)
            os.read(inotify.fileno(), 4096)
            if note(reader.disruption_marker):
                return


async def follow_read(path: str, note: Callable[[int], bool]) -> None:
    """Wait without an event loop."""
    with SegmentReader(path) as reader, INotify() as inotify:
        inotify.add_watch(path, flags.ATTRIB)
        print("ready", flush=True)
        while True:
            os.read(inotify.fileno(), 4096)
            if note(reader.disruption_marker):
                return


FOLLOWERS = {"a bare read()": follow_read, "anyio.wait_readable()": follow_readable, "the event": follow_events}


def follow(how: str, path: str) -> None:
    """Print when each marker was seen, until a marker says that it was the last."""
    seen: dict[int, int] = {}

    def note(marker: int) -> bool:
        seen.setdefault(marker, time.monotonic_ns())
        return marker >= _LAST

    anyio.run(FOLLOWERS[how], path, note)
    for marker, when_ns in seen.items():
        print(marker, when_ns)


def measure(how: str, readers: int, commits: int, rate: float) -> Run:
    """Commit for *readers* that follow in the way *how*."""
    directory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(dir=directory) as folder,
        SegmentWriter(f"{folder}/shm0") as writer,
        ExitStack() as stack,
    ):
        writer.write(VMClockBody())
        command = [sys.executable, __file__, "--follow", how, writer.path]
        processes = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            for _ in range(readers)
        ]
        for process in processes:
            stack.callback(process.terminate)  # in case this fails before they have seen the last marker
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        sent, costs, started = {}, [], time.monotonic()
        for number in range(1, commits + 1):
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
            marker = number if number < commits else _LAST
            body = VMClockBody(disruption_marker=marker)
            sent[marker] = time.monotonic_ns()
            writer.write(body)
            costs.append(time.monotonic_ns() - sent[marker])
        latencies = []
        for process in processes:
            for line in process.communicate()[0].splitlines():
                marker, when_ns = map(int, line.split())
                if marker:  # otherwise it was there before
                    latencies.append(when_ns - sent[marker])
    return Run(latencies, costs)


def percentiles(values: list[int]) -> str:
    """The median and the 99th percentile, microseconds."""
    ordered = sorted(values)
    return ", ".join(
        f"{name} {ordered[min(int(share * len(ordered)), len(ordered) - 1)] / 1000:.1f} us"
        for name, share in (("p50", 0.5), ("p99", 0.99))
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=300, help="in a round")
    parser.add_argument("--rate", type=float, default=100.0, help="commits a second")
    parser.add_argument("--readers", type=int, nargs="+", default=[0, 1, 100])
    parser.add_argument("--rounds", type=int, default=1)
    awake.add_argument(parser)
    parser.add_argument("--follow", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.follow:
        follow(*options.follow)
        return
    if min(options.commits, options.rate, options.rounds) <= 0:
        parser.error("--commits, --rate and --rounds are more than 0")
    wanted = [(how, 1) for how in FOLLOWERS if how != "the event"]
    wanted += [("the event", readers) for readers in options.readers]
    runs: dict[tuple[str, int], list[Run]] = {each: [] for each in wanted}
    with awake.kept(let_idle=options.let_idle):
        for number in range(1, options.rounds + 1):
            for how, readers in wanted:
                run = measure(how, readers, options.commits, options.rate)
                runs[how, readers].append(run)
                if options.rounds > 1 and readers:
                    print(f"round {number}, {readers} reading, to {how}: {percentiles(run.latencies)}", flush=True)
    for (how, readers), several in runs.items():
        latencies = [latency for run in several for latency in run.latencies]
        costs = [cost for run in several for cost in run.costs]
        print(f"{readers} reading by {how}: write(): {percentiles(costs)}")
        if readers:
            seen = len(latencies) / readers / len(costs)
            print(f"{readers} reading, from write() to {how}: {percentiles(latencies)}; {seen:.0%} of the commits")


if __name__ == "__main__":
    main()
