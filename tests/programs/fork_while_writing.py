"""Fork at moments of a writer's life, and print what the child has of the segment.

A fork's handlers are the same whichever thread forks, so a fork in the middle of an opening, from a trace function,
shows what one in another thread may meet at that moment.
"""

import json
import os
import sys
import threading
import warnings
from pathlib import Path
from types import FrameType
from typing import Any

from vmclock_async import SegmentWriter, VMClockBody, _core

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from 3.12 on
path = sys.argv[1]
STEPPED = tuple(f"/_segment/{name}.py" for name in ("boot", "directory", "file", "lock", "writer"))


def kept() -> bool:
    """Whether this process has the segment or its lock open, or mapped to be written."""
    for entry in os.scandir("/proc/self/fd"):
        try:
            if os.readlink(entry.path).startswith(path):
                return True
        except FileNotFoundError:
            pass  # the descriptor of this very listing
    return any(path in line and "rw-s" in line for line in Path("/proc/self/maps").read_text().splitlines())


def child_keeps() -> bool:
    """Whether a child that is forked now has the segment."""
    child = os.fork()
    if not child:
        os._exit(kept())
    return bool(os.waitpid(child, 0)[1])


def each_step() -> object:
    """The number of steps of opening and closing a writer, and after which of them a child has the segment."""
    places, steps = set(), 0

    def step(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal steps
        if not frame.f_code.co_filename.endswith(STEPPED):
            return None
        steps += 1
        if child_keeps():
            places.add(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}")
        return step

    def use() -> None:
        with SegmentWriter(path, size=112) as writer:
            sys.settrace(None)
            writer.write(VMClockBody(disruption_marker=1))
            sys.settrace(step)

    sys.settrace(step)
    use()
    sys.settrace(None)
    return steps, sorted(places)


def storm() -> object:
    """Whether writers were opened, whether a thread forked often enough meanwhile; how many children had one."""
    forks = holding = opened = 0
    over = threading.Event()

    def fork_on() -> None:
        nonlocal forks, holding
        while not over.is_set() or forks < 200:
            holding += child_keeps()
            forks += 1

    thread = threading.Thread(target=fork_on)
    thread.start()
    while forks < 200:
        with SegmentWriter(path, size=112) as writer:
            writer.write(VMClockBody(disruption_marker=1))
        opened += 1
    over.set()
    thread.join()
    return opened > 0, forks >= 200, holding


def blocked() -> object:
    """Whether a child has the file whose opening another thread waits for."""
    opening = threading.Event()
    os.mkfifo(path)
    found: list[bool] = []

    def close_soon() -> None:
        opening.wait()
        os.close(os.open(path, os.O_WRONLY))

    def fork_meanwhile() -> None:
        opening.set()
        found.append(child_keeps())

    threads = [threading.Thread(target=close_soon), threading.Thread(target=fork_meanwhile)]
    for thread in threads:
        thread.start()
    opening.wait()
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    fd = _core.open_private(directory, os.path.basename(path), os.O_RDONLY, 0)
    for thread in threads:
        thread.join()
    _core.close_private(fd)
    _core.close_private(fd)
    return found


print(json.dumps({"each step": each_step, "storm": storm, "blocked": blocked}[sys.argv[2]]()))
