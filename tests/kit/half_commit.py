"""Another process that is stopped, or killed, in the middle of a commit."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kit.forks import Started
from kit.told_world import World

StartScript = Callable[..., Started]


@contextmanager
def half_way(world: World, start_script: StartScript, sent: signal.Signals) -> Iterator[Started]:
    """A process has begun a commit, and was sent *sent* then."""
    process = start_script("half_commit", world.path, own_interpreter=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip().isdecimal()
    process.send_signal(sent)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    yield process
