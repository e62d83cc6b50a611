"""The kernel source and its settings: one poll a second, from the machine's values to an update.

It sees the kernel's clock and what its daemon wrote about it. It does not see:

* a daemon that wrote a bound which does not hold, because servers lie or the daemon guesses;
* what a daemon other than the kernel's own loop is still slewing, if that is more than ``assumed_error``;
* a disruption that no device reports and that left CLOCK_BOOTTIME as it was (a live migration without
  ``/dev/vmclock0``);
* what the daemon's new maxerror rests on after a disruption: it was written since, but perhaps from older
  measurements. On a machine with disruptions the source chrony is better.
"""

import logging
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import ClassVar, Final, final

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from vmclock_async.abi import ClockStatus, CounterId
from vmclock_async.errors import SourceUnavailableError
from vmclock_async.models import BodyUpdate
from vmclock_async.sources import Emit, Explanation
from vmclock_async.timebase import Calibration, ClockStatusBits, Steering, Timex, timescale
from vmclock_kernel.machine import Machine
from vmclock_kernel.measure import Reading, assumed_error_ns, explanation, time_update
from vmclock_kernel.written import WrittenMaxError

__all__ = ("KernelSettings", "KernelSource")

_CALIBRATION_S: Final = 0.1
_ASK_AGAIN_S: Final = 0.01
"""Pause in seconds; longer than a tick of the kernel, with which its clock catches up with its state."""
_ASK_AT_MOST: Final = 100
"""Number of tries in a row; together they take longer than any step or leap second."""
_LOOK_FOR_CHRONYD_EVERY_S: Final = 60.0

_log: Final = logging.getLogger("vmclock_async.kernel")


@final
class KernelSettings(BaseModel):
    """Options of the kernel source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    poll_interval: float = Field(1.0, gt=0, allow_inf_nan=False, description="seconds between two measurements")
    assumed_error: Decimal | None = Field(
        None,
        ge=0,
        le=10**6,
        allow_inf_nan=False,
        description="seconds that the clock may be off beyond what its daemon told the kernel; "
        "by default 0.01 where chronyd or another program slews it, else 0",
    )

    @property
    def assumed_error_ns(self) -> int | None:
        """`assumed_error` in nanoseconds, rounded up."""
        return None if self.assumed_error is None else math.ceil(Fraction(self.assumed_error) * 10**9)


@final
class _Epoch:
    """Knowledge of one epoch, which is void in the next."""

    def __init__(self, number: int, *, stale: bool) -> None:
        self.number = number
        self.calibration = Calibration()
        self.calibrated = False
        self.steering = Steering()
        self.written = WrittenMaxError(stale=stale)


@final
class KernelSource:
    """Gives the time of the kernel's clock, as a daemon keeps it.

    After a disruption it gives no time until the daemon has written maxerror again.

    Raises from ``run``:
        SourceUnavailableError: the counter is unfit, or adjtimex is refused.
    """

    settings_type: ClassVar[type[BaseModel]] = KernelSettings
    rests_on_system_clock: ClassVar[bool] = True

    def __init__(self, settings: KernelSettings, *, machine: Machine | None = None) -> None:
        self._settings = settings
        self._machine = machine or Machine()
        self._epoch: _Epoch | None = None
        self._chronyd_runs = False
        self._unsynchronized = False
        """Whether the last report was that there is no time."""
        self._explain: Callable[[], Explanation | None] = lambda: None
        """Makes the terms of the last measurement, which few ask for."""
        self._unbounded = False
        """Whether the log reports a missing bound."""

    def probe(self) -> str:
        """State of the kernel's clock, in words.

        Raises:
            SourceUnavailableError: the counter is unfit, or adjtimex is refused.
        """
        if reason := self._machine.counter_unfit_because():
            raise SourceUnavailableError("kernel", reason)
        timex = self._machine.timex()
        if timex.unsynchronized:
            return _unsynchronized(timex, chronyd_runs=self._machine.chronyd_runs())
        offset_s = timescale(timex).tai_offset_s
        scale = "UTC (no TAI offset known)" if offset_s is None else f"TAI (offset {offset_s} s)"
        if timex.maxerror_ns is None:
            return f"the kernel's clock in {scale}, synchronized, without a bound (out of range: {timex.nonsense})"
        return f"the kernel's clock in {scale}, synchronized, maxerror {timex.maxerror_ns / 1e6:g} ms"

    def explanation(self) -> Explanation | None:
        """The terms of the last measurement's bound."""
        return self._explain()

    async def run(self, emit: Emit) -> None:
        """Measure once a ``poll_interval``, for ever."""
        self._unsynchronized = False
        look_at = -math.inf
        asked = 0
        while True:
            if anyio.current_time() >= look_at:
                self._chronyd_runs = await anyio.to_thread.run_sync(self._machine.chronyd_runs)
                look_at = anyio.current_time() + _LOOK_FOR_CHRONYD_EVERY_S
            number = emit.epoch
            epoch = self._epoch
            if epoch is None or epoch.number != number or not epoch.calibrated:
                await self._begin(number, emit)
                continue  # the epoch may have ended meanwhile
            reading = self._read()
            if not reading.is_consistent:
                asked += 1
                if asked == _ASK_AT_MOST:
                    raise SourceUnavailableError("kernel", _contradiction(reading))
                await anyio.sleep(_ASK_AGAIN_S)
                continue
            asked = 0
            epoch.written.seen(reading.after.maxerror_ns, self._machine.monotonic_ns())
            if not reading.after.unsynchronized:
                await self._tell_time(epoch, reading, emit)
            elif not self._unsynchronized:
                self._unsynchronized = True
                _log.warning(
                    "there is no time: %s", _unsynchronized(reading.after, chronyd_runs=self._chronyd_runs)
                )
                epoch.steering = Steering()
                # This is no measurement, so it holds in every epoch.
                await emit(BodyUpdate(clock_status=ClockStatus.UNKNOWN))
            await anyio.sleep(self._settings.poll_interval)

    async def _begin(self, number: int, emit: Emit) -> None:
        if reason := self._machine.counter_unfit_because():
            await emit(BodyUpdate(counter_id=CounterId.INVALID))
            raise SourceUnavailableError("kernel", reason)
        # A publisher's first epoch is 0. Any other begins with a disruption, though nobody saw it here.
        stale = number != 0 if self._epoch is None else self._epoch.number != number or self._epoch.written.stale
        if stale and (self._epoch is None or self._epoch.number != number):
            _log.info("the counter was disrupted: there is no time until the clock's daemon writes maxerror again")
        self._epoch = epoch = _Epoch(number, stale=stale)
        await anyio.sleep(_CALIBRATION_S)
        epoch.calibrated = True

    def _read(self) -> Reading:
        before = self._machine.timex()
        return Reading(before, self._machine.pair(timescale(before).clock_id), self._machine.timex())

    async def _tell_time(self, epoch: _Epoch, reading: Reading, emit: Emit) -> None:
        self._unsynchronized = False
        try:
            raw = epoch.calibration.rate()
        except ValueError:
            epoch.calibrated = False  # the counter went back: the publisher then ends the epoch
            return
        rate = epoch.steering.rate(reading, raw)
        if epoch.written.stale:
            return
        assumed_ns = assumed_error_ns(
            self._settings.assumed_error_ns,
            reading.after,
            may_be_zero=epoch.written.may_be_zero,
            may_be_nonsense=epoch.written.may_be_nonsense or reading.before.maxerror_ns is None,
            chronyd_runs=self._chronyd_runs,
        )
        update = time_update(reading, rate, raw, assumed_ns=assumed_ns)
        has_bound = update.time_maxerror_nanosec is not None
        if not has_bound and not self._unbounded:
            _log.warning(
                "%s: no bound; the time is published without one. Run chronyd and use the source chrony, or say with "
                "kernel.assumed_error how many seconds the clock may be off",
                _unbounded_because(reading, epoch.written),
            )
        self._unbounded = not has_bound
        self._explain = partial(explanation, reading, rate, raw, assumed_ns=assumed_ns)
        await emit(update, epoch=epoch.number)


def _unbounded_because(reading: Reading, written: WrittenMaxError) -> str:
    if nonsense := reading.after.nonsense or reading.before.nonsense:
        return f"what programs wrote into the kernel's clock state is out of range ({nonsense})"
    if written.may_be_nonsense:
        return "the kernel's maxerror was out of range, and may have grown from that"
    return "the daemon that keeps the clock writes maxerror 0 into the kernel, as systemd-timesyncd does"


def _unsynchronized(timex: Timex, *, chronyd_runs: bool) -> str:
    """What a clock shows that the kernel calls unsynchronized, and the remedy."""
    bits = ClockStatusBits.UNSYNC | ClockStatusBits.CLOCKERR
    said = f"the kernel's clock is marked as not synchronized ({_names(timex.status & bits)})"
    if chronyd_runs:
        return (
            f"{said}, though chronyd runs: chronyd tells the kernel only where chrony.conf has rtcsync, and once it is "
            "synchronized; add rtcsync, or use the source chrony"
        )
    if timex.frequency_ppb:
        return (
            f"{said}, though its rate is corrected by {timex.frequency_ppb / 1000:g} ppm: some program steers it, or "
            "did; if that is chronyd, add rtcsync to chrony.conf, or use the source chrony"
        )
    return f"{said}, and no daemon is seen that keeps it; start one"


def _names(status: ClockStatusBits) -> str:
    return " and ".join(f"STA_{bit.name}" for bit in ClockStatusBits if bit & status)


def _contradiction(reading: Reading) -> str:
    said = (timex.nonsense or f"{timex.realtime_ns} ns" for timex in (reading.before, reading.after))
    return (
        f"adjtimex and CLOCK_REALTIME contradict each other: the clock is at {reading.utc_ns} ns since 1970, "
        f"adjtimex says {' before and '.join(said)} after that; does something stand in for the system call? Use the "
        "source chrony"
    )
