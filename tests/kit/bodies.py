"""Bodies and updates of any values, and what the ABI says of their fields."""

from hypothesis import strategies as st

from vmclock_async import ClockStatus, CounterId, Flags, LeapIndicator, SmearingHint, TimeType, VMClockBody

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
