"""The bounds of ``publish chrony`` and of ``publish ntp`` side by side, over one server on loopback.

    PYTHONPATH=tests python benchmarks/bench_bound.py [--seconds 120]

This starts a chronyd that serves the system's clock, and one that follows it with polls of 16 s, as the source ntp
asks; both leave the clock alone. Needs chronyd. A line for each source: half-widths of readings ten times a second,
after a minute in which chronyd and the source settle.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time

from kit.chronyd import Chronyd, free_port
from vmclock_async import Clock


def main() -> None:
    """Print a line for each source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--settle", type=float, default=60.0)
    arguments = parser.parse_args()
    port = free_port()
    client = Chronyd(
        f"server 127.0.0.1 port {port} iburst minpoll 4 maxpoll 4",
        "port 0",
        "cmdport 0",
        "bindcmdaddress 127.0.0.1",
    )
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, Chronyd.server(port), client:
        commands = {
            "chrony": ["chrony", "--set", f"chrony.address={client.socket}"],
            "ntp": ["ntp", "--set", f"ntp.servers=127.0.0.1:{port}"],
        }
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "vmclock_async", "publish", *command, "--segment", f"{directory}/{name}"],
                stderr=subprocess.DEVNULL,
            )
            for name, command in commands.items()
        ]
        try:
            time.sleep(arguments.settle)
            print(f"measuring for {arguments.seconds:g} s", file=sys.stderr)
            half_widths_ns: dict[str, list[int]] = {name: [] for name in commands}
            clocks = {name: Clock(f"{directory}/{name}", fence=None) for name in commands}
            end = time.monotonic() + arguments.seconds
            while time.monotonic() < end:
                for name, clock in clocks.items():
                    half_widths_ns[name].append(clock.now().error_ns)
                time.sleep(0.1)
            for name, found in half_widths_ns.items():
                least, most = min(found) / 1000, max(found) / 1000
                print(
                    f"publish {name}: median {statistics.median(found) / 1000:.0f} us ({least:.0f} to {most:.0f})"
                )
            for clock in clocks.values():
                clock.close()
        finally:
            for process in running:
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
