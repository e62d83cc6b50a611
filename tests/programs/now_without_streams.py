"""Run the command `now` without standard streams, and write down what has their numbers."""

import os
import sys
from pathlib import Path

from vmclock_async._cli import main

main(["now", sys.argv[1]])
Path(sys.argv[2]).write_text(" ".join(os.readlink(f"/proc/self/fd/{number}") for number in range(3)))
