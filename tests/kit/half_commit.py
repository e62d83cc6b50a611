"""Another process that is stopped, or killed, in the middle of a commit."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kit.told_world import World

StartScript = Callable[..., "subprocess.Popen[str]"]


@contextmanager
def half_way(world: World, start_script: StartScript, sent: signal.Signals) -> Iterator["subprocess.Popen[str]"]:
    """A process has begun a commit, and was sent *sent* then."""
    process = start_script("half_commit", world.path)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdecimal()
    process.send_signal(sent)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    yield process
