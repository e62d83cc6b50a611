"""Bodies, updates and snapshots as frozen pydantic models.

This is where data is validated, once: a value outside its field's range is refused with the field's name and
the range. A page that was read is trusted as it stands (unknown enum values stay plain ints, unknown flag bits
stay set), so that what a newer hypervisor writes passes through unchanged.

Field names and ranges are the ABI's (``include/uapi/linux/vmclock-abi.h``).
"""

from vmclock_async._models.body import VMClockBody
from vmclock_async._models.snapshot import Contents, Snapshot
from vmclock_async._models.update import VALIDITY_FLAGS, BodyUpdate

__all__ = ("VALIDITY_FLAGS", "BodyUpdate", "Contents", "Snapshot", "VMClockBody")
