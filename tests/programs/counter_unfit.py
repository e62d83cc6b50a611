"""Print why the counter is unfit for time."""

from vmclock_async.timebase import counter_unfit_because

print(counter_unfit_because())
