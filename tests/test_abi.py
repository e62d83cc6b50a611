"""The page as bytes: offsets, sizes and values against the tables of the ABI, and pages that others wrote."""

import struct
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from vmclock_async import ClockStatus, CounterId, Flags, LeapIndicator, SmearingHint, TimeType, abi

# Offset in the page, bytes, struct code: from include/uapi/linux/vmclock-abi.h.
LAYOUT = {
    "disruption_marker": (0x10, 8, "<Q"),
    "flags": (0x18, 8, "<Q"),
    "clock_status": (0x22, 1, "<B"),
    "leap_second_smearing_hint": (0x23, 1, "<B"),
    "tai_offset_sec": (0x24, 2, "<h"),
    "leap_indicator": (0x26, 1, "<B"),
    "counter_period_shift": (0x27, 1, "<B"),
    "counter_value": (0x28, 8, "<Q"),
    "counter_period_frac_sec": (0x30, 8, "<Q"),
    "counter_period_esterror_rate_frac_sec": (0x38, 8, "<Q"),
    "counter_period_maxerror_rate_frac_sec": (0x40, 8, "<Q"),
    "time_sec": (0x48, 8, "<Q"),
    "time_frac_sec": (0x50, 8, "<Q"),
    "time_esterror_nanosec": (0x58, 8, "<Q"),
    "time_maxerror_nanosec": (0x60, 8, "<Q"),
    "vm_generation_counter": (0x68, 8, "<Q"),
}
VM_GEN_COUNTER_PRESENT = 1 << 8
U64_MAX = 2**64 - 1


def test_constants_are_those_of_the_abi() -> None:
    """Magic, version and sizes, to the letter."""
    assert abi.MAGIC.to_bytes(4, "little") == b"VCLK"
    assert (abi.VERSION, abi.HEADER_SIZE, abi.BODY_OFFSET) == (1, 16, 16)
    assert (abi.BODY_SIZE, abi.BODY_SIZE_WITH_GENERATION) == (88, 96)
    assert (abi.SEGMENT_SIZE, abi.SEGMENT_SIZE_WITH_GENERATION, abi.MAX_SIZE) == (104, 112, 4096)


@pytest.mark.parametrize(
    ("enum", "members"),
    [
        (CounterId, {"ARM_VCNT": 0, "X86_TSC": 1, "INVALID": 255}),
        (TimeType, {"UTC": 0, "TAI": 1, "MONOTONIC": 2, "INVALID_SMEARED": 3, "INVALID_MAYBE_SMEARED": 4}),
        (
            ClockStatus,
            {"UNKNOWN": 0, "INITIALIZING": 1, "SYNCHRONIZED": 2, "FREERUNNING": 3, "UNRELIABLE": 4},
        ),
        (SmearingHint, {"STRICT": 0, "NOON_LINEAR": 1, "UTC_SLS": 2}),
        (LeapIndicator, {"NONE": 0, "PRE_POS": 1, "PRE_NEG": 2, "POS": 3, "POST_POS": 4, "POST_NEG": 5}),
        (
            Flags,
            {
                "TAI_OFFSET_VALID": 1 << 0,
                "DISRUPTION_SOON": 1 << 1,
                "DISRUPTION_IMMINENT": 1 << 2,
                "PERIOD_ESTERROR_VALID": 1 << 3,
                "PERIOD_MAXERROR_VALID": 1 << 4,
                "TIME_ESTERROR_VALID": 1 << 5,
                "TIME_MAXERROR_VALID": 1 << 6,
                "TIME_MONOTONIC": 1 << 7,
                "VM_GEN_COUNTER_PRESENT": 1 << 8,
                "NOTIFICATION_PRESENT": 1 << 9,
            },
        ),
    ],
)
def test_values_are_those_of_the_abi(enum: type[IntEnum] | type[IntFlag], members: dict[str, int]) -> None:
    """Each enum has the ABI's values under the ABI's names, and no others."""
    assert {member.name: member.value for member in enum} == members


def test_fields_are_in_the_order_of_the_page() -> None:
    """BODY_FIELDS names every field of the layout, in its order."""
    assert abi.BODY_FIELDS == tuple(LAYOUT)


@pytest.mark.parametrize("name", LAYOUT)
def test_each_field_is_where_the_abi_has_it(name: str) -> None:
    """A field set alone sets its own bytes and no others, and is found there again."""
    offset, size, code = LAYOUT[name]
    value = struct.unpack(code, bytes(range(0xF1, 0xF1 + size)))[0]
    values: dict[str, int | None] = dict.fromkeys(LAYOUT, 0)
    values["flags"] = VM_GEN_COUNTER_PRESENT
    expected = bytearray(96)
    struct.pack_into("<Q", expected, 0x08, VM_GEN_COUNTER_PRESENT)
    if name == "flags":
        value |= VM_GEN_COUNTER_PRESENT
    values[name] = value
    struct.pack_into(code, expected, offset - 0x10, value)
    packed = abi.pack_body(values)
    assert packed == expected
    assert abi.unpack_body(packed) == values


@given(body=st.binary(min_size=96, max_size=96))
def test_unpacking_any_bytes_and_packing_them_is_no_change(body: bytes) -> None:
    """Every bit but the two bytes of padding comes back, whatever it is; the counter only if its flag is set."""
    values = abi.unpack_body(body)
    present = bool(body[0x09] & 1)
    assert (values["vm_generation_counter"] is not None) == present
    end = 96 if present else 88
    assert abi.pack_body(values) == body[:0x10] + bytes(2) + body[0x12:end]


@pytest.mark.parametrize(
    ("length", "flags", "found"), [(96, 256, 7), (96, 0, None), (88, 256, None), (95, 256, None)]
)
def test_generation_counter_needs_its_flag_and_its_bytes(length: int, flags: int, found: int | None) -> None:
    """It is None where the flag is not set, and where the body ends before it."""
    body = struct.pack("<QQ72xQ", 0, flags, 7)[:length]
    assert abi.unpack_body(body)["vm_generation_counter"] == found


@given(
    fields=st.tuples(
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**16 - 1),
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, 2**32 - 1),
    )
)
def test_headers_come_back_whole(fields: tuple[int, int, int, int, int, int]) -> None:
    """pack_header and unpack_header are inverses over every header, at the ABI's offsets."""
    header = abi.Header(*fields)
    packed = abi.pack_header(header)
    assert abi.unpack_header(packed + b"more") == header
    assert [
        int.from_bytes(packed[start:end], "little")
        for start, end in ((0, 4), (4, 8), (8, 10), (10, 11), (11, 12), (12, 16))
    ] == list(fields)


@pytest.mark.parametrize(
    ("name", "seq_count", "expected"),
    [
        ("updater-01-cold-start-marker-1.bin", 2, {"disruption_marker": 1}),
        (
            "updater-02-warm-restart-marker-2-synchronized-tai-37.bin",
            4,
            {"disruption_marker": 2, "clock_status": 2, "tai_offset_sec": 37},
        ),
        (
            "updater-03-extremes.bin",
            6,
            {
                "disruption_marker": U64_MAX,
                "clock_status": 4,
                "leap_second_smearing_hint": 2,
                "tai_offset_sec": -32768,
                "leap_indicator": 5,
                "counter_period_shift": 255,
                "counter_value": U64_MAX,
                "counter_period_frac_sec": U64_MAX,
                "counter_period_esterror_rate_frac_sec": U64_MAX,
                "counter_period_maxerror_rate_frac_sec": U64_MAX,
                "time_sec": U64_MAX,
                "time_frac_sec": U64_MAX,
                "time_esterror_nanosec": U64_MAX,
                "time_maxerror_nanosec": U64_MAX,
            },
        ),
    ],
)
def test_segments_of_clockbound_decode(vectors: Path, name: str, seq_count: int, expected: dict[str, int]) -> None:
    """Each vector holds what its README says, zeros elsewhere, and packs to the same bytes again."""
    page = (vectors / "clockbound-writer" / name).read_bytes()
    header = abi.unpack_header(page)
    assert header == (abi.MAGIC, 104, 1, 0, 0, seq_count)
    none: dict[str, int | None] = {**dict.fromkeys(LAYOUT, 0), "vm_generation_counter": None}
    assert abi.unpack_body(page[16:]) == none | expected
    assert abi.pack_header(header) + abi.pack_body(abi.unpack_body(page[16:])) == page


def test_pages_of_the_device_decode(vectors: Path) -> None:
    """Each has the marker and nothing else, as QEMU fills it, and packs to the same bytes again."""
    paths = sorted((vectors / "linux-device").glob("*.bin"))
    assert len(paths) == 6
    for path in paths:
        page = path.read_bytes()
        header = abi.unpack_header(page)
        assert header[:5] == (abi.MAGIC, 4096, 1, CounterId.INVALID, TimeType.UTC)
        assert header.seq_count % 2 == 0
        marker, *others, generation = abi.unpack_body(page[16:]).values()
        assert marker == header.seq_count // 2
        assert set(others) == {0}
        assert generation is None
        assert (abi.pack_header(header) + abi.pack_body(abi.unpack_body(page[16:]))).ljust(4096, b"\0") == page


@pytest.mark.parametrize("own", [0, 1, 5])
@pytest.mark.parametrize("marker", [0, 7, 2**32 - 1])
def test_low_half_of_marker_is_the_devices(marker: int, own: int) -> None:
    """Disruptions of the publisher's own leave the device's part of a published marker as it is."""
    assert abi.device_marker(marker + own * abi.OWN_DISRUPTION) == marker
