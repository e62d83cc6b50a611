"""The layouts of ClockBound's segments: bytes to an error bound, and back.

    layout 2, 80 bytes                               layout 3, 104 bytes (experimental)
     0  u32, u32  magic 0x414D5A4E, 0x43420200        0  the same
     8  u32       size                                8  u32       size
    12  u16       version: 2                         12  u8, u8    least and latest version
    14  u16       generation                         14  u16       generation
                                                     16  u64       counter at as_of
    16  i64, i64  as_of, s and ns                    24  i64, i64  as_of
    32  i64, i64  void_after                         40  i64, i64  void_after
                                                     56  f64, f64  a tick and its error, in seconds
    48  i64       bound, ns                          72  i64       bound
    56  u64       disruption marker                  80  u64       disruption marker
    64  u32       max_drift_ppb                      88  u32       max_drift_ppb
    68  i32       status                             92  i32       status
    72  u8        whether disruptions are detected   96  u8        whether disruptions are detected

Native byte order; the rest is padding. Source: ClockBound's documents of its protocol, versions 2 and 3; layout 2 was
tried with clients of 2.0.2. Of layout 3 only the size and the offsets 14, 40, 48, 72 and 92 are confirmed.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple, final

from vmclock_async.errors import (
    SegmentMalformedError,
    SegmentNotInitializedError,
    SegmentVersionNotSupportedError,
)

__all__ = ("HEADER_SIZE", "ErrorBound", "ErrorBoundStatus", "Layout", "generation_of", "pack", "unpack")

_MAGIC: Final = (0x414D5A4E, 0x43420200)
_HEADER: Final = struct.Struct("=IIIHH")
HEADER_SIZE: Final = _HEADER.size
_MALFORMED_DRIFT_PPB: Final = 10**9
"""ClockBound's clients refuse a rate of so many parts in 10**9, and more."""
_S: Final = 10**9
_MOST_S: Final = 2**63 // _S
"""Seconds that nanoseconds in 64 bits can hold."""


class Layout(IntEnum):
    """A layout of ClockBound's segment."""

    V2 = 2
    """``shm0``, of ClockBound 2 and later."""
    V3 = 3
    """``shm1``, of ClockBound 3: experimental, because its meaning is partly inferred."""

    @property
    def file_name(self) -> str:
        """Name of its file in ClockBound's directory."""
        return "shm0" if self is Layout.V2 else "shm1"

    @property
    def size(self) -> int:
        """Bytes of its segment."""
        return HEADER_SIZE + _BODIES[self].size


_BODIES: Final = {Layout.V2: struct.Struct("=qqqqqQIiB7x"), Layout.V3: struct.Struct("=QqqqqddqQIiB7x")}


class ErrorBoundStatus(IntEnum):
    """ClockBound's status of CLOCK_REALTIME."""

    UNKNOWN = 0
    SYNCHRONIZED = 1
    FREERUNNING = 2
    DISRUPTED = 3
    """The machine was disrupted, and the clock has not been set right since."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBound:
    """What a ClockBound segment says: how far CLOCK_REALTIME may be off.

    A client adds ``max_drift_ppb`` times the time that CLOCK_MONOTONIC_COARSE has made since ``as_of_ns``.
    """

    as_of_ns: int
    """CLOCK_MONOTONIC_COARSE before the bound was measured, nanoseconds."""
    void_after_ns: int
    """CLOCK_MONOTONIC_COARSE from which nothing is bounded any more, nanoseconds."""
    bound_ns: int
    """How far CLOCK_REALTIME may be off at `as_of_ns`, nanoseconds; 0 or more."""
    max_drift_ppb: int
    """Rate by which the bound grows, parts in 10**9; less than 10**9."""
    status: ErrorBoundStatus
    disruption_marker: int = 0
    """The disruption marker of the VMClock device; it means nothing unless `detects_disruptions`."""
    detects_disruptions: bool = False
    """Whether the writer reads the device, and clients shall compare its marker with `disruption_marker`."""
    counter_ticks: int = 0
    """Layout 3: the counter at `as_of_ns`."""
    tick_s: float = 0.0
    """Layout 3: length of a tick, seconds. It is no time, so a float does."""
    tick_error_s: float = 0.0
    """Layout 3: possible error of `tick_s`, seconds."""


class _Fields(NamedTuple):
    """The fields that both layouts have, in the order of both."""

    as_of_s: int
    as_of_ns: int
    void_after_s: int
    void_after_ns: int
    bound_ns: int
    disruption_marker: int
    max_drift_ppb: int
    status: int
    detects_disruptions: int


def pack(layout: Layout, bound: ErrorBound, *, generation: int = 0) -> bytes:
    """The bytes of a segment that says *bound*.

    Raises:
        ValueError: a field is out of its range in 64 bits.
    """
    try:
        return _packed(layout, bound, generation)
    except struct.error as exc:
        raise ValueError(f"no ClockBound segment can hold {bound}: {exc}") from exc


def _packed(layout: Layout, bound: ErrorBound, generation: int) -> bytes:
    version = layout.value if layout is Layout.V2 else layout.value << 8 | layout.value
    header = _HEADER.pack(*_MAGIC, layout.size, version, generation)
    as_of, void_after = divmod(bound.as_of_ns, _S), divmod(bound.void_after_ns, _S)
    tail = (bound.disruption_marker, bound.max_drift_ppb, bound.status, bound.detects_disruptions)
    if layout is Layout.V2:
        return header + _BODIES[layout].pack(*as_of, *void_after, bound.bound_ns, *tail)
    tick = (bound.tick_s, bound.tick_error_s)
    return header + _BODIES[layout].pack(bound.counter_ticks, *as_of, *void_after, *tick, bound.bound_ns, *tail)


def generation_of(header: bytes) -> int:
    """The generation in *header*, the first bytes of a segment; 0 if that is no segment of ClockBound."""
    *magic, _, _, generation = _HEADER.unpack_from(header)
    return generation if tuple(magic) == _MAGIC else 0


def unpack(path: str, layout: Layout, page: bytes) -> ErrorBound:
    """What *page*, the bytes at *path*, says.

    Raises:
        SegmentNotInitializedError: it is empty, or its version or generation is 0.
        SegmentMalformedError: it is too short, has another magic or size, or a field that is out of range.
        SegmentVersionNotSupportedError: it has another version.
    """
    _check_header(path, layout, page)
    if len(page) < layout.size:
        raise SegmentMalformedError(
            path, f"its size is {layout.size}, but the file ends after {len(page)} bytes; start ClockBound again"
        )
    counter_ticks, tick_s, tick_error_s = 0, 0.0, 0.0
    values = _BODIES[layout].unpack_from(page, HEADER_SIZE)
    if layout is Layout.V3:
        counter_ticks, *times, tick_s, tick_error_s = values[:7]
        values = (*times, *values[7:])
    fields = _Fields(*values)
    _check_fields(path, fields)
    return ErrorBound(
        as_of_ns=fields.as_of_s * _S + fields.as_of_ns,
        void_after_ns=fields.void_after_s * _S + fields.void_after_ns,
        bound_ns=fields.bound_ns,
        max_drift_ppb=fields.max_drift_ppb,
        status=ErrorBoundStatus(fields.status),
        disruption_marker=fields.disruption_marker,
        detects_disruptions=bool(fields.detects_disruptions),
        counter_ticks=counter_ticks,
        tick_s=tick_s,
        tick_error_s=tick_error_s,
    )


def _check_header(path: str, layout: Layout, page: bytes) -> None:
    if not page:
        raise SegmentNotInitializedError(path, "the file is empty; start ClockBound's daemon, or wait for it")
    if len(page) < HEADER_SIZE:
        raise SegmentMalformedError(
            path, f"{len(page)} bytes are too few for a header of {HEADER_SIZE}; check the path"
        )
    *magic, size, version, generation = _HEADER.unpack_from(page)
    if tuple(magic) != _MAGIC:
        raise SegmentMalformedError(
            path, f"its magic is {page[:8].hex()}, so this is no segment of ClockBound; check the path"
        )
    if version == 0 or generation == 0:
        name = "version" if version == 0 else "generation"
        raise SegmentNotInitializedError(path, f"its {name} is 0: nothing is committed yet; wait for ClockBound")
    supported = version == layout if layout is Layout.V2 else version & 0xFF <= layout <= version >> 8
    if not supported:
        seen = f"{version}" if layout is Layout.V2 else f"{version & 0xFF} to {version >> 8}"
        raise SegmentVersionNotSupportedError(
            path, f"its version is {seen}, not {layout.value}; read the file of that layout, {layout.file_name}"
        )
    if size != layout.size:
        raise SegmentMalformedError(path, f"its size is {size}, not {layout.size}; start ClockBound again")


def _check_fields(path: str, fields: _Fields) -> None:
    """Raise if a field has a value that ClockBound's own clients refuse, or that has no meaning."""
    wrong = [
        (not _is_time(fields.as_of_s, fields.as_of_ns), "as_of", f"{fields.as_of_s} s and {fields.as_of_ns} ns"),
        (
            not _is_time(fields.void_after_s, fields.void_after_ns),
            "void_after",
            f"{fields.void_after_s} s and {fields.void_after_ns} ns",
        ),
        (fields.bound_ns < 0, "bound", f"{fields.bound_ns} ns"),
        (fields.max_drift_ppb >= _MALFORMED_DRIFT_PPB, "max_drift_ppb", f"{fields.max_drift_ppb}"),
        (fields.status not in tuple(ErrorBoundStatus), "status", f"{fields.status}"),
        (fields.detects_disruptions > 1, "clock_disruption_support_enabled", f"{fields.detects_disruptions}"),
    ]
    for is_wrong, name, value in wrong:
        if is_wrong:
            raise SegmentMalformedError(path, f"{name} is {value}, out of range; start ClockBound again")


def _is_time(seconds: int, nanoseconds: int) -> bool:
    return 0 <= seconds < _MOST_S and 0 <= nanoseconds < _S
