"""The seqlock between processes: no torn body, and no seq_count that goes back, whatever happens to the writer.

Every body follows from one number, so that a body mixed of two shows. Readers report what they saw as JSON; a
reader that dies of a signal (SIGBUS, should a file ever be cut short under its mapping) fails by its exit code.

VMCLOCK_ASYNC_STRESS_SECONDS sets how long each test runs.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.forks import Started

SECONDS = float(os.environ.get("VMCLOCK_ASYNC_STRESS_SECONDS", "1"))

pytestmark = pytest.mark.timeout(60 + 5 * SECONDS)

MakePage = Callable[..., bytes]
StartScript = Callable[..., Started]


def go(process: Started) -> None:
    """Tell *process*, which is ready, to begin."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_readers_beside_a_writer_at_full_speed_see_whole_bodies(
    start_script: StartScript, segment_path: Path, make_page: MakePage
) -> None:
    """Four readers and a writer that never rests, across the wrap of seq_count: nothing torn, nothing backward."""
    segment_path.write_bytes(make_page(seq_count=0xFFFFF000))
    readers = [start_script("read_at_full_speed", segment_path, SECONDS, how) for how in ("bytes", "snapshot") * 2]
    writer = start_script("write_at_full_speed", segment_path)
    processes = [*readers, writer]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        go(process)
    outputs = [process.communicate()[0] for process in processes]  # the writer last: it goes on for the readers
    assert [process.returncode for process in processes] == [0] * len(processes)
    for output in outputs[:-1]:
        seen = json.loads(output)
        assert seen["torn"] == 0, seen
        assert seen["backward"] == 0, seen


# Readers that live through everything that can happen to a segment.


def test_readers_live_through_every_start_of_a_writer(start_script: StartScript, segment_path: Path) -> None:
    """Writers killed at any moment, every row of starting one: readers neither die nor see a false body."""
    ways = ("stay", "open-again", "wait")
    readers = [start_script("read_through_upheaval", segment_path, how) for how in ways]
    for reader in readers:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
    enough = [f"{segment_path}.{how}" for how in ways]
    upheaval = start_script("upheaval", segment_path, SECONDS, os.getpid(), *enough)
    output, _ = upheaval.communicate()
    assert upheaval.returncode == 0, f"seed {os.getpid()}: {output}"
    assert len(json.loads(output)) == 22
    outputs = [reader.communicate()[0] for reader in readers]
    assert [reader.returncode for reader in readers] == [0] * len(readers)
    for found in outputs:
        seen = json.loads(found)
        assert seen["problems"] == [], seen
