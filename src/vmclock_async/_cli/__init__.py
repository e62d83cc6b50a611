"""The command line: ``vmclock-async``.

Results go to stdout, as JSON with ``--json``; messages about them go to stderr. A failure is one line that names what
was seen and the remedy, and a traceback only with ``--debug``; with ``--json`` it is an object on stdout as well.
"""

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper

from vmclock_async._cli.exit_status import ExitStatus

__all__ = ("main", "script")


def script() -> int:
    """The program ``vmclock-async``: ``main``, and the end of the process.

    After ``now``, which a health check may run every second, the process ends at once: taking the interpreter apart
    would cost a fifth of the command's processor time, and ``now`` leaves nothing behind.
    """
    status = main()
    if sys.argv[1:2] == ["now"]:
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # there is none, or nobody reads it any more
                stream.flush()
        os._exit(status)
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with *argv* (without the program's name); return the exit status."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    _occupy_standard_descriptors()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # under an ASCII locale characters are lost, but not the result
            stream.reconfigure(errors="backslashreplace")
    try:
        from vmclock_async._cli.app import run

        return run(arguments)
    except KeyboardInterrupt:
        return ExitStatus.INTERRUPTED
    except ModuleNotFoundError as exc:
        if exc.name not in ("pydantic_settings", "rich", "tomlkit", "typer"):
            raise
        reason = f"the command line needs {exc.name}"
        remedy = "install it with: pip install 'vmclock-async[cli]'"
        # Without rich there is no console.
        print(f"vmclock-async: {reason}; {remedy}", file=sys.stderr)  # noqa: T201
        if "--json" in arguments:
            failure = {"bounded": False, "error": type(exc).__name__, "reason": reason, "remedy": remedy}
            print(json.dumps(failure))  # noqa: T201
        return ExitStatus.FAILED


def _occupy_standard_descriptors() -> None:
    """Keep segments and sockets off the numbers 0, 1 and 2, where the system, libraries and children write."""
    with suppress(OSError):
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(fd, True)
        os.close(fd)
