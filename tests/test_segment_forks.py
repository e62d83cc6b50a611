"""A child that is forked while a writer opens or closes keeps nothing of it, in whichever thread the fork happens.

A child that keeps the lock's descriptor keeps the lock for as long as it lives: the next publisher would be refused.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

RunScript = Callable[..., str]

# What both scripts begin with. A fork's handlers are the same whichever thread forks, so a fork in the middle of an
# opening, from a trace function, shows what one in another thread may meet at that moment.
BEGIN = """
import json, os, sys, threading, warnings
from pathlib import Path
from vmclock_async import SegmentWriter, VMClockBody

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads, from 3.12 on
path = sys.argv[1]

def kept():
    "Whether this process has the segment or its lock open, or mapped to be written."
    for entry in os.scandir("/proc/self/fd"):
        try:
            if os.readlink(entry.path).startswith(path):
                return True
        except FileNotFoundError:
            pass  # the descriptor of this very listing
    return any(path in line and "rw-s" in line for line in Path("/proc/self/maps").read_text().splitlines())
"""

EACH_STEP = """
places, steps = set(), 0

STEPPED = tuple(f"/_segment/{name}.py" for name in ("boot", "directory", "file", "lock", "writer"))

def step(frame, event, argument):
    global steps
    if not frame.f_code.co_filename.endswith(STEPPED):
        return None
    steps += 1
    child = os.fork()
    if not child:
        os._exit(kept())
    if os.waitpid(child, 0)[1]:
        places.add(f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno}")
    return step

def use():
    with SegmentWriter(path, size=112) as writer:
        sys.settrace(None)
        writer.write(VMClockBody(disruption_marker=1))
        sys.settrace(step)

sys.settrace(step)
use()
sys.settrace(None)
print(json.dumps([steps, sorted(places)]))
"""


@pytest.mark.parametrize("there", [False, True], ids=["new", "warm"])
def test_a_fork_at_any_step_of_opening_and_closing_keeps_nothing(
    run_script: RunScript, segment_path: Path, make_page: Callable[..., bytes], there: bool
) -> None:
    """At each line of the opening and the closing, no descriptor of segment or lock is open in the child."""
    if there:
        segment_path.write_bytes(make_page(size=112, body=bytes(96)))
        segment_path.chmod(0o644)
    steps, places = json.loads(run_script(BEGIN + EACH_STEP, segment_path))
    assert steps > 100
    assert places == []


STORM = """
forks = holding = 0
over = threading.Event()

def fork_on():
    global forks, holding
    while not over.is_set() or forks < 200:
        child = os.fork()
        if not child:
            os._exit(kept())
        holding += bool(os.waitpid(child, 0)[1])
        forks += 1

storm = threading.Thread(target=fork_on)
storm.start()
opened = 0
while forks < 200:
    with SegmentWriter(path, size=112) as writer:
        writer.write(VMClockBody(disruption_marker=1))
    opened += 1
over.set()
storm.join()
print(json.dumps([opened > 0, forks >= 200, holding]))
"""


def test_forks_in_another_thread_keep_nothing(run_script: RunScript, segment_path: Path) -> None:
    """While one thread opens, writes and closes, 200 children of another have none of it."""
    assert json.loads(run_script(BEGIN + STORM, segment_path)) == [True, True, 0]


BLOCKED = """
opening, opened = threading.Event(), threading.Event()
os.mkfifo(path)

def close_soon():
    opening.wait()
    os.close(os.open(path, os.O_WRONLY))

def fork_meanwhile():
    opening.set()
    child = os.fork()
    if not child:
        os._exit(kept())
    statuses.append(os.waitpid(child, 0)[1])

from vmclock_async import _core
statuses = []
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
print(statuses)
"""


def test_an_opening_that_takes_long_and_a_fork_do_not_lock_each_other(
    run_script: RunScript, segment_path: Path
) -> None:
    """The opener waits without the GIL, and the fork waits for it, or goes first; either way the child has nothing."""
    assert run_script(BEGIN + BLOCKED, segment_path) == "[0]\n"
