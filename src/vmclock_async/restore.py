"""What a program does about a restore of its machine from a snapshot.

* ``reseed_python`` gives new seeds to the random generators that clones share.
* ``step_system_clock`` sets CLOCK_REALTIME, which after a restore is that of the snapshot.
"""

from vmclock_async._restoring.reseeding import register_reseed, reseed_python
from vmclock_async._restoring.system_clock import SystemClockStep, step_system_clock

__all__ = ("SystemClockStep", "register_reseed", "reseed_python", "step_system_clock")

for _name in __all__:
    globals()[_name].__module__ = __name__
