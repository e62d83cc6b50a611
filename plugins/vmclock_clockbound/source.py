"""The clockbound source and its settings: one poll a second, from ClockBound's segment to an update.

    SYNCHRONIZED or FREERUNNING, and fresh     a measurement (see ``measure``) of that status
    either of them, and older than 5 s         FREERUNNING, once, and no measurement: the last one stays, and grows
    UNKNOWN, DISRUPTED, void, another marker   UNKNOWN, once: there is no time
    no segment, or nothing that can be read    SourceUnavailableError: the publisher runs this again

ClockBound's disruption marker is that of the VMClock device. It is emitted, so a publisher that has no better source of
it begins an epoch when it changes. A bound counts only if ClockBound has measured it since the epoch was seen to begin,
and since CLOCK_REALTIME was seen to be set. Where ClockBound watches for disruptions, this source compares its marker
with the device, as ClockBound's own clients do.

It does not see what ClockBound's bound rests on after a disruption that no device reports: it was measured since, but
perhaps by a chronyd with older measurements. On such a machine the source chrony is better.
"""

import logging
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import ClassVar, Final, final

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from vmclock_async import BodyUpdate, ClockStatus, CounterId, Emit, SourceUnavailableError
from vmclock_async.clockbound import ErrorBoundStatus, Layout
from vmclock_async.errors import SegmentError, SegmentNotInitializedError, SegmentUnstableError
from vmclock_async.sources import Explanation
from vmclock_async.timebase import Calibration, Steering
from vmclock_clockbound.machine import Machine
from vmclock_clockbound.measure import Reading, Steps, explanation, time_update

__all__ = ("ClockBoundSettings", "ClockBoundSource")

_DIRECTORY: Final = Path("/var/run/clockbound")
_CALIBRATION_S: Final = 0.1
_ASK_AGAIN_S: Final = 0.01
"""Pause, in seconds, before another look at what is being written; longer than a tick of the kernel."""
_ASK_AT_MOST: Final = 50
_FRESH_NS: Final = 5 * 10**9
"""Age, in nanoseconds, from which ClockBound's clients call a bound free-running: its daemon may have ended."""
_AHEAD_NS: Final = 1000
"""ClockBound's clients tolerate a bound that is from so many nanoseconds ahead of their own clock."""

_log: Final = logging.getLogger("vmclock_async.clockbound")


@final
class ClockBoundSettings(BaseModel):
    """Options of the clockbound source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path | None = Field(
        None, description="ClockBound's segment; by default /var/run/clockbound/shm0, or shm1 for layout 3"
    )
    layout: int = Field(2, ge=2, le=3, description="its layout, 2 or 3; 3 is experimental")
    poll_interval: float = Field(1.0, gt=0, allow_inf_nan=False, description="seconds between two measurements")
    max_clock_error_ppm: Decimal = Field(
        Decimal(50), ge=0, le=100_000, description="how far off an oscillator may be, parts per million"
    )
    device: Path = Field(
        Path("/dev/vmclock0"),
        description="the VMClock device, whose marker is compared with ClockBound's where ClockBound watches it",
    )


@final
class _Epoch:
    """Knowledge of one epoch, which is void in the next."""

    def __init__(self, number: int, *, since_ns: int) -> None:
        self.number: Final = number
        self.calibration: Final = Calibration()
        self.calibrated = False
        self.steering = Steering()
        self.since_ns = since_ns
        """CLOCK_MONOTONIC from which a bound must be, so that it contains what has happened."""
        self.was_measured = False


@final
class ClockBoundSource:
    """Gives the time of this machine's own clock, with ClockBound's bound.

    Raises from ``run``:
        SourceUnavailableError: there is no segment, or it cannot be used; or the counter is unfit.
    """

    settings_type: ClassVar[type[BaseModel]] = ClockBoundSettings
    rests_on_system_clock: ClassVar[bool] = True

    def __init__(self, settings: ClockBoundSettings, *, machine: Machine | None = None) -> None:
        layout = Layout(settings.layout)
        self._settings = settings
        self._path: Final = settings.path or _DIRECTORY / layout.file_name
        self._machine: Final = machine or Machine(self._path, layout, settings.device)
        self._clock_error: Final = Fraction(settings.max_clock_error_ppm) / 10**6
        self._epoch: _Epoch | None = None
        self._marker: int | None = None
        """The marker last emitted."""
        self._told: ClockStatus | None = None
        """The status last emitted."""
        self._steps: Final = Steps()
        """They go on from run to run, because the clock does."""
        self._warned_of_device = False
        self._explain: Callable[[], Explanation | None] = lambda: None
        """Makes the terms of the last measurement, which few ask for."""

    def probe(self) -> str:
        """What the segment says, in words.

        Raises:
            SourceUnavailableError: as for ``run``.
        """
        if reason := self._machine.counter_unfit_because():
            raise SourceUnavailableError("clockbound", reason)
        try:
            bound = self._machine.bound()
        except SegmentError as exc:
            raise SourceUnavailableError("clockbound", str(exc)) from exc
        age_s = (self._machine.monotonic_ns() - bound.as_of_ns) / 10**9
        return f"{self._path}, {bound.status.name}, bound {bound.bound_ns / 1000:g} us, {age_s:.1f} s old"

    def explanation(self) -> Explanation | None:
        """The terms of the last measurement's bound."""
        return self._explain()

    async def run(self, emit: Emit) -> None:
        """Measure once a ``poll_interval``, for ever."""
        self._told = self._marker = None
        while True:
            number = emit.epoch  # read before the measurement
            epoch = self._epoch
            if epoch is None or epoch.number != number or not epoch.calibrated:
                await self._begin(number, emit)
                continue  # the epoch may have ended meanwhile
            reading = await self._read()
            if not await self._tell_marker(reading, emit):
                await self._tell(epoch, reading, emit)
            await anyio.sleep(self._settings.poll_interval)

    async def _begin(self, number: int, emit: Emit) -> None:
        if reason := self._machine.counter_unfit_because():
            await emit(BodyUpdate(counter_id=CounterId.INVALID))
            raise SourceUnavailableError("clockbound", reason)
        former = self._epoch
        if former is not None and former.number == number:
            since_ns = former.since_ns
        else:
            # A publisher's first epoch is 0. Any other begins with a disruption, though nobody saw it here.
            since_ns = 0 if former is None and number == 0 else self._machine.monotonic_ns()
        self._epoch = epoch = _Epoch(number, since_ns=since_ns)
        self._told = None
        await anyio.sleep(_CALIBRATION_S)
        epoch.calibrated = True

    async def _read(self) -> Reading:
        """A consistent reading, after a few tries.

        Raises:
            SourceUnavailableError: there is none.
        """
        seen = "the kernel's clock state changes at each look"
        for _ in range(_ASK_AT_MOST):
            try:
                reading = await anyio.to_thread.run_sync(self._machine.read)
            except (SegmentNotInitializedError, SegmentUnstableError) as exc:
                seen = str(exc)  # ClockBound may be starting, and begin its segment afresh
            except SegmentError as exc:
                raise SourceUnavailableError("clockbound", str(exc)) from exc
            else:
                if reading.is_consistent:
                    return reading
            await anyio.sleep(_ASK_AGAIN_S)
        raise SourceUnavailableError("clockbound", seen)

    async def _tell_marker(self, reading: Reading, emit: Emit) -> bool:
        """Emit a marker that is new; whether it differs from one before, so that *reading* may be void."""
        bound, before = reading.bound, self._marker
        if not bound.detects_disruptions or bound.disruption_marker == before:
            return False
        self._marker = bound.disruption_marker
        await emit(BodyUpdate(disruption_marker=self._marker))
        return before is not None

    async def _tell(self, epoch: _Epoch, reading: Reading, emit: Emit) -> None:
        if self._steps.seen(reading):
            epoch.since_ns = reading.after_ns
        status, reason = self._status(epoch, reading)
        if reason is None:
            try:
                raw = epoch.calibration.rate()
            except ValueError:
                epoch.calibrated = False  # the counter went back: the publisher then ends the epoch
                return
            rate = epoch.steering.rate(reading, raw)
            update = time_update(reading, rate, raw, self._clock_error, status=status)
            self._explain = partial(explanation, reading, rate, raw, self._clock_error)
            epoch.was_measured = True
            self._told = status
            await emit(update, epoch=epoch.number)
        elif status != self._told:
            _log.warning("%s: %s", "there is no time" if status == ClockStatus.UNKNOWN else status.name, reason)
            self._told = status
            # This is no measurement, but without one of this epoch there is nothing that could run free.
            await emit(BodyUpdate(clock_status=status), epoch=epoch.number)

    def _status(self, epoch: _Epoch, reading: Reading) -> tuple[ClockStatus, str | None]:
        """The status, and why there is no measurement; None if there is one."""
        bound, marker = reading.bound, reading.device_marker
        without = ClockStatus.FREERUNNING if epoch.was_measured else ClockStatus.INITIALIZING
        age_ns = reading.after_ns - bound.as_of_ns
        if bound.status == ErrorBoundStatus.DISRUPTED:
            return ClockStatus.UNKNOWN, "ClockBound says that the clock was disrupted; wait until it is set right"
        if bound.status == ErrorBoundStatus.UNKNOWN:
            return (
                ClockStatus.UNKNOWN,
                "ClockBound does not know how far off the clock is; is chronyd synchronized?",
            )
        if age_ns < -_AHEAD_NS:
            return ClockStatus.UNKNOWN, (
                f"ClockBound's bound is from {-age_ns} ns ahead: its daemon may run in another time namespace, or have "
                "ended before a restore; start it again"
            )
        if bound.detects_disruptions and marker is None and not self._warned_of_device:
            self._warned_of_device = True
            _log.warning(
                "%s cannot be read, so a disruption is seen only when ClockBound has seen it; let this user read it",
                self._settings.device,
            )
        if bound.detects_disruptions and marker not in (None, bound.disruption_marker):
            return ClockStatus.UNKNOWN, (
                f"the device's disruption marker is {marker}, and ClockBound's is {bound.disruption_marker}: wait "
                "until ClockBound has seen the disruption"
            )
        if reading.after_ns >= bound.void_after_ns:
            return ClockStatus.UNKNOWN, f"ClockBound's bound is void, {age_ns / 1e9:.0f} s old; start its daemon"
        if bound.as_of_ns < epoch.since_ns:
            return without, "ClockBound's bound is from before the clock was set, or the counter disrupted"
        if age_ns >= _FRESH_NS:
            return without, f"ClockBound's bound is {age_ns / 1e9:.0f} s old; does its daemon run?"
        if bound.status == ErrorBoundStatus.FREERUNNING:
            return ClockStatus.FREERUNNING, None
        return ClockStatus.SYNCHRONIZED, None
