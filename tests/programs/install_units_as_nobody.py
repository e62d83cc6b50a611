"""The command line with these arguments, as a user who may write nowhere in /etc."""

import sys

from nobody import become_nobody
from vmclock_async._cli import install_units, main

assert install_units
become_nobody()
sys.exit(main(sys.argv[1:]))
