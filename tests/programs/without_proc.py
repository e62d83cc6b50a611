"""Run the command line where nothing under /proc can be opened."""

import sys


def refuse(event: str, args: tuple[object, ...]) -> None:
    if event == "open" and str(args[0]).startswith("/proc/"):
        raise FileNotFoundError(2, "No such file or directory", args[0])


sys.addaudithook(refuse)
from vmclock_async._cli.app import run

sys.exit(run(sys.argv[1:]))
