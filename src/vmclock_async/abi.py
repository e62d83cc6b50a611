"""The VMClock page as the ABI has it: constants, enums, flags, and the page as bytes.

Source: the Linux UAPI header ``include/uapi/linux/vmclock-abi.h``; UAPI.13 "VMClock" 1.1 is its prose. All
fields are little-endian. Values this module does not know, of an enum or a flag, pass through unchanged.
"""

import struct
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from operator import itemgetter
from typing import Any, Final, NamedTuple

__all__ = (
    "BODY_FIELDS",
    "BODY_OFFSET",
    "BODY_SIZE",
    "BODY_SIZE_WITH_GENERATION",
    "BOTH_BOUNDS",
    "HEADER",
    "HEADER_SIZE",
    "MAGIC",
    "MAX_SIZE",
    "OWN_DISRUPTION",
    "OWN_GENERATION",
    "SEGMENT_SIZE",
    "SEGMENT_SIZE_WITH_GENERATION",
    "TELLS_TIME",
    "VERSION",
    "ClockStatus",
    "CounterId",
    "Flags",
    "Header",
    "LeapIndicator",
    "SmearingHint",
    "TimeType",
    "device_marker",
    "is_own_generation",
    "name_of",
    "pack_body",
    "pack_header",
    "packed_values",
    "shows_restore",
    "unpack_body",
    "unpack_header",
)

MAGIC: Final = 0x4B4C4356
"""First word of a page: the bytes ``VCLK``."""
VERSION: Final = 1
"""The only version there is; 0 in the page means that it is not usable yet."""
HEADER_SIZE: Final = 16
BODY_OFFSET: Final = 16
BODY_SIZE: Final = 88
"""Bytes of a body without the generation counter."""
BODY_SIZE_WITH_GENERATION: Final = 96
SEGMENT_SIZE: Final = 104
"""Bytes of the smallest segment, the one ClockBound writes."""
SEGMENT_SIZE_WITH_GENERATION: Final = 112
MAX_SIZE: Final = 4096
"""One page: the size of the kernel's device, and the most that is ever mapped."""

HEADER: Final = struct.Struct("<IIHBBI")
"""The fields of ``Header``, as the page has them."""
_BODY = struct.Struct("<QQ2xBBhBBQQQQQQQQ")
_GENERATION = struct.Struct("<Q")


class CounterId(IntEnum):
    """Which CPU counter ``counter_value`` counts (u8 at 0x0A)."""

    ARM_VCNT = 0
    X86_TSC = 1
    INVALID = 0xFF


class TimeType(IntEnum):
    """What ``time_sec`` counts (u8 at 0x0B)."""

    UTC = 0
    TAI = 1
    MONOTONIC = 2
    INVALID_SMEARED = 3
    INVALID_MAYBE_SMEARED = 4


class ClockStatus(IntEnum):
    """State of the clock that the page describes (u8 at 0x22)."""

    UNKNOWN = 0
    INITIALIZING = 1
    SYNCHRONIZED = 2
    FREERUNNING = 3
    UNRELIABLE = 4


TELLS_TIME: Final = (ClockStatus.SYNCHRONIZED, ClockStatus.FREERUNNING)
"""The statuses of a body whose time may be used: one that runs free is still within its bound."""


class SmearingHint(IntEnum):
    """How the time is to be shown to users around a leap second (u8 at 0x23)."""

    STRICT = 0
    NOON_LINEAR = 1
    UTC_SLS = 2


class LeapIndicator(IntEnum):
    """Leap second at the end of the reference time's month (u8 at 0x26)."""

    NONE = 0
    PRE_POS = 1
    PRE_NEG = 2
    POS = 3
    POST_POS = 4
    POST_NEG = 5


class Flags(IntFlag):
    """Bits of ``flags`` (u64 at 0x18); bits without a name are kept."""

    TAI_OFFSET_VALID = 1 << 0
    DISRUPTION_SOON = 1 << 1
    """A disruption is planned within about a day."""
    DISRUPTION_IMMINENT = 1 << 2
    """A disruption is planned within about an hour."""
    PERIOD_ESTERROR_VALID = 1 << 3
    PERIOD_MAXERROR_VALID = 1 << 4
    TIME_ESTERROR_VALID = 1 << 5
    TIME_MAXERROR_VALID = 1 << 6
    TIME_MONOTONIC = 1 << 7
    VM_GEN_COUNTER_PRESENT = 1 << 8
    NOTIFICATION_PRESENT = 1 << 9


BOTH_BOUNDS: Final = (Flags.TIME_MAXERROR_VALID | Flags.PERIOD_MAXERROR_VALID).value
"""The flags of a time with a bound, as an int: of the reference time, and of the period."""
_GENERATION_PRESENT: Final = Flags.VM_GEN_COUNTER_PRESENT.value
"""An int, because & of an IntFlag makes a new IntFlag, which takes ten times as long."""


OWN_DISRUPTION: Final = 2**32
"""A publisher adds this to the device's disruption_marker for each disruption that the device does not know of."""


def device_marker(marker: int) -> int:
    """The part of a published disruption *marker* that is the device's: its low 32 bits."""
    return marker % OWN_DISRUPTION


OWN_GENERATION: Final = int.from_bytes(b"vmck") * 2**32
"""The high 32 bits of each vm_generation_counter that a publisher draws itself, because no device gives one."""


def is_own_generation(generation: int) -> bool:
    """Whether *generation* is a publisher's own, and no device's."""
    return generation - generation % 2**32 == OWN_GENERATION


def shows_restore(
    generation_before: int | None, marker_before: int, generation_after: int | None, marker_after: int
) -> bool:
    """Whether the machine was restored between two bodies with these generation counters and disruption markers.

    Two counters of one origin, a device or the publisher itself, differ only if it was. A counter that appears, or
    takes the place of one of the other origin, may do so because a source was added. So it shows a restore only if the
    marker is another one as well. A marker without the device's part says nothing about that part: a publisher that
    begins again may not know it yet.
    """
    if generation_after is None:
        return False
    if generation_before is not None and is_own_generation(generation_before) == is_own_generation(
        generation_after
    ):
        return generation_before != generation_after
    if 0 in (device_marker(marker_before), device_marker(marker_after)):
        return marker_before // OWN_DISRUPTION < marker_after // OWN_DISRUPTION
    return marker_before != marker_after


def name_of(value: int) -> str:
    """The ABI's name of an enum's *value*, or the number if it has none."""
    return getattr(value, "name", None) or str(int(value))


class Header(NamedTuple):
    """The first sixteen bytes of a page."""

    magic: int
    size: int
    version: int
    counter_id: int
    time_type: int
    seq_count: int


BODY_FIELDS: Final = (
    "disruption_marker",
    "flags",
    "clock_status",
    "leap_second_smearing_hint",
    "tai_offset_sec",
    "leap_indicator",
    "counter_period_shift",
    "counter_value",
    "counter_period_frac_sec",
    "counter_period_esterror_rate_frac_sec",
    "counter_period_maxerror_rate_frac_sec",
    "time_sec",
    "time_frac_sec",
    "time_esterror_nanosec",
    "time_maxerror_nanosec",
    "vm_generation_counter",
)
"""Names of the body's fields in the order of the page (0x10 to 0x6F)."""
packed_values: Final = itemgetter(*BODY_FIELDS[:-1])
"""Gives the values of a body, a mapping, in the order of the page, without the generation counter."""


def pack_header(header: Header) -> bytes:
    """The sixteen bytes of *header*."""
    return HEADER.pack(*header)


def unpack_header(page: bytes) -> Header:
    """The header of *page*, which holds at least sixteen bytes."""
    return Header._make(HEADER.unpack_from(page))


def pack_body(body: Mapping[str, Any]) -> bytes:
    """Pack *body*, which has a value for each of ``BODY_FIELDS``: 88 bytes, or 96 with a generation counter.

    Raises:
        struct.error: a value is out of its field's range.
    """
    generation = body["vm_generation_counter"]
    if generation is not None:
        body = {**body, "flags": int(body["flags"]) | _GENERATION_PRESENT}
    packed = _BODY.pack(*packed_values(body))
    return packed if generation is None else packed + _GENERATION.pack(generation)


def unpack_body(buffer: bytes | bytearray | memoryview, offset: int = 0, end: int | None = None) -> dict[str, Any]:
    """The values (int) of ``BODY_FIELDS`` in *buffer* from *offset*, the page's 0x10, to *end*: at least 88 bytes.

    The generation counter is None unless its flag is set and there are bytes for it.
    """
    (marker, flags, status, smearing, tai, leap, shift, counter, period, est_rate, max_rate,
     sec, frac, est_error, max_error) = _BODY.unpack_from(buffer, offset)  # fmt: skip
    body = {
        "disruption_marker": marker,
        "flags": flags,
        "clock_status": status,
        "leap_second_smearing_hint": smearing,
        "tai_offset_sec": tai,
        "leap_indicator": leap,
        "counter_period_shift": shift,
        "counter_value": counter,
        "counter_period_frac_sec": period,
        "counter_period_esterror_rate_frac_sec": est_rate,
        "counter_period_maxerror_rate_frac_sec": max_rate,
        "time_sec": sec,
        "time_frac_sec": frac,
        "time_esterror_nanosec": est_error,
        "time_maxerror_nanosec": max_error,
    }
    end = len(buffer) if end is None else min(end, len(buffer))
    has_generation = flags & _GENERATION_PRESENT and end - offset >= BODY_SIZE_WITH_GENERATION
    body["vm_generation_counter"] = (
        _GENERATION.unpack_from(buffer, offset + BODY_SIZE)[0] if has_generation else None
    )
    return body
