"""Bodies, updates and snapshots: what they refuse, what passes through unchanged, and how an update is applied."""

import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    CounterId,
    Flags,
    LeapIndicator,
    SmearingHint,
    Snapshot,
    TimeType,
    VMClockBody,
    abi,
    errors,
)
from vmclock_async._wording import validation_reason
from vmclock_async.models import VALIDITY_FLAGS

U64_MAX = 2**64 - 1
U8 = (0, 0xFF)
I16 = (-0x8000, 0x7FFF)
U64 = (0, U64_MAX)
RANGES = {
    "disruption_marker": U64,
    "flags": U64,
    "clock_status": U8,
    "leap_second_smearing_hint": U8,
    "tai_offset_sec": I16,
    "leap_indicator": U8,
    "counter_period_shift": U8,
    "counter_value": U64,
    "counter_period_frac_sec": U64,
    "counter_period_esterror_rate_frac_sec": U64,
    "counter_period_maxerror_rate_frac_sec": U64,
    "time_sec": U64,
    "time_frac_sec": U64,
    "time_esterror_nanosec": U64,
    "time_maxerror_nanosec": U64,
    "vm_generation_counter": U64,
}
CONSTANTS = {"counter_id": U8, "time_type": U8}
VALIDITY = {
    "tai_offset_sec": 1 << 0,
    "counter_period_esterror_rate_frac_sec": 1 << 3,
    "counter_period_maxerror_rate_frac_sec": 1 << 4,
    "time_esterror_nanosec": 1 << 5,
    "time_maxerror_nanosec": 1 << 6,
    "vm_generation_counter": 1 << 8,
}
GENERATION = 1 << 8
SPOKEN = U64_MAX & ~sum(VALIDITY.values()) & ~(1 << 9)
ENUMS: dict[str, type[int]] = {
    "clock_status": ClockStatus,
    "leap_second_smearing_hint": SmearingHint,
    "leap_indicator": LeapIndicator,
    "counter_id": CounterId,
    "time_type": TimeType,
    "flags": Flags,
}
CLOCKBOUND_BODY = VMClockBody(disruption_marker=2, clock_status=ClockStatus.SYNCHRONIZED, tai_offset_sec=37)


def body_values() -> st.SearchStrategy[dict[str, int]]:
    """Values for all fields of a body, the generation counter sometimes left out."""
    fields = {name: st.integers(*limits) for name, limits in RANGES.items()}
    optional = {"vm_generation_counter": fields.pop("vm_generation_counter")}
    return st.fixed_dictionaries(fields, optional=optional)


BODIES = body_values().map(lambda values: VMClockBody.model_validate(values))
UPDATES = st.fixed_dictionaries(
    {},
    optional={
        name: st.none() | st.integers(*limits) if name in VALIDITY else st.integers(*limits)
        for name, limits in (RANGES | CONSTANTS).items()
    },
)


# Bodies.


def test_body_is_zeros_unless_told() -> None:
    """Every field has a default of zero, the generation counter of None; 88 zero bytes are what that packs to."""
    body = VMClockBody()
    assert {name: getattr(body, name) for name in RANGES} == {
        **dict.fromkeys(RANGES, 0),
        "vm_generation_counter": None,
    }
    assert body.pack() == bytes(88)
    assert tuple(VMClockBody.model_fields) == abi.BODY_FIELDS


@given(values=body_values())
def test_unpack_is_the_inverse_of_pack(values: dict[str, int]) -> None:
    """A body of any values, unknown enum values and flag bits included, comes back equal, types too."""
    body = VMClockBody.model_validate(values)
    packed = body.pack()
    found = VMClockBody.unpack(packed)
    assert found == body
    assert found.pack() == packed
    for name in RANGES:
        assert type(getattr(found, name)) is type(getattr(body, name)), name
        if name != "flags":
            assert getattr(body, name) == values.get(name)
    # A generation counter is not there without its flag.
    generation = GENERATION if "vm_generation_counter" in values else 0
    assert body.flags == values["flags"] | generation
    assert len(packed) == (96 if generation else 88)


@given(body=st.binary(min_size=88, max_size=88))
def test_pack_is_the_inverse_of_unpack(body: bytes) -> None:
    """Any 88 bytes come back, but for the two of padding, which are zero."""
    assert VMClockBody.unpack(body).pack() == body[:0x10] + bytes(2) + body[0x12:]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_body_is_unpacked_from_any_buffer(kind: type[bytes] | type[bytearray] | type[memoryview]) -> None:
    """What follows 0x6F is ignored; the generation counter is taken where flag and bytes are there."""
    body = VMClockBody(disruption_marker=3, vm_generation_counter=9)
    assert VMClockBody.unpack(kind(body.pack() + b"\xff" * 100)) == body
    assert VMClockBody.unpack(kind(body.pack()[:88])).vm_generation_counter is None


@pytest.mark.parametrize("length", [0, 87])
def test_body_has_at_least_88_bytes(length: int) -> None:
    """Fewer are a ValueError that says how many there were."""
    with pytest.raises(ValueError, match=f"at least 88 bytes, not {length}"):
        VMClockBody.unpack(bytes(length))


@pytest.mark.parametrize("model", [VMClockBody, BodyUpdate])
@pytest.mark.parametrize("name", ["clock_status", "leap_second_smearing_hint", "leap_indicator", "flags"])
def test_values_become_members_of_their_enum(model: type[VMClockBody] | type[BodyUpdate], name: str) -> None:
    """A value with a name is that member; one without stays a plain int; unknown flag bits stay set."""
    known = getattr(model.model_validate({name: 2}), name)
    assert known == 2
    assert type(known) is ENUMS[name]
    unknown = getattr(model.model_validate({name: 0xEE}), name)
    assert unknown == 0xEE
    assert type(unknown) is (Flags if name == "flags" else int)


@pytest.mark.parametrize(
    ("model", "name"),
    [*((VMClockBody, name) for name in RANGES), *((BodyUpdate, name) for name in RANGES | CONSTANTS)],
)
def test_value_outside_its_range_is_refused(model: type[VMClockBody] | type[BodyUpdate], name: str) -> None:
    """The ends of the range are taken; one past either is refused, with the field's name and the range."""
    low, high = (RANGES | CONSTANTS)[name]
    for value in (low, high):
        assert getattr(model.model_validate({name: value}), name) == value
    for value in (low - 1, high + 1, 2**100, -(2**100)):
        with pytest.raises(ValidationError) as caught:
            model.model_validate({name: value})
        (error,) = caught.value.errors()
        assert error["loc"] == (name,)
        assert error["msg"].startswith(f"must be an integer from {low} to {high}")
        assert validation_reason(caught.value).startswith(f"{name}: must be an integer from {low} to {high}")


@pytest.mark.parametrize("model", [VMClockBody, BodyUpdate])
@pytest.mark.parametrize("value", ["1", 1.0, True, b"1", [1], {}])
@pytest.mark.parametrize("name", RANGES)
def test_nothing_is_converted(model: type[VMClockBody] | type[BodyUpdate], name: str, value: object) -> None:
    """Strings, floats and booleans are not integers, however close."""
    with pytest.raises(ValidationError, match="must be an integer"):
        model.model_validate({name: value})


@pytest.mark.parametrize("model", [VMClockBody, BodyUpdate])
def test_unknown_fields_are_refused(model: type[VMClockBody] | type[BodyUpdate]) -> None:
    """A name that the ABI does not have is an error, not ignored."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate({"time_seconds": 1})
    assert validation_reason(caught.value) == "time_seconds: no such field"


@pytest.mark.parametrize("value", [VMClockBody(), BodyUpdate(time_sec=1)])
def test_models_are_frozen(value: VMClockBody | BodyUpdate) -> None:
    """A field cannot be set, and so an instance can be shared."""
    with pytest.raises(ValidationError, match="frozen"):
        value.time_sec = 2  # type: ignore[misc]


def test_body_without_generation_counter_keeps_its_flag() -> None:
    """The flag alone, as a 104-byte segment may have it, is carried through and makes no counter."""
    body = VMClockBody(flags=Flags.VM_GEN_COUNTER_PRESENT)
    assert body.vm_generation_counter is None
    assert VMClockBody.unpack(body.pack()) == body


@given(body=BODIES)
def test_bodies_survive_json_and_pickle(body: VMClockBody) -> None:
    """A body is the same body after a trip through JSON, through Python objects, and through pickle."""
    for found in (
        VMClockBody.model_validate_json(body.model_dump_json()),
        VMClockBody.model_validate(body.model_dump()),
        pickle.loads(pickle.dumps(body)),
    ):
        assert found == body
        assert found.pack() == body.pack()
        assert type(found.flags) is Flags


# Updates.


def expected_after(update: dict[str, int | None], body: VMClockBody) -> dict[str, int | None]:
    """What *update* makes of *body*, said as the rules say it."""
    values: dict[str, int | None] = {name: getattr(body, name) for name in RANGES}
    flags = int(body.flags)
    if (own := update.get("flags")) is not None:
        flags = flags & ~SPOKEN | own & SPOKEN
    for name, value in update.items():
        if name in CONSTANTS or name == "flags":
            continue
        if value is None:
            flags &= ~VALIDITY[name]
        elif name in VALIDITY:
            flags |= VALIDITY[name]
        if value is not None or name == "vm_generation_counter":
            values[name] = value
    return values | {"flags": flags}


@given(body=BODIES, values=UPDATES)
def test_update_speaks_for_what_was_given_and_no_more(body: VMClockBody, values: dict[str, int | None]) -> None:
    """Valued fields change and raise their flag, None clears it, ``flags`` moves its own bits, the rest stays."""
    update = BodyUpdate.model_validate(values)
    assert update.model_fields_set == set(values)
    result = update.applied_to(body)
    assert {name: getattr(result, name) for name in RANGES} == expected_after(values, body)
    assert {name: type(getattr(result, name)) for name in RANGES} == {
        name: type(getattr(VMClockBody.unpack(result.pack()), name)) for name in RANGES
    }
    assert VMClockBody.unpack(result.pack()) == result
    assert update.applied_to(result) == result


@pytest.mark.parametrize("name", VALIDITY)
def test_field_with_a_flag_raises_and_clears_it(name: str) -> None:
    """A value, zero too, raises the field's flag; None clears it; neither touches another flag."""
    others = Flags(U64_MAX & ~VALIDITY[name])
    for value in (0, 5):
        raised = BodyUpdate.model_validate({name: value}).applied_to(VMClockBody(flags=others))
        assert raised.flags == U64_MAX
        assert getattr(raised, name) == value
    cleared = BodyUpdate.model_validate({name: None}).applied_to(raised)
    assert cleared.flags == others
    assert VALIDITY_FLAGS[name] == VALIDITY[name]


@pytest.mark.parametrize("name", [name for name in RANGES | CONSTANTS if name not in VALIDITY])
def test_none_is_refused_where_there_is_no_flag(name: str) -> None:
    """A field that is always valid cannot be cleared: leaving it out is how to say nothing."""
    with pytest.raises(ValidationError) as caught:
        BodyUpdate.model_validate({name: None})
    (error,) = caught.value.errors()
    assert error["loc"] == (name,)


@pytest.mark.parametrize("before", [0, U64_MAX])
@pytest.mark.parametrize("given_flags", [0, U64_MAX])
def test_flags_speaks_for_its_own_bits(before: int, given_flags: int) -> None:
    """DISRUPTION_SOON, DISRUPTION_IMMINENT, TIME_MONOTONIC and unknown bits follow; validity and presence stay."""
    body = VMClockBody(flags=Flags(before))
    result = BodyUpdate(flags=Flags(given_flags)).applied_to(body)
    assert result.flags & SPOKEN == given_flags & SPOKEN
    assert result.flags & ~SPOKEN & U64_MAX == before & ~SPOKEN & U64_MAX
    assert BodyUpdate.SPOKEN_FLAGS == SPOKEN
    named = Flags.DISRUPTION_SOON | Flags.DISRUPTION_IMMINENT | Flags.TIME_MONOTONIC
    assert SPOKEN & 0x3FF == named.value


def test_empty_update_changes_nothing() -> None:
    """An update that speaks for no field leaves the body equal, and so do the constants."""
    for update in (BodyUpdate(), BodyUpdate(counter_id=CounterId.X86_TSC, time_type=TimeType.TAI)):
        assert update.applied_to(CLOCKBOUND_BODY) == CLOCKBOUND_BODY
    assert BodyUpdate(counter_id=1, time_type=77).model_dump(exclude_unset=True) == {
        "counter_id": 1,
        "time_type": 77,
    }


@given(body=BODIES, before=BODIES)
def test_update_from_a_body_is_that_body(body: VMClockBody, before: VMClockBody) -> None:
    """Whatever was there before, the result is the body to the bit, flags as they were."""
    update = BodyUpdate.from_body(body)
    assert update.applied_to(before) == body
    assert update.applied_to(before).pack() == body.pack()
    assert update.model_fields_set == set(RANGES)


def test_body_of_clockbound_is_copied_verbatim() -> None:
    """tai_offset_sec 37 without TAI_OFFSET_VALID, as ClockBound writes it, does not raise the flag."""
    result = BodyUpdate.from_body(CLOCKBOUND_BODY).applied_to(VMClockBody(flags=Flags(U64_MAX)))
    assert (result.tai_offset_sec, result.flags) == (37, 0)


def test_update_from_a_body_may_set_the_constants() -> None:
    """Constants that are given are spoken for, those that are not are kept; out of range they are refused."""
    update = BodyUpdate.from_body(CLOCKBOUND_BODY, counter_id=1)
    assert isinstance(update, BodyUpdate)
    assert (update.counter_id, update.time_type) == (CounterId.X86_TSC, None)
    assert update.model_fields_set == {*RANGES, "counter_id"}
    assert BodyUpdate.from_body(CLOCKBOUND_BODY, counter_id=0, time_type=0).model_fields_set == {
        *RANGES,
        *CONSTANTS,
    }
    with pytest.raises(ValidationError, match="from 0 to 255"):
        BodyUpdate.from_body(CLOCKBOUND_BODY, time_type=256)


@given(values=UPDATES)
def test_updates_survive_json_and_pickle(values: dict[str, int | None]) -> None:
    """An update speaks for the same fields after a trip through JSON or pickle."""
    update = BodyUpdate.model_validate(values)
    for found in (
        BodyUpdate.model_validate_json(update.model_dump_json(exclude_unset=True)),
        pickle.loads(pickle.dumps(update)),
    ):
        assert found == update
        assert found.model_fields_set == update.model_fields_set
        assert found.applied_to(CLOCKBOUND_BODY) == update.applied_to(CLOCKBOUND_BODY)


@given(body=BODIES)
def test_update_from_a_body_survives_pickle(body: VMClockBody) -> None:
    """It is still copied verbatim."""
    update = pickle.loads(pickle.dumps(BodyUpdate.from_body(body, counter_id=1)))
    assert update.applied_to(VMClockBody()) == body
    assert update.counter_id == 1


# Snapshots.


def snapshot_of(body: VMClockBody, **header: int) -> Snapshot:
    """A snapshot of a page with *body*."""
    packed = body.pack()
    fields = {"magic": abi.MAGIC, "size": 16 + len(packed), "version": 1, "counter_id": 0, "time_type": 0}
    return Snapshot.unpack(abi.pack_header(abi.Header(**{**fields, "seq_count": 2, **header})) + packed, inode=5)


def test_snapshot_has_the_header_and_the_body() -> None:
    """Header fields by their names, known constants as members, unknown ones as plain ints, the inode as given."""
    snapshot = snapshot_of(CLOCKBOUND_BODY, counter_id=1, time_type=200, seq_count=2**32 - 2)
    assert (snapshot.magic, snapshot.size, snapshot.version) == (abi.MAGIC, 104, 1)
    assert snapshot.counter_id is CounterId.X86_TSC
    assert type(snapshot.time_type) is int
    assert (snapshot.time_type, snapshot.seq_count, snapshot.inode) == (200, 2**32 - 2, 5)
    assert snapshot.body == CLOCKBOUND_BODY


@pytest.mark.parametrize(("size", "found"), [(104, None), (111, None), (112, 9), (4096, 9)])
def test_generation_counter_needs_room_in_the_region(size: int, found: int | None) -> None:
    """Bytes past the region's size are not the page's, even where they are mapped and the flag is set."""
    snapshot = snapshot_of(VMClockBody(vm_generation_counter=9), size=size)
    assert snapshot.body.vm_generation_counter == found
    assert snapshot.body.flags == GENERATION


@given(body=BODIES, seq_count=st.integers(0, 2**32 - 1), constant=st.integers(0, 255))
def test_snapshots_survive_json_and_pickle(body: VMClockBody, seq_count: int, constant: int) -> None:
    """A snapshot is the same after a trip through JSON or pickle."""
    snapshot = snapshot_of(body, seq_count=seq_count, counter_id=constant, time_type=constant)
    assert Snapshot.model_validate_json(snapshot.model_dump_json()) == snapshot
    assert pickle.loads(pickle.dumps(snapshot)) == snapshot


def test_snapshots_are_frozen() -> None:
    """A snapshot cannot be changed."""
    with pytest.raises(ValidationError, match="frozen"):
        snapshot_of(VMClockBody()).seq_count = 4  # type: ignore[misc]


@pytest.mark.parametrize("folder", ["clockbound-writer", "linux-device"])
def test_captured_pages_are_snapshots(vectors: Path, folder: str) -> None:
    """Every page that others wrote unpacks, and its body packs to the bytes that were there."""
    paths = sorted((vectors / folder).glob("*.bin"))
    assert paths
    for path in paths:
        page = path.read_bytes()
        snapshot = Snapshot.unpack(page, inode=1)
        assert snapshot.size == len(page)
        assert snapshot.body.pack() == page[16:104]


# Errors.

ALL_ERRORS: list[tuple[type[errors.VMClockError], tuple[Any, ...], str]] = [
    (errors.SegmentError, ("/run/shm0", "why"), "/run/shm0: why"),
    (errors.SegmentNotInitializedError, ("/run/shm0", "why"), "/run/shm0: why"),
    (errors.SegmentMalformedError, ("/run/shm0", "why"), "/run/shm0: why"),
    (errors.SegmentVersionNotSupportedError, ("/run/shm0", "why"), "/run/shm0: why"),
    (errors.SegmentInUseError, ("/run/shm0", "why"), "/run/shm0: why"),
    (errors.SegmentUnstableError, ("/run/shm0", "why", 7), "/run/shm0: why"),
    (errors.SourceError, ("chrony", "why"), "chrony: why"),
    (errors.SourceUnavailableError, ("chrony", "why"), "chrony: why"),
    (errors.InvalidUpdateError, ("chrony", "why"), "chrony: why"),
    (errors.SourceSettingsError, ("chrony", "why"), "chrony: why"),
    (errors.UnknownSourceError, ("chrony", "why"), "chrony: why"),
    (errors.ClockError, ("why",), "why"),
    (errors.ClockNotSynchronizedError, ("why",), "why"),
    (errors.ClockUnboundedError, ("why",), "why"),
    (errors.ClockStaleError, ("why",), "why"),
    (errors.ClockDisruptedError, ("why",), "why"),
    (errors.CounterNotSupportedError, ("why",), "why"),
    (errors.LeaseLostError, ("why",), "why"),
    (errors.RecordingError, (Path("/tmp/x.jsonl"), 3, "why"), "/tmp/x.jsonl, line 3: why"),
    (errors.RecordingError, ("/tmp/x.jsonl", 0, "why"), "/tmp/x.jsonl: why"),
]


@pytest.mark.parametrize(
    ("error", "args", "message"), ALL_ERRORS, ids=lambda value: getattr(value, "__name__", "")
)
def test_errors_survive_pickle(error: type[errors.VMClockError], args: tuple[Any, ...], message: str) -> None:
    """An error from a worker process is the same error: type, message, arguments and attributes."""
    raised = error(*args)
    found = pickle.loads(pickle.dumps(raised))
    assert type(found) is error
    assert str(found) == str(raised) == message
    assert found.args == args
    assert vars(found) == vars(raised)
    assert error.__module__ == "vmclock_async"


def test_every_error_is_in_the_list_above() -> None:
    """No error of the package goes untested here, and all have one root."""
    public = {getattr(errors, name) for name in errors.__all__}
    assert public == {error for error, _, _ in ALL_ERRORS} | {errors.VMClockError}
    assert all(issubclass(error, errors.VMClockError) for error in public)


def test_every_field_of_an_update_is_described() -> None:
    """Each field says what it means in one line; JSON schema and the help of tools show it."""
    properties = BodyUpdate.model_json_schema()["properties"]
    assert properties.keys() == RANGES.keys() | CONSTANTS.keys()
    for name, field in properties.items():
        assert 20 < len(field["description"]) < 100, name


@pytest.mark.parametrize("update", [BodyUpdate(time_sec=1, flags=Flags(2)), BodyUpdate.from_body(CLOCKBOUND_BODY)])
def test_copy_of_an_update_is_validated(update: BodyUpdate) -> None:
    """model_copy() refuses what no update may hold, so that an instance is proof; it speaks for what it takes."""
    for field, value in {"time_sec": -1, "clock_status": 256, "nonsense": 1}.items():
        with pytest.raises(ValidationError, match=field):
            update.model_copy(update={field: value})
    copied = update.model_copy(update={"clock_status": 2})
    assert type(copied) is type(update)
    assert copied.clock_status is ClockStatus.SYNCHRONIZED
    assert copied.model_fields_set == update.model_fields_set | {"clock_status"}
    assert update.model_copy() == update
