"""VMClock segments for async Python: publish them, read them, and wait for their changes.

Data goes one way: sources hand ``BodyUpdate``s to a ``Publisher``, whose ``SegmentWriter`` commits them to one
page of shared memory; a ``SegmentReader`` in this process or another takes whole ``Snapshot``s of it.
"""

try:
    from vmclock_async import _core as _core
except ImportError as exc:
    # No fallback in Python: it can order neither loads nor stores, so what would be lost is correctness.
    raise ImportError(
        f"the compiled core of vmclock-async is missing ({exc}); build it with a C compiler and Python's headers: "
        "pip install --force-reinstall --no-binary vmclock-async vmclock-async"
    ) from exc

from vmclock_async.abi import ClockStatus, CounterId, Flags, LeapIndicator, SmearingHint, TimeType
from vmclock_async.errors import (
    ClockDisruptedError,
    ClockError,
    ClockNotSynchronizedError,
    ClockStaleError,
    ClockUnboundedError,
    CounterNotSupportedError,
    InvalidUpdateError,
    RecordingError,
    SegmentError,
    SegmentInUseError,
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentUnstableError,
    SegmentVersionNotSupportedError,
    SourceError,
    SourceSettingsError,
    SourceUnavailableError,
    UnknownSourceError,
    VMClockError,
)
from vmclock_async.models import BodyUpdate, Snapshot, VMClockBody
from vmclock_async.publisher import Publisher
from vmclock_async.segment import SegmentReader, SegmentWriter
from vmclock_async.sources import Emit, Source

__all__ = (
    "BodyUpdate",
    "ClockDisruptedError",
    "ClockError",
    "ClockNotSynchronizedError",
    "ClockStaleError",
    "ClockStatus",
    "ClockUnboundedError",
    "CounterId",
    "CounterNotSupportedError",
    "Emit",
    "Flags",
    "InvalidUpdateError",
    "LeapIndicator",
    "Publisher",
    "RecordingError",
    "SegmentError",
    "SegmentInUseError",
    "SegmentMalformedError",
    "SegmentNotInitializedError",
    "SegmentReader",
    "SegmentUnstableError",
    "SegmentVersionNotSupportedError",
    "SegmentWriter",
    "SmearingHint",
    "Snapshot",
    "Source",
    "SourceError",
    "SourceSettingsError",
    "SourceUnavailableError",
    "TimeType",
    "UnknownSourceError",
    "VMClockBody",
    "VMClockError",
)
