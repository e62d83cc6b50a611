"""``clock.now()`` in ``time.time_ns()``s, the two timed in turn: a slow moment of the machine slows both.

    python benchmarks/bench_now.py [--processes 5]

Where pyperf times one after the other (``bench_clock.py``), a slow minute is in one of them alone. Each process places
code and objects elsewhere, which alone makes a difference of a hundredth.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median
from timeit import Timer

from bench_clock import clocks

_STATEMENTS = {
    "time.time_ns()": "time.time_ns()",
    "clock.now(), unfenced": "unfenced.now()",
    "clock.now(), fenced": "fenced.now()",
}
_TURNS, _CALLS = 250, 20_000


def measure() -> dict[str, float]:
    """The medians over all turns: nanoseconds for the first; for the others, their ratio to it in the same turn."""
    with clocks() as (unfenced, fenced):
        names = {"time": time, "unfenced": unfenced, "fenced": fenced}
        timers = [Timer(statement, globals=names) for statement in _STATEMENTS.values()]
        turns = [[timer.timeit(_CALLS) for timer in timers] for _ in range(_TURNS)]
    unit_ns = median(turn[0] for turn in turns) / _CALLS * 1e9
    ratios = [median(turn[i] / turn[0] for turn in turns) for i in range(1, len(timers))]
    return dict(zip(_STATEMENTS, [unit_ns, *ratios], strict=True))


def main() -> None:
    """Measure in several processes, and print the medians and the ranges."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=5)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        print(json.dumps(measure()))
        return
    command = [sys.executable, __file__, "--here"]
    found = [json.loads(subprocess.check_output(command)) for _ in range(options.processes)]
    for name in _STATEMENTS:
        values = [each[name] for each in found]
        unit = "ns" if name == "time.time_ns()" else "time.time_ns()"
        print(f"{name:22s} {median(values):6.3f} {unit}  ({min(values):.3f} to {max(values):.3f})", flush=True)


if __name__ == "__main__":
    main()
