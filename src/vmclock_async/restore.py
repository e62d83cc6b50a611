"""What a program does about a restore of its machine from a snapshot.

* ``reseed_python`` gives new seeds to the random generators that clones share.
* ``register_before_snapshot`` and ``register_after_restore`` register callbacks, and ``callbacks`` runs them.
* ``Periodic`` and ``sleep_until`` are timers by UTC, which neither burst after a restore nor sleep on through one.
* ``step_system_clock`` sets CLOCK_REALTIME, which after a restore is that of the snapshot.
"""

from vmclock_async._restoring.callbacks import callbacks, register_after_restore, register_before_snapshot
from vmclock_async._restoring.periodic import Periodic, Tick, sleep_until
from vmclock_async._restoring.reseeding import register_reseed, reseed_python
from vmclock_async._restoring.system_clock import SystemClockStep, step_system_clock

__all__ = (
    "Periodic",
    "SystemClockStep",
    "Tick",
    "callbacks",
    "register_after_restore",
    "register_before_snapshot",
    "register_reseed",
    "reseed_python",
    "sleep_until",
    "step_system_clock",
)

for _name in __all__:
    globals()[_name].__module__ = __name__
