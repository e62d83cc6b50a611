"""The cost of a publisher at one update a second: processor time and memory, measured over a minute.

    PYTHONPATH=tests python benchmarks/bench_publisher.py [--seconds 60]

This starts two chronyds that leave the system's clock alone. ``publish chrony`` follows one of them,
``publish ntp`` asks the other, and ``publish kernel`` has the kernel's clock. Needs chronyd.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from kit.chronyd import Chronyd, free_port

SETTLE_S: Final = 10
TICKS: Final = os.sysconf("SC_CLK_TCK")


def used_s(pid: int) -> float:
    """Processor time of *pid*, user and system, seconds (proc(5): utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mib(pid: int) -> float:
    """The most memory that *pid* has had resident (proc(5): VmHWM)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    """Print a line for each source."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds: float = parser.parse_args().seconds
    port = free_port()
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as directory,
        Chronyd.server(port),
        Chronyd.client(port) as client,
    ):
        commands = {
            "chrony": ["chrony", "--set", f"chrony.address={client.socket}"],
            "kernel": ["kernel", "--set", "kernel.assumed_error=0.01"],
            "ntp": ["ntp", "--set", f"ntp.servers=127.0.0.1:{port}"],
        }
        running = {
            name: subprocess.Popen(
                [sys.executable, "-m", "vmclock_async", "publish", *command, "--segment", f"{directory}/{name}"],
                stderr=subprocess.DEVNULL,
            )
            for name, command in commands.items()
        }
        try:
            time.sleep(SETTLE_S)
            before = {name: used_s(process.pid) for name, process in running.items()}
            print(f"measuring for {seconds:g} s", file=sys.stderr)
            time.sleep(seconds)
            for name, process in running.items():
                core = (used_s(process.pid) - before[name]) / seconds
                print(f"publish {name}: {core:.2%} of a core, {peak_mib(process.pid):.0f} MiB")
        finally:
            for process in running.values():
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()
