"""VMClock segments for async Python: publish them, read them, and wait for their changes.

Data goes one way: sources hand ``BodyUpdate``s to a ``Publisher``, whose ``SegmentWriter`` commits them to one
page of shared memory; a ``SegmentReader`` in this process or another takes whole ``Snapshot``s of it, and a ``Clock``
makes bounded time of them.
"""

import types

try:
    from vmclock_async import _core as _core
except ImportError as exc:
    if "subinterpreters" in str(exc):  # it is there, and Python does not load it here
        raise ImportError(
            f"vmclock-async does not work in a sub-interpreter with a GIL of its own ({exc}): its compiled core needs "
            "the main interpreter's GIL, and that of pydantic works in one interpreter a process. Use it in the main "
            "interpreter, in threads of that, or in processes of their own"
        ) from exc
    # No fallback in Python: it can order neither loads nor stores, so what would be lost is correctness.
    raise ImportError(
        f"the compiled core of vmclock-async is missing ({exc}); build it with a C compiler and Python's headers: "
        "pip install --force-reinstall --no-binary vmclock-async vmclock-async"
    ) from exc

from vmclock_async.abi import (
    ClockStatus as ClockStatus,
    CounterId as CounterId,
    Flags as Flags,
    LeapIndicator as LeapIndicator,
    SmearingHint as SmearingHint,
    TimeType as TimeType,
)
from vmclock_async.clock import (
    Clock as Clock,
    open_clock as open_clock,
)
from vmclock_async.disruption import report_disruption as report_disruption
from vmclock_async.errors import (
    ClockDisruptedError as ClockDisruptedError,
    ClockError as ClockError,
    ClockNotSynchronizedError as ClockNotSynchronizedError,
    ClockStaleError as ClockStaleError,
    ClockUnboundedError as ClockUnboundedError,
    CounterNotSupportedError as CounterNotSupportedError,
    DisruptionRefusedError as DisruptionRefusedError,
    InvalidUpdateError as InvalidUpdateError,
    LeaseLostError as LeaseLostError,
    MetricsAddressError as MetricsAddressError,
    NobodyListensError as NobodyListensError,
    RecordingError as RecordingError,
    SegmentError as SegmentError,
    SegmentInUseError as SegmentInUseError,
    SegmentMalformedError as SegmentMalformedError,
    SegmentNotInitializedError as SegmentNotInitializedError,
    SegmentUnstableError as SegmentUnstableError,
    SegmentVersionNotSupportedError as SegmentVersionNotSupportedError,
    SourceError as SourceError,
    SourceSettingsError as SourceSettingsError,
    SourceUnavailableError as SourceUnavailableError,
    SystemClockError as SystemClockError,
    UnknownSourceError as UnknownSourceError,
    VMClockError as VMClockError,
)
from vmclock_async.intervals import (
    Order as Order,
    TimeInterval as TimeInterval,
)
from vmclock_async.lease import (
    Lease as Lease,
)
from vmclock_async.models import (
    BodyUpdate as BodyUpdate,
    Snapshot as Snapshot,
    VMClockBody as VMClockBody,
)
from vmclock_async.publisher import (
    Publisher as Publisher,
)
from vmclock_async.segment import (
    SegmentReader as SegmentReader,
    SegmentWriter as SegmentWriter,
)
from vmclock_async.sources import (
    Emit as Emit,
    Source as Source,
)

_public = {
    name: value for name, value in vars().items() if name[0] != "_" and not isinstance(value, types.ModuleType)
}
__all__ = tuple(sorted(_public))
for _value in _public.values():
    if _value.__module__ != __name__:  # so that a traceback and a pickle name vmclock_async.SegmentError
        _value.__module__ = __name__
