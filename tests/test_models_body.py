"""Bodies: what they refuse, what passes through unchanged, and the bytes that hold them."""

import pickle

import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from kit.bodies import BODIES, CONSTANTS, ENUMS, GENERATION, RANGES, body_values
from vmclock_async import BodyUpdate, Flags, VMClockBody, abi
from vmclock_async._wording import validation_reason


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
