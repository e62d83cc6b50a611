"""The command line on a pseudo-terminal."""

import os
import pty
import signal
import subprocess

from kit import signals
from kit.commands import command


def run_on_terminal(
    *args: object, until: str | None = None, columns: int = 100, term: str = "xterm"
) -> tuple[int, str]:
    """Run the command line on a pseudo-terminal to its end: the exit status and all that it drew.

    Once it has drawn *until*, it gets a Ctrl-C.
    """
    parent, child = pty.openpty()
    process = subprocess.Popen(
        command(*args),
        stdin=child,
        stdout=child,
        stderr=child,
        env=os.environ | {"TERM": term, "COLUMNS": str(columns)},
        preexec_fn=signals.at_default,
    )
    os.close(child)
    drawn = b""
    try:
        while chunk := read(parent):
            drawn += chunk
            if until is not None and until.encode() in drawn:
                process.send_signal(signal.SIGINT)
                until = None
        return process.wait(30), drawn.decode(errors="replace")
    finally:
        process.kill()
        process.wait()
        os.close(parent)


def read(terminal: int) -> bytes:
    """What is drawn next on *terminal*, nothing once it is closed."""
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO: the last process on it has ended
        return b""
