"""An update: the fields of the body that a source speaks for, and what becomes of a body by it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Self, final

from pydantic import BaseModel, ConfigDict, Field

from vmclock_async._models import fields
from vmclock_async._models.body import ALL_FIELDS, VMClockBody, trusted
from vmclock_async._models.fields import U64_MAX, Clearable, Range, Spoken
from vmclock_async.abi import BODY_FIELDS, ClockStatus, CounterId, Flags, LeapIndicator, SmearingHint, TimeType

if TYPE_CHECKING:
    from fractions import Fraction

    from vmclock_async.timebase import Rate

__all__ = ("VALIDITY_FLAGS", "BodyUpdate")

_flags: Final = fields.flags
VALIDITY_FLAGS: Final = {
    "tai_offset_sec": Flags.TAI_OFFSET_VALID,
    "counter_period_esterror_rate_frac_sec": Flags.PERIOD_ESTERROR_VALID,
    "counter_period_maxerror_rate_frac_sec": Flags.PERIOD_MAXERROR_VALID,
    "time_esterror_nanosec": Flags.TIME_ESTERROR_VALID,
    "time_maxerror_nanosec": Flags.TIME_MAXERROR_VALID,
    "vm_generation_counter": Flags.VM_GEN_COUNTER_PRESENT,
}
"""The flag that says whether a field means anything."""
_VALIDITY_BITS: Final = {name: flag.value for name, flag in VALIDITY_FLAGS.items()}
_PLAIN_FIELDS: Final = ALL_FIELDS - {"flags", *VALIDITY_FLAGS}


class BodyUpdate(BaseModel):
    """An update of the body by a source: it speaks for the fields in ``model_fields_set`` and for no others.

    A field with a value raises its validity flag (``VALIDITY_FLAGS``); an explicit None, allowed where there is such
    a flag, clears it. ``flags`` speaks only for DISRUPTION_SOON, DISRUPTION_IMMINENT, TIME_MONOTONIC and bits without
    a name; its other bits are ignored. ``counter_id`` and ``time_type`` give the time its meaning; the publisher
    converts the time to the two that its segment began with. ``counter_id`` INVALID says that this machine's counter
    is not fit; in a whole body it says only that the page tells no time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)

    SPOKEN_FLAGS: ClassVar[Flags] = Flags(
        U64_MAX
        & ~(
            Flags.TAI_OFFSET_VALID
            | Flags.PERIOD_ESTERROR_VALID
            | Flags.PERIOD_MAXERROR_VALID
            | Flags.TIME_ESTERROR_VALID
            | Flags.TIME_MAXERROR_VALID
            | Flags.VM_GEN_COUNTER_PRESENT
            | Flags.NOTIFICATION_PRESENT
        ).value  # of a Flags, ~ gives the named bits alone
    )
    """The bits that ``flags`` speaks for."""

    verbatim: ClassVar[bool] = False
    """Whether this is a whole body, made by ``from_body``, that is copied as it stands."""

    MEASURED_FIELDS: ClassVar[frozenset[str]] = frozenset(
        {
            "counter_value",
            "counter_period_shift",
            "counter_period_frac_sec",
            "counter_period_esterror_rate_frac_sec",
            "counter_period_maxerror_rate_frac_sec",
            "time_sec",
            "time_frac_sec",
            "time_esterror_nanosec",
            "time_maxerror_nanosec",
        }
    )
    """The fields that make up a measurement of time."""

    disruption_marker: Spoken = Field(
        default=None, description="Changes when the counter is disrupted: a migration, a restore, a suspend"
    )
    flags: Annotated[Flags | None, Range(0, U64_MAX, Flags)] = Field(
        default=None,
        description="The notices DISRUPTION_SOON and DISRUPTION_IMMINENT, TIME_MONOTONIC, and bits without a name",
    )
    clock_status: Annotated[ClockStatus | int | None, Range(0, 0xFF, fields.clock_status)] = Field(
        default=None, description="How far the time can be trusted: a ClockStatus"
    )
    leap_second_smearing_hint: Annotated[SmearingHint | int | None, Range(0, 0xFF, fields.smearing_hint)] = Field(
        default=None,
        description="How users are to be shown a leap second: a SmearingHint; the time is not smeared",
    )
    tai_offset_sec: Annotated[int | None, Range(-0x8000, 0x7FFF, nullable=True)] = Field(
        default=None, description="Seconds to add to TAI for UTC, -37 since 2017. None: unknown"
    )
    leap_indicator: Annotated[LeapIndicator | int | None, Range(0, 0xFF, fields.leap_indicator)] = Field(
        default=None, description="The leap second ahead, in progress or over: a LeapIndicator"
    )
    counter_period_shift: Annotated[int | None, Range(0, 0xFF)] = Field(
        default=None, description="Binary places, beyond 64, of the periods and their errors"
    )
    counter_value: Spoken = Field(default=None, description="The counter at the reference time, ticks")
    counter_period_frac_sec: Spoken = Field(
        default=None, description="Seconds a tick, in units of 2**-(64 + counter_period_shift) s"
    )
    counter_period_esterror_rate_frac_sec: Clearable = Field(
        default=None, description="Estimated error a tick, same unit. None: unknown"
    )
    counter_period_maxerror_rate_frac_sec: Clearable = Field(
        default=None, description="Maximum error a tick, same unit. None: no bound"
    )
    time_sec: Spoken = Field(
        default=None,
        description="Reference time: seconds since the epoch of time_type, which is 1970 for UTC and TAI",
    )
    time_frac_sec: Spoken = Field(default=None, description="Fraction of the reference time, in units of 2**-64 s")
    time_esterror_nanosec: Clearable = Field(
        default=None, description="Estimated error of the reference time, ns. None: unknown"
    )
    time_maxerror_nanosec: Clearable = Field(
        default=None, description="Maximum error of the reference time, ns. None: no bound"
    )
    vm_generation_counter: Clearable = Field(
        default=None, description="Changes when the machine is restored or cloned. None: there is no such counter"
    )
    counter_id: Annotated[CounterId | int | None, Range(0, 0xFF, fields.counter_id)] = Field(
        default=None, description="The counter that is meant: a CounterId. INVALID: this machine's is not fit"
    )
    time_type: Annotated[TimeType | int | None, Range(0, 0xFF, fields.time_type)] = Field(
        default=None, description="Timescale of the reference time: a TimeType"
    )

    @property
    def measures(self) -> bool:
        """Whether the update speaks for a field of a measurement of time."""
        return not _MEASURED_FIELDS.isdisjoint(self.__pydantic_fields_set__)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy that speaks for the fields of *update* too.

        It validates them, which pydantic's own method does not: so an instance is proof that its values are valid.

        Raises:
            pydantic.ValidationError: a value out of range, or an unknown field.
        """
        spoken = {name: self.__dict__[name] for name in self.__pydantic_fields_set__}
        return self.model_validate({**spoken, **(update or {})})

    def __eq__(self, other: object) -> bool:
        # A field that is cleared and one that is not spoken for are both None.
        return (
            isinstance(other, BodyUpdate)
            and self.__pydantic_fields_set__ == other.__pydantic_fields_set__
            and super().__eq__(other)
        )

    def __hash__(self) -> int:
        return hash(tuple(sorted((name, self.__dict__[name]) for name in self.__pydantic_fields_set__)))

    @staticmethod
    def measured(
        *,
        counter_ticks: int,
        utc_ns: "int | Fraction",
        error_ns: "int | Fraction | None",
        rate: "Rate",
        drift: "int | Fraction",
        est_error_ns: "int | Fraction | None" = None,
        est_error_ns_per_tick: "int | Fraction | None" = None,
        tai_offset_sec: int | None = None,
        clock_status: ClockStatus = ClockStatus.SYNCHRONIZED,
        leap_indicator: LeapIndicator | None = None,
    ) -> "BodyUpdate":
        """A measurement of time by this machine's counter, in the ABI's fixed point; each rounding widens the bound.

        It speaks for all ``MEASURED_FIELDS``: an error that is not given clears that of the measurement before.

        Args:
            counter_ticks: the counter at the moment *utc_ns*, 0 to 2**64 - 1, as in ``timebase.pair()``.
            utc_ns: nanoseconds of UTC since 1970.
            error_ns: how far true time may be from *utc_ns*, with all that the pairing adds. None: no bound is known.
            rate: nanoseconds a tick, and the measurement's error in that, as ``timebase.Calibration`` has it.
            drift: the share by which the counter's true rate may change until the next measurement, on top of
                *rate*'s own error; for an ordinary oscillator ``Fraction(50, 10**6)``, which is 50 ppm.
            est_error_ns: a likely error of *utc_ns*, at most *error_ns*. It bounds nothing.
            est_error_ns_per_tick: a likely error of the rate, nanoseconds a tick.
            tai_offset_sec: seconds to add to TAI for UTC, -37 since 2017; the page then has TAI, which has no leap
                seconds. None: the page has UTC, and the update does not speak for the offset.
            clock_status: FREERUNNING where the reference is lost, and the bound still holds.
            leap_indicator: the next leap second. None: the update does not speak for it.

        Raises:
            TypeError, ValueError: an argument is of another type or out of its range; the message names it.
        """
        # The import is not at the top, because a program that only reads a segment does not need it.
        from vmclock_async.timebase import measured_fields

        fields = measured_fields(
            counter_ticks=counter_ticks,
            utc_ns=utc_ns,
            error_ns=error_ns,
            rate=rate,
            drift=drift,
            est_error_ns=est_error_ns,
            est_error_ns_per_tick=est_error_ns_per_tick,
            tai_offset_sec=tai_offset_sec,
        )
        if leap_indicator is not None:
            fields["leap_indicator"] = leap_indicator
        return BodyUpdate(clock_status=clock_status, **fields)

    @staticmethod
    def from_body(
        body: VMClockBody, *, counter_id: int | None = None, time_type: int | None = None
    ) -> "BodyUpdate":
        """An update that speaks for all of *body* and is copied verbatim, flags and unknown bits included.

        None for *counter_id* or *time_type* keeps what the segment has.

        Raises:
            pydantic.ValidationError: *counter_id* or *time_type* is not from 0 to 255.
        """
        constants = {"counter_id": counter_id, "time_type": time_type}
        update = _WholeUpdate.model_validate(
            {name: value for name, value in constants.items() if value is not None}
        )
        update.__dict__.update(body.__dict__)
        update.__pydantic_fields_set__.update(BODY_FIELDS)
        return update

    def applied_to(self, body: VMClockBody) -> VMClockBody:
        """*body* with new values in the fields that this update speaks for."""
        mine = self.__dict__
        values = body.__dict__.copy()
        flags = int(body.flags)
        for name in self.__pydantic_fields_set__:
            value = mine[name]
            if name in _PLAIN_FIELDS:
                values[name] = value
            elif name in _VALIDITY_BITS:
                bit = _VALIDITY_BITS[name]
                flags = flags & ~bit if value is None else flags | bit
                if value is not None or name == "vm_generation_counter":
                    values[name] = value  # else the flag is what clears it; the page keeps some value there
            elif name == "flags":
                flags = flags & ~_SPOKEN_BITS | value & _SPOKEN_BITS
        values["flags"] = _flags(flags)
        return trusted(VMClockBody, values, ALL_FIELDS)

    def without(self, fields: frozenset[str], **values: int) -> "BodyUpdate":
        """This update, which is no whole body, without *fields*, and with *values* of their fields' own types."""
        spoken = self.__pydantic_fields_set__ - fields
        kept = _UNSPOKEN | values
        for name in spoken - values.keys():
            kept[name] = self.__dict__[name]
        return trusted(BodyUpdate, kept, spoken.union(values))


_UNSPOKEN: Final[dict[str, Any]] = dict.fromkeys(BodyUpdate.model_fields)
_SPOKEN_BITS: Final[int] = BodyUpdate.SPOKEN_FLAGS.value
_MEASURED_FIELDS: Final = BodyUpdate.MEASURED_FIELDS


@final
class _WholeUpdate(BodyUpdate):
    """The update of ``BodyUpdate.from_body``: its flags are the body's own and do not follow from its values."""

    verbatim: ClassVar[bool] = True

    def applied_to(self, body: VMClockBody) -> VMClockBody:
        values = self.__dict__.copy()
        del values["counter_id"], values["time_type"]
        return trusted(VMClockBody, values, ALL_FIELDS)
