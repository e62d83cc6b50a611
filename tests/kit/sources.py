"""Sources of the tests' own, as an embedder would write them, and what they measure."""

import time
from collections.abc import Awaitable, Callable
from typing import ClassVar

import anyio
from pydantic import BaseModel

from vmclock_async import BodyUpdate, ClockStatus, CounterId, Emit, TimeType, VMClockBody
from vmclock_async.timebase import COUNTER_ID, Calibration, counter_ticks, fixed_point_period

CALIBRATION = Calibration()
Script = Callable[[Emit], Awaitable[None]]


class Settings(BaseModel):
    """No options."""


class Scripted:
    """A source that does what its script says, and counts its runs."""

    settings_type: ClassVar[type[BaseModel]] = Settings

    def __init__(self, script: Script) -> None:
        self._script = script
        self.runs = 0

    async def run(self, emit: Emit) -> None:
        self.runs += 1
        await self._script(emit)


def emitting(*updates: BodyUpdate) -> Scripted:
    """A source that emits *updates* and returns."""

    async def script(emit: Emit) -> None:
        for update in updates:
            await emit(update)

    return Scripted(script)


def raising(error: Exception) -> Scripted:
    """A source that raises *error* at once."""

    async def script(emit: Emit) -> None:
        raise error

    return Scripted(script)


def saying(*updates: BodyUpdate) -> Script:
    """A script that emits *updates*, each of the present epoch."""

    async def script(emit: Emit) -> None:
        for update in updates:
            await emit(update, epoch=emit.epoch)

    return script


async def counting_up(emit: Emit) -> None:
    """Emit one number after another, for ever."""
    number = 0
    while True:
        number += 1
        await emit(BodyUpdate(counter_value=number, time_sec=number, disruption_marker=1))


class Device(Scripted):
    """A source whose marker can be asked for; emits it once, and then says nothing any more."""

    def __init__(self, marker: int = 7) -> None:
        async def script(emit: Emit) -> None:
            page = VMClockBody(disruption_marker=self.marker)
            await emit(BodyUpdate.from_body(page, counter_id=CounterId.INVALID, time_type=TimeType.UTC))
            await anyio.sleep_forever()

        super().__init__(script)
        self.marker = marker

    def disruption_marker(self) -> int | None:
        return self.marker


def measured(*, age_ns: int = 0, error_ns: int = 10**6) -> BodyUpdate:
    """CLOCK_REALTIME as it was *age_ns* ago."""
    counter, now_ns = counter_ticks(), time.time_ns()
    rate = CALIBRATION.rate().ns_per_tick
    period = fixed_point_period(rate.numerator, rate.denominator)
    sec, ns = divmod(now_ns - age_ns, 10**9)
    return BodyUpdate(
        counter_id=COUNTER_ID,
        time_type=TimeType.UTC,
        clock_status=ClockStatus.SYNCHRONIZED,
        counter_value=counter - int(age_ns / rate),
        counter_period_shift=period.shift,
        counter_period_frac_sec=period.frac_sec,
        counter_period_maxerror_rate_frac_sec=period.frac_sec // 10_000,
        time_sec=sec,
        time_frac_sec=(ns << 64) // 10**9,
        time_maxerror_nanosec=error_ns,
    )
