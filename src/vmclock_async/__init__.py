"""VMClock segments for async Python: publish them, read them, and wait for their changes.

Data goes one way: sources hand ``BodyUpdate``s to a ``Publisher``, whose ``SegmentWriter`` commits them to one
page of shared memory; a ``SegmentReader`` in this process or another takes whole ``Snapshot``s of it, and a ``Clock``
makes bounded time of them.

Importing this is cheap, as it is with anyio and pydantic: each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from vmclock_async.abi import ClockStatus, CounterId, Flags, LeapIndicator, SmearingHint, TimeType
    from vmclock_async.clock import Clock, open_clock
    from vmclock_async.errors import (
        ClockDisruptedError,
        ClockError,
        ClockNotSynchronizedError,
        ClockStaleError,
        ClockUnboundedError,
        CounterNotSupportedError,
        InvalidUpdateError,
        LeaseLostError,
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
    from vmclock_async.intervals import Order, TimeInterval
    from vmclock_async.lease import Lease
    from vmclock_async.models import BodyUpdate, Snapshot, VMClockBody
    from vmclock_async.publisher import Publisher
    from vmclock_async.segment import SegmentReader, SegmentWriter
    from vmclock_async.sources import Emit, Source

__all__ = (
    "BodyUpdate",
    "Clock",
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
    "Lease",
    "LeaseLostError",
    "Order",
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
    "TimeInterval",
    "TimeType",
    "UnknownSourceError",
    "VMClockBody",
    "VMClockError",
    "open_clock",
)

_HOMES = {
    "abi": "ClockStatus CounterId Flags LeapIndicator SmearingHint TimeType",
    "clock": "Clock open_clock",
    "errors": (
        "ClockDisruptedError ClockError ClockNotSynchronizedError ClockStaleError ClockUnboundedError "
        "CounterNotSupportedError InvalidUpdateError LeaseLostError RecordingError SegmentError "
        "SegmentInUseError SegmentMalformedError SegmentNotInitializedError SegmentUnstableError "
        "SegmentVersionNotSupportedError SourceError SourceSettingsError SourceUnavailableError "
        "UnknownSourceError VMClockError"
    ),
    "intervals": "Order TimeInterval",
    "lease": "Lease",
    "models": "BodyUpdate Snapshot VMClockBody",
    "publisher": "Publisher",
    "segment": "SegmentReader SegmentWriter",
    "sources": "Emit Source",
}
"""Where each name is defined."""
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
