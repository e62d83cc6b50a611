"""Print a version 1 UUID from before new seeds, and one from after."""

import uuid

from vmclock_async.restore import reseed_python

print(uuid.uuid1())
reseed_python()
print(uuid.uuid1())
