"""A source of time whose times tell which epoch they were measured in."""

import time
from typing import ClassVar, Final

import anyio
from pydantic import BaseModel

from vmclock_async import BodyUpdate, ClockStatus, Emit, SegmentReader, TimeType
from vmclock_async.timebase import COUNTER_ID, Calibration, fixed_point_period, pair
from vmclock_device import DeviceSettings

__all__ = ("HOUR_S", "AnHourOn")

HOUR_S: Final = 3600


class AnHourOn:
    """Ahead of the clock by an hour for each disruption that it has seen.

    Between measuring and emitting it waits, so that most migrations find an old time on its way. Whether the
    counter is fit it does not ask: what is checked with it is the order of commits, not the time.
    """

    settings_type: ClassVar[type[BaseModel]] = DeviceSettings

    def __init__(self, settings: DeviceSettings) -> None:
        self._path: Final = settings.path
        self._hours = 0

    async def run(self, emit: Emit) -> None:
        """Measure about a hundred times a second; after a disruption, only half a second later."""
        with SegmentReader(self._path) as device:
            while True:
                marker, calibration = device.disruption_marker, Calibration()
                await anyio.sleep(0.5)
                epoch = emit.epoch  # before the marker is looked at, or an old time could pass for a new one
                while device.disruption_marker == marker:
                    update = self._measured(calibration)
                    await anyio.sleep(0.01)
                    await emit(update, epoch=epoch)
                    epoch = emit.epoch
                self._hours += 1

    def _measured(self, calibration: Calibration) -> BodyUpdate:
        pairing = pair(time.CLOCK_REALTIME)
        period = fixed_point_period(*calibration.rate().ns_per_tick.as_integer_ratio())
        seconds, ns = divmod(pairing.clock_ns, 10**9)
        return BodyUpdate(
            counter_id=COUNTER_ID,
            time_type=TimeType.UTC,
            clock_status=ClockStatus.SYNCHRONIZED,
            counter_value=pairing.counter_ticks,
            counter_period_shift=period.shift,
            counter_period_frac_sec=period.frac_sec,
            counter_period_maxerror_rate_frac_sec=period.frac_sec // 100,
            time_sec=seconds + self._hours * HOUR_S,
            time_frac_sec=(ns << 64) // 10**9,
            time_maxerror_nanosec=50_000_000,
        )
