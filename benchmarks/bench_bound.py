"""The bounds of the sources chrony, ntp and clockbound side by side, over one server on loopback.

    PYTHONPATH=tests python benchmarks/bench_bound.py [--seconds 120]

This starts a chronyd that serves the system's clock, and one that follows it with polls of 16 s, as the source ntp
asks; both leave the clock alone. ``follow`` keeps ClockBound's segment by that of chrony. Needs chronyd. A line for
each source: half-widths of readings ten times a second, after a minute in which chronyd and the sources settle.
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
            name: ["publish", name, "--set", option, "--segment", f"{directory}/{name}"]
            for name, option in {
                "chrony": f"chrony.address={client.socket}",
                "ntp": f"ntp.servers=127.0.0.1:{port}",
                "clockbound": f"clockbound.path={directory}/cb/shm0",
            }.items()
        }
        # Nobody slews the clock here. Without the option, what clients read grows by a tenth of the time.
        follow = ["follow", "--max-slew", "500", "--clockbound", f"{directory}/cb", f"{directory}/chrony"]
        running = [
            subprocess.Popen([sys.executable, "-m", "vmclock_async", *command], stderr=subprocess.DEVNULL)
            for command in (*commands.values(), follow)
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
