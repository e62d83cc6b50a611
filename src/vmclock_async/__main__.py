"""``python -m vmclock_async``."""

import sys

from vmclock_async._cli import script

sys.exit(script())
