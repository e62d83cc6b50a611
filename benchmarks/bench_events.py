"""From a commit to the event in other processes, and what readers that wait cost the writer.

    python benchmarks/bench_events.py [--commits 300] [--rate 100] [--readers 0 1 100]

Each commit moves the disruption marker, and has CLOCK_MONOTONIC of just before it in its body; each reader is a
process of its own that takes the difference once ``events.receive()`` has returned, on asyncio. With more readers than
processors most of them wait for one another: that is measured, too.

First comes a yardstick, under the same conditions: a process that does nothing but read() an inotify descriptor,
and the page. Where that takes twice as long as it does elsewhere, so does all the rest: at 100 a second every step
finds cold caches, and how cold is up to the host.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack

import anyio
from inotify_simple import INotify, flags

from vmclock_async import SegmentReader, SegmentWriter, VMClockBody, open_clock
from vmclock_async.events import Disrupted

_LAST = 2**63


async def follow(path: str) -> None:
    """Print how long each event took, nanoseconds, until a marker says that it was the last."""
    latencies = []
    async with open_clock(path, fence=None) as clock, clock.events() as events:
        with anyio.move_on_after(0.2):
            await events.receive()  # the watch is set up meanwhile
        print("ready", flush=True)
        while True:
            event = await events.receive()
            if not isinstance(event, Disrupted):
                continue
            latencies.append(time.monotonic_ns() - event.snapshot.body.time_frac_sec)
            if event.marker_after >= _LAST:
                break
    print(*latencies, flush=True)


def follow_plainly(path: str) -> None:
    """The same without a loop, an event or a clock."""
    latencies = []
    with SegmentReader(path) as reader, INotify() as inotify:
        inotify.add_watch(path, flags.ATTRIB)
        print("ready", flush=True)
        while True:
            os.read(inotify.fileno(), 65536)
            now_ns, body = time.monotonic_ns(), reader.snapshot().body
            latencies.append(now_ns - body.time_frac_sec)
            if body.disruption_marker >= _LAST:
                break
    print(*latencies, flush=True)


def measure(readers: int, commits: int, rate: float, how: str = "--follow") -> tuple[list[int], list[int]]:
    """Sorted: what all readers measured, and how long each commit took; nanoseconds."""
    directory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(dir=directory) as folder,
        SegmentWriter(f"{folder}/shm0") as writer,
        ExitStack() as stack,
    ):
        writer.write(VMClockBody())
        command = [sys.executable, __file__, how, writer.path]
        processes = [
            stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            for _ in range(readers)
        ]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        costs, started = [], time.monotonic()
        for number in range(1, commits + 1):
            time.sleep(max(0.0, started + number / rate - time.monotonic()))
            marker = number if number < commits else _LAST
            body = VMClockBody(time_frac_sec=time.monotonic_ns(), disruption_marker=marker)
            before = time.perf_counter_ns()
            writer.write(body)
            costs.append(time.perf_counter_ns() - before)
        latencies = [
            int(word)
            for process in processes
            for word in ((process.stdout and process.stdout.read()) or "").split()
        ]
    return sorted(latencies), sorted(costs)


def say(what: str, values: list[int]) -> None:
    """Print the percentiles of *values*."""
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        print(f"{what}, {name}: {values[min(int(share * len(values)), len(values) - 1)] / 1000:.1f} us")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=300)
    parser.add_argument("--rate", type=float, default=100.0, help="commits a second")
    parser.add_argument("--readers", type=int, nargs="+", default=[0, 1, 100])
    parser.add_argument("--follow", help=argparse.SUPPRESS)
    parser.add_argument("--follow-plainly", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.follow:
        anyio.run(follow, options.follow)
        return
    if options.follow_plainly:
        follow_plainly(options.follow_plainly)
        return
    say("a commit: to a bare read()", measure(1, options.commits, options.rate, "--follow-plainly")[0])
    for readers in options.readers:
        latencies, costs = measure(readers, options.commits, options.rate)
        say(f"a commit at {options.rate:g}/s, {readers} readers: write()", costs)
        if readers:
            seen = len(latencies) / readers / options.commits
            say(f"a commit at {options.rate:g}/s, {readers} readers: to the event", latencies)
            print(f"a commit at {options.rate:g}/s, {readers} readers: {seen:.0%} of the commits were events")


if __name__ == "__main__":
    main()
