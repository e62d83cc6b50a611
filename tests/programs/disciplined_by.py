"""Print what disciplines CLOCK_REALTIME, with the processes of the directory given."""

import sys
from pathlib import Path

from vmclock_async._restoring.daemons import disciplined_by

print(disciplined_by(Path(sys.argv[1])))
