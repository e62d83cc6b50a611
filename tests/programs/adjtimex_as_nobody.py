"""Print the kernel's clock state as a user without privileges reads it."""

import json

from nobody import become_nobody
from vmclock_async.timebase import adjtimex

become_nobody()
print(json.dumps(adjtimex()._asdict()))
