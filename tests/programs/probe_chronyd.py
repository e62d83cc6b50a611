"""Ask as nobody whether chronyd is there."""

import sys

import pychrony  # noqa: F401  while it may be read

from nobody import become_nobody
from vmclock_async import SourceUnavailableError
from vmclock_chrony import ChronySettings, ChronySource

source = ChronySource(ChronySettings(address=sys.argv[1]))
become_nobody()
try:
    source.probe()
except SourceUnavailableError as error:
    print(error)
