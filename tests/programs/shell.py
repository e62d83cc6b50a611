"""Run a command as a job, in front or behind, on a terminal whose session this process leads, as a shell does."""

import fcntl
import subprocess
import sys
import termios

fcntl.ioctl(0, termios.TIOCSCTTY, 0)
job = subprocess.Popen(sys.argv[2:], process_group=0 if sys.argv[1] == "behind" else None)
sys.exit(job.wait())
