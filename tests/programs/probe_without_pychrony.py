"""Ask whether chronyd is there, without pychrony."""

import sys

sys.modules["pychrony"] = None  # type: ignore[assignment]
from vmclock_async import SourceError
from vmclock_chrony import ChronySettings, ChronySource

try:
    ChronySource(ChronySettings()).probe()
except SourceError as error:
    print(type(error).__name__, error)
