"""Snapshots of bodies of the tests' own."""

from vmclock_async import Snapshot, TimeType, VMClockBody


def snapshot_of(body: VMClockBody, *, counter_id: int = 1, time_type: int = TimeType.UTC) -> Snapshot:
    """*body* as it was read from a segment."""
    return Snapshot(
        magic=0x4B4C4356,
        size=112,
        version=1,
        counter_id=counter_id,
        time_type=time_type,
        seq_count=2,
        body=body,
        inode=1,
    )
