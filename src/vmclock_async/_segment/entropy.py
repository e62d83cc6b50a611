"""A draw that two clones of a machine do not share, whatever the kernel's random source does.

Two machines that are restored from one snapshot have the same state of the kernel's random source, until the kernel
seeds it again. So a draw is a hash over several ingredients, and one that differs is enough:

* ``kernel`` keeps any two draws apart, and clones too once the kernel has seeded its source again. With the
  hypervisor's vmgenid device, Linux 5.18 and later does that some milliseconds after the restore. Without that device
  it does so about once a minute, from what it has gathered until then.
* ``processor`` keeps clones apart at once, without a device, because the generator is no part of a snapshot. It takes
  RDRAND (x86) or RNDR (Arm), and a hypervisor that shows it to the guest and does not replay it.
* ``counter`` keeps clones apart that draw at different moments after the restore. Both counters may go on from the
  snapshot's value, so a difference is likely and not certain: if a thousand clones at 3 GHz draw at random moments
  within one millisecond, two of them have the same value in one case of six.
* ``realtime_ns`` is as good as the counter, and there where the counter is forbidden. It also keeps clones apart that
  were restored at different times, if CLOCK_REALTIME was set before the draw.
* ``pid`` keeps two processes of one machine apart that draw at the same moment.
* ``generation`` keeps the lives before and after a restore apart, and those after two restores in a row. Two clones of
  one snapshot may have the same one.
* ``marker`` does the same where there is no generation.

What remains: two clones have the same draw if all of these are equal. That takes a processor without a generator (or a
hypervisor that hides or replays it), a kernel that has not seeded its source again, and the same counter value in the
same nanosecond of CLOCK_REALTIME. Nor does a draw help before somebody notices the restore: until then both clones
have what was drawn before the snapshot.

Whoever knows all the other ingredients still has to guess 32 bytes of ``os.urandom``.
"""

import os
import time
from hashlib import sha256
from typing import Final, NamedTuple, final

from vmclock_async import _core
from vmclock_async.errors import CounterNotSupportedError

__all__ = ("Ingredients",)

_CLOCK_REALTIME_COARSE: Final = 5
"""linux/time.h; the time module has no name for it. Its resolution is that of the kernel's tick, 1 to 10 ms."""


@final
class Ingredients(NamedTuple):
    """What a draw is made of; the module says what each is good for."""

    kernel: bytes
    """32 bytes of ``os.urandom``."""
    processor: bytes | None
    """32 bytes of the processor's generator; None if it has none."""
    counter: int | None
    """The raw counter; None if this thread may not read it."""
    realtime_ns: int
    """CLOCK_REALTIME, nanoseconds since 1970."""
    pid: int
    generation: int | None
    """The generation counter of the page or of its fence; None if neither has one."""
    marker: int
    """The whole disruption marker of the page."""

    @classmethod
    def gather(cls, generation: int | None, marker: int) -> "Ingredients":
        """All that there is at this moment. Takes microseconds, and works in a thread that may not read the counter."""
        try:
            counter, clock = _core.checked_counter(), time.CLOCK_REALTIME
        except CounterNotSupportedError:
            # The C library reads the counter for CLOCK_REALTIME, which would be a SIGSEGV here; not for this one.
            counter, clock = None, _CLOCK_REALTIME_COARSE
        return cls(
            kernel=os.urandom(32),
            processor=_core.processor_random(),
            counter=counter,
            realtime_ns=time.clock_gettime_ns(clock),
            pid=os.getpid(),
            generation=generation,
            marker=marker,
        )

    def mix(self) -> bytes:
        """The draw: 32 bytes, which depend on every ingredient and on nothing else."""
        return sha256(repr(tuple(self)).encode()).digest()
