"""Print the kernel's clock state."""

import json

from vmclock_async.timebase import adjtimex

timex = adjtimex()
print(json.dumps(timex._asdict() | {"unsynchronized": timex.unsynchronized}))
