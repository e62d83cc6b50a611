"""The ranges and types of the body's fields, as pydantic checks them."""

from collections.abc import Callable
from enum import IntEnum
from functools import cache, lru_cache
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from vmclock_async.abi import ClockStatus, CounterId, Flags, LeapIndicator, SmearingHint, TimeType

U64_MAX: Final = 2**64 - 1


class Range:
    """Integers from `low` to `high`, shown as `convert` makes them; None only where `nullable`."""

    def __init__(
        self, low: int, high: int, convert: Callable[[int], int] | None = None, *, nullable: bool = False
    ) -> None:
        self.low, self.high, self.convert, self.nullable = low, high, convert, nullable

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        schema: CoreSchema = core_schema.int_schema(ge=self.low, le=self.high, strict=True)
        if self.convert is not None:
            schema = core_schema.no_info_after_validator_function(self.convert, schema)
        if self.nullable:
            schema = core_schema.nullable_schema(schema)
        message = f"must be an integer from {self.low} to {self.high}"
        return core_schema.custom_error_schema(
            schema,
            custom_error_type="out_of_range",
            custom_error_message=message + (", or None" if self.nullable else ""),
        )


def _member_of(enum: type[IntEnum]) -> Callable[[int], int]:
    """A converter to *enum* that leaves the values it does not name as they are."""
    members: dict[int, IntEnum] = {member.value: member for member in enum}

    @cache
    def convert(value: int) -> int:
        return members.get(value, value)

    return convert


flags: Final = lru_cache(maxsize=256)(Flags)
clock_status = _member_of(ClockStatus)
smearing_hint = _member_of(SmearingHint)
leap_indicator = _member_of(LeapIndicator)
counter_id = _member_of(CounterId)
time_type = _member_of(TimeType)

U8 = Annotated[int, Range(0, 0xFF)]
I16 = Annotated[int, Range(-0x8000, 0x7FFF)]
U64 = Annotated[int, Range(0, U64_MAX)]
Spoken = Annotated[int | None, Range(0, U64_MAX)]
"""A 64-bit field of an update, which has a value where the update speaks for it."""
Clearable = Annotated[int | None, Range(0, U64_MAX, nullable=True)]
"""A 64-bit field of an update with a validity flag, which None clears."""
