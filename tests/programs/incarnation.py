"""Print the incarnation of this process."""

import sys

from vmclock_async import Clock

with Clock(sys.argv[1], fence=None) as clock:
    print(clock.incarnation)
