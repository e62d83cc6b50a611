"""Latency from a commit to the new snapshot in another process: the distribution, not a mean.

    python benchmarks/bench_wakeup.py [--commits 1000] [--rate 100 1000] [--let-idle]

The writer puts CLOCK_MONOTONIC into the body before it builds and commits the body. The reader waits with
``wait_changed`` on asyncio and takes the difference once it has the snapshot.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time

import anyio
import awake

from vmclock_async import SegmentReader, SegmentWriter, VMClockBody


async def follow(path: str) -> None:
    """Print the latency of each commit that is seen, nanoseconds, until a marker says that it was the last."""
    latencies = []
    with SegmentReader(path) as reader:
        snapshot = reader.snapshot()
        print("ready", flush=True)
        while not snapshot.body.disruption_marker:
            snapshot = await reader.wait_changed(snapshot)
            latencies.append(time.monotonic_ns() - snapshot.body.time_frac_sec)
        assert reader.statistics().watching
    print(*latencies)


def measure(commits: int, rate: float) -> list[int]:
    """Commit *commits* times, *rate* a second, and return what the reader in another process measured."""
    directory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=directory) as folder, SegmentWriter(f"{folder}/shm0") as writer:
        writer.write(VMClockBody())
        with subprocess.Popen(
            [sys.executable, __file__, "--follow", writer.path],
            stdout=subprocess.PIPE,
            text=True,
        ) as reader:
            assert reader.stdout is not None
            reader.stdout.readline()
            for left in reversed(range(commits)):
                time.sleep(1 / rate)
                writer.write(VMClockBody(time_frac_sec=time.monotonic_ns(), disruption_marker=int(left == 0)))
            return sorted(int(word) for word in reader.stdout.readline().split())


def main() -> None:
    """Measure and print the percentiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=1000)
    parser.add_argument("--rate", type=float, nargs="+", default=[100.0, 1000.0], help="commits a second")
    awake.add_argument(parser)
    parser.add_argument("--follow", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.follow:
        anyio.run(follow, options.follow)
        return
    with awake.kept(let_idle=options.let_idle):
        for rate in options.rate:
            latencies = measure(options.commits, rate)
            for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("max", 1.0)):
                at = min(int(share * len(latencies)), len(latencies) - 1)
                print(f"wake-up across processes, {rate:g} commits/s, {name}: {latencies[at] / 1000:.1f} us")


if __name__ == "__main__":
    main()
