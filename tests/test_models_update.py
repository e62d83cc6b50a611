"""Updates: what they speak for, and what becomes of a body by them."""

import pickle

import pytest
from hypothesis import given
from pydantic import ValidationError

from kit.bodies import BODIES, CLOCKBOUND_BODY, CONSTANTS, RANGES, SPOKEN, U64_MAX, UPDATES, VALIDITY
from vmclock_async import BodyUpdate, ClockStatus, CounterId, Flags, TimeType, VMClockBody
from vmclock_async.models import VALIDITY_FLAGS


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
