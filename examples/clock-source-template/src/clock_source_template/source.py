"""The source: one exchange a poll, and each makes one update.

    error = half the round trip + the server's root distance + the last unit of its timestamps

The server read its clock at some moment between question and answer; in the middle, it is off by half of that at most.
"""

from fractions import Fraction
from typing import ClassVar, Final, final

import anyio
from pydantic import BaseModel, ConfigDict, Field

from clock_source_template.sntp import Exchange, ask
from vmclock_async import BodyUpdate, CounterId, Emit, LeapIndicator, SourceUnavailableError
from vmclock_async.timebase import Calibration, Rate, counter_unfit_because

__all__ = ("SntpSettings", "SntpSource")

NAME: Final = "sntp"
DRIFT: Final = Fraction(500, 10**6)
"""How far CLOCK_MONOTONIC_RAW, which the calibration goes by, may be off true time's rate (kernel: MAXFREQ)."""
CALIBRATION_S: Final = 0.1
LEAPS: Final = {1: LeapIndicator.PRE_POS, 2: LeapIndicator.PRE_NEG}


@final
class SntpSettings(BaseModel):
    """Options of the source: ``--set sntp.server=...``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    server: str = Field(description="name or address of an NTP server that does not smear leap seconds")
    port: int = Field(default=123, ge=1, le=65535, description="its UDP port")
    poll_interval: float = Field(
        default=16.0, ge=0.1, allow_inf_nan=False, description="seconds between two questions"
    )
    patience: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="seconds to wait for an answer")


@final
class SntpSource:
    """Tells the time of an NTP server."""

    settings_type: ClassVar[type[BaseModel]] = SntpSettings

    def __init__(self, settings: SntpSettings) -> None:
        self._settings = settings  # nothing else: all that waits is in run()

    async def run(self, emit: Emit) -> None:
        """Ask once a ``poll_interval``, for ever.

        Raises:
            SourceUnavailableError: the counter is unfit, or the server gives no time now.
        """
        settings = self._settings
        calibration: Calibration | None = None
        calibrated = 0
        while True:
            epoch = emit.epoch  # before the measurement: if a disruption ends it meanwhile, the update is dropped
            if calibration is None or epoch != calibrated:
                if reason := counter_unfit_because():
                    await emit(BodyUpdate(counter_id=CounterId.INVALID))
                    raise SourceUnavailableError(NAME, reason)
                calibration, calibrated = Calibration(), epoch  # what was known of the counter is void
                await anyio.sleep(CALIBRATION_S)
                continue  # the epoch may have ended
            try:
                exchange = await ask(settings.server, settings.port, settings.patience)
            except (OSError, ValueError, anyio.BrokenResourceError) as exc:
                reason = f"{settings.server}, port {settings.port}, gives no time ({exc or type(exc).__name__})"
                raise SourceUnavailableError(NAME, f"{reason}; is it an NTP server that may be asked?") from exc
            try:
                rate = calibration.rate()
            except ValueError:
                calibration = None  # the counter went back, and the publisher ends the epoch
                continue
            await emit(update_of(exchange, rate), epoch=epoch)
            await anyio.sleep(settings.poll_interval)


def update_of(exchange: Exchange, rate: Rate) -> BodyUpdate:
    """The update that says what *exchange* found."""
    longest_tick_ns = rate.ns_per_tick * (1 + DRIFT) + rate.error
    # A tick for the rounding of the middle, one for the counter's own last; a ns for the timestamps' last unit.
    error_ns = (Fraction(exchange.round_trip_ticks, 2) + 2) * longest_tick_ns + exchange.root_distance_ns + 1
    return BodyUpdate.measured(
        counter_ticks=exchange.counter_ticks,
        utc_ns=exchange.utc_ns,
        error_ns=error_ns,
        rate=rate,
        drift=DRIFT,
        leap_indicator=LEAPS.get(exchange.leap, LeapIndicator.NONE),
    )
