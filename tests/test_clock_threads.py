"""One clock in several threads, and in the child of a fork."""

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from kit.readings import readings
from kit.told_world import World
from vmclock_async import Clock, SegmentError, SegmentUnstableError

RunScript = Callable[..., str]


def test_clock_goes_on_in_the_child_of_a_fork(world: World, run_script: RunScript) -> None:
    """Parent and child read on, each for itself, and closing one does not close the other."""
    output = run_script("fork_clock", world.path)
    assert output.split() == ["child", "True", "parent", "True"]


@pytest.mark.long
def test_threads_share_a_clock(world: World, clock: Clock) -> None:
    """Four threads read beside commits that change the marker: nothing but readings that contain the truth."""
    stop = threading.Event()
    problems: list[object] = []
    counts = [0] * 4

    def read(reader: int) -> None:
        while not stop.is_set():
            try:
                readings(clock)
                counts[reader] += 1
            except SegmentUnstableError:
                continue
            except BaseException as exc:
                problems.append(exc)
                raise

    threads = [threading.Thread(target=read, args=(reader,)) for reader in range(len(counts))]
    for thread in threads:
        thread.start()
    try:
        for commit in itertools.count():
            world.marker = commit // 3
            world.tell()
            time.sleep(0.001)
            if problems or (commit >= 60 and min(counts) >= 10):
                break
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert problems == []


def read_for_ever(clock: Clock) -> None:
    """Until it raises."""
    while True:
        clock.now()


def test_closing_beside_readers_in_other_threads_is_an_error_for_them(world: World) -> None:
    """They get SegmentError, never a signal."""
    for _ in range(20):
        clock = Clock(world.path, fence=world.device)

        def read(clock: Clock = clock) -> None:
            with pytest.raises(SegmentError, match="closed"):
                read_for_ever(clock)

        thread = threading.Thread(target=read)
        thread.start()
        clock.close()
        thread.join()
