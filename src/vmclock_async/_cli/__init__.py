"""The command line: ``vmclock-async``.

Results go to stdout, as JSON with ``--json``; what is said about them goes to stderr. Exit status: 0 done,
1 failed, 2 wrong usage, 130 interrupted. A failure is one line that names what was seen and the remedy, never a
traceback.
"""

import sys
from collections.abc import Sequence

__all__ = ("main",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line with *argv* (without the program's name); return the exit status."""
    try:
        from vmclock_async._cli.app import run

        return run(sys.argv[1:] if argv is None else list(argv))
    except KeyboardInterrupt:
        return 130
    except ModuleNotFoundError as exc:
        if exc.name not in ("platformdirs", "rich", "typer"):
            raise
        print(  # noqa: T201  # there is no console without rich
            f"vmclock-async: the command line needs {exc.name}; install it with: pip install 'vmclock-async[cli]'",
            file=sys.stderr,
        )
        return 1
