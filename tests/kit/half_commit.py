"""Another process that is stopped, or killed, in the middle of a commit."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kit.told_world import World

StartScript = Callable[..., "subprocess.Popen[str]"]


HALF_WAY_SCRIPT = """
import mmap, struct, sys
with open(sys.argv[1], "r+b") as file:
    page = mmap.mmap(file.fileno(), 0)
    (seq_count,) = struct.unpack_from("<I", page, 12)
    struct.pack_into("<I", page, 12, seq_count | 1)
    print(seq_count | 1, flush=True)
    sys.stdin.readline()
    struct.pack_into("<I", page, 12, (seq_count | 1) + 1)
"""


@contextmanager
def half_way(world: World, start_script: StartScript, sent: signal.Signals) -> Iterator["subprocess.Popen[str]"]:
    """A process has begun a commit, and was sent *sent* then."""
    process = start_script(HALF_WAY_SCRIPT, world.path)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdecimal()
    process.send_signal(sent)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    yield process
