"""The chrony source: asks chronyd once a second for the time and its possible error.

    synchronized                 a measurement (see ``measure``), SYNCHRONIZED
    not, and never was           INITIALIZING
    no longer, or stale          FREERUNNING, once, and no measurement: the last one stays, and its bound grows
    no answer                    SourceUnavailableError: the publisher runs this again, and lets the time age

The measurement is made in a worker thread, pairings included, so that it does not contain the loop's own delays.
"""

import logging
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import ClassVar, Final, final

import anyio
from pydantic import BaseModel, ConfigDict, Field

from vmclock_async import (
    BodyUpdate,
    ClockStatus,
    CounterId,
    Emit,
    SourceUnavailableError,
    TimeType,
)
from vmclock_async.sources import Explanation
from vmclock_async.timebase import (
    Calibration,
    Rate,
    Timex,
    adjtimex,
    counter_unfit_because,
    is_near_leap,
    pair,
    timescale,
)
from vmclock_chrony.connection import Connection, ask
from vmclock_chrony.doubt import Doubt
from vmclock_chrony.measure import UNKNOWN_TIMEX, Estimator, Exchange, Tracking, leap_of
from vmclock_chrony.recovery import Recovery
from vmclock_chrony.reference import ReferenceFile

__all__ = ("ChronySettings", "ChronySource")

CALIBRATE_S: Final = 0.1
SLOW_S: Final = 0.1
"""A reply that takes longer, in seconds, is dropped."""
SLOW_IN_A_ROW: Final = 5
UNMEASURED_IN_A_ROW: Final = 5
TRIES: Final = 3
"""Number of times that chronyd is asked again at once after a step."""


_log: Final = logging.getLogger("vmclock_async.chrony")


@final
class ChronySettings(BaseModel):
    """Options of the chrony source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    address: str | None = Field(
        None,
        pattern=r"^(/.+|.+:\d{1,5})$",
        description="chronyd's socket, or host:port of its command port; "
        "unset: its usual sockets, then 127.0.0.1:323",
    )
    poll_interval: float = Field(1.0, gt=0, allow_inf_nan=False, description="seconds between requests")
    max_clock_error_ppm: Decimal = Field(
        Decimal(50), ge=0, le=100_000, description="how far off an oscillator may be, parts per million"
    )
    chrony_maxclockerror_ppm: Decimal = Field(
        Decimal(1), ge=0, le=100_000, description="maxclockerror in chrony.conf, parts per million"
    )
    reference_error: Decimal | None = Field(
        None,
        ge=0,
        le=10**6,
        allow_inf_nan=False,
        description="seconds that chronyd's own reference may be off beyond what chronyd says, such as a hypervisor's "
        "clock behind refclock PHC; added to the bound; by default 0, with a warning where there is a refclock",
    )
    reference_error_path: Path | None = Field(
        None,
        description="a file that says the same in nanoseconds, such as phc_error_bound of EC2's network adapter; read "
        "with each request, and added to the bound beside reference_error; without a value there is no measurement",
    )
    reset_on_disruption: bool = Field(
        True,
        description="reset chronyd after a migration or restore, where it lets us; else wait until it is over it",
    )
    smeared: bool = Field(
        False, description="the servers smear leap seconds: publish neither UTC nor TAI within a day of one"
    )


@final
class _Trust:
    """The source's knowledge of chronyd in one epoch; it outlasts a run, because chronyd does."""

    def __init__(self, epoch: int, recovery: Recovery | None) -> None:
        self.epoch: Final = epoch
        self.recovery = recovery
        """None: chronyd's time is reliable."""
        self.was_synchronized = False


@final
class ChronySource:
    """Publishes chronyd's time.

    Raises from ``run``:
        SourceUnavailableError: chronyd does not answer, or refuses; the CPU's counter is unfit; or the file with the
            error of the reference clock holds none.
        SourceError: pychrony is missing.
    """

    settings_type: ClassVar[type[BaseModel]] = ChronySettings
    rests_on_system_clock: ClassVar[bool] = True

    def __init__(
        self, settings: ChronySettings, *, counter_unfit_because: Callable[[], str | None] = counter_unfit_because
    ) -> None:
        self._settings = settings
        self._counter_unfit_because = counter_unfit_because
        # A publisher's first epoch is 0. Any other begins with a disruption, though nobody saw it here.
        self._trust = _Trust(0, None)
        self._warnings = _Warnings(settings)
        path = settings.reference_error_path
        self._reference = None if path is None else ReferenceFile(path)
        """It outlasts a run, because the samples that chronyd's estimate rests on do."""
        self._run: _Run | None = None

    def explanation(self) -> Explanation | None:
        """The terms of the last measurement's bound."""
        return self._run.explanation if self._run else None

    def probe(self) -> str:
        """Where chronyd answers, and whether it is synchronized; blocks for at most two seconds.

        Raises:
            SourceUnavailableError, SourceError: as for ``run``.
        """
        if reason := self._counter_unfit_because():
            raise SourceUnavailableError("chrony", reason)
        if self._settings.reference_error_path is not None:
            ReferenceFile(self._settings.reference_error_path).read()
        with Connection(self._settings.address) as connection:
            tracking = connection.tracking()
            state = (
                f"synchronized to {tracking.reference_ip or tracking.reference_id_name}"
                if Tracking.of(tracking).has_reference
                else "not synchronized"
            )
            return f"chronyd at {connection.address}, {state}"

    async def run(self, emit: Emit) -> None:
        """Ask and emit, until it is cancelled."""
        await self._require_fit_counter(emit)
        with Connection(self._settings.address) as connection:
            self._run = run = _Run(self._settings, connection, emit, self._warnings, self._reference)
            await anyio.sleep(CALIBRATE_S)
            due = anyio.current_time()
            while True:
                epoch = emit.epoch  # read before the measurement
                if epoch != self._trust.epoch:
                    await self._require_fit_counter(emit)
                    self._trust = await run.recover(epoch)
                await run.poll(self._trust)
                due = max(due + self._settings.poll_interval, anyio.current_time())
                await anyio.sleep_until(due)

    async def _require_fit_counter(self, emit: Emit) -> None:
        """Emit that there is no time, and raise, if the counter is not or no longer reliable."""
        if reason := self._counter_unfit_because():
            await emit(BodyUpdate(counter_id=CounterId.INVALID))
            raise SourceUnavailableError("chrony", reason)


@final
class _Warnings:
    """Warnings that the log gets once for a chronyd; this outlasts a run, because chronyd does."""

    def __init__(self, settings: ChronySettings) -> None:
        self._warned_of_reference = (
            settings.reference_error is not None or settings.reference_error_path is not None
        )
        self._warned_of_missing = False

    def hear(self, tracking: Tracking, doubt: Doubt, max_error_ns: int | None) -> None:
        """Warn about what *tracking* shows, and about a *doubt* that is most of *max_error_ns*."""
        if tracking.is_of_reference_clock and not self._warned_of_reference:
            self._warned_of_reference = True
            _log.warning(
                "chronyd follows a reference clock (%s), and does not know how far that clock itself may be off: set "
                "chrony.reference_error, in seconds (0 if there is nothing to add), or chrony.reference_error_path, a "
                "file that says it in nanoseconds (on EC2 phc_error_bound), or give the refclock in chrony.conf twice "
                "as much as its delay",
                tracking.reference_name,
            )
        is_large = max_error_ns is not None and 2 * abs(doubt.forgotten_ns) > max_error_ns
        if is_large and not self._warned_of_missing:
            self._warned_of_missing = True
            _log.warning(
                "chronyd's time is %.6f s away from what chronyd measured last: until its next measurement the bound "
                "is larger by that. A chronyd before 4.7 that cannot step its clock (-x) forgets what makestep orders "
                "it to step: remove makestep from chrony.conf, or install chronyd 4.7",
                doubt.forgotten_ns / 10**9,
            )


def _timex() -> Timex:
    try:
        timex = adjtimex()
    except OSError:  # a seccomp filter: chronyd gives the time all the same
        return UNKNOWN_TIMEX
    return UNKNOWN_TIMEX if timex.realtime_ns is None else timex


@final
class _Run:
    """What one run of the source knows, over one connection."""

    def __init__(
        self,
        settings: ChronySettings,
        connection: Connection,
        emit: Emit,
        warnings: _Warnings,
        reference: ReferenceFile | None = None,
    ) -> None:
        self._reference = reference
        self._settings = settings
        self._warnings = warnings
        self._connection = connection
        self._emit = emit
        self._slow = 0
        self._unmeasured = 0
        self._told: ClockStatus | None = None
        self._begin()

    def _begin(self) -> None:
        """Forget all measurements of the counter."""
        self._calibration = Calibration()
        self._estimator = Estimator(
            max_clock_error_ppm=self._settings.max_clock_error_ppm,
            chrony_maxclockerror_ppm=self._settings.chrony_maxclockerror_ppm,
            reference_error_ns=Fraction(self._settings.reference_error or 0) * 10**9,
        )
        self._doubt = Doubt()

    @property
    def explanation(self) -> Explanation | None:
        """The terms of the last measurement's bound."""
        return self._estimator.explanation

    async def poll(self, trust: _Trust) -> None:
        """Ask once, and emit the result in the epoch of *trust*."""
        measured = await self._exchange()
        if measured is None:
            return
        exchange, raw = measured
        self._doubt.hear(exchange, raw)
        if not (exchange.tracking.has_reference and exchange.is_fresh):
            await self._tell_status(trust)
            return
        if trust.recovery is not None:
            if not await trust.recovery.is_over(self._connection, exchange.tracking):
                return
            trust.recovery = None
        doubt, reference = self._doubt, self._reference
        if reference is not None and reference.is_busy:
            return  # nothing bounds this measurement, and the one before still holds
        update = self._estimator.measure(
            exchange,
            raw,
            missing_ns=doubt.missing_ns,
            forgotten_ns=doubt.forgotten_ns,
            stated_ns=None if reference is None else reference.error_ns,
        )
        self._warnings.hear(exchange.tracking, doubt, update.time_maxerror_nanosec)
        await self._emit(self._smeared(update, exchange), epoch=trust.epoch)
        self._told = ClockStatus.SYNCHRONIZED
        trust.was_synchronized = True

    async def recover(self, epoch: int) -> _Trust:
        """Start over in *epoch*, after a disruption."""
        self._told = None
        recovery = Recovery()
        if self._settings.reset_on_disruption:
            await recovery.reset(self._connection)
        await self._begin_anew()
        return _Trust(epoch, recovery)

    async def _begin_anew(self) -> None:
        self._begin()
        await anyio.sleep(CALIBRATE_S)

    async def _exchange(self) -> tuple[Exchange, Rate] | None:
        """An exchange in which the clock was not stepped, and RAW's rate; None if none can be had."""
        jumps = 0
        while jumps < TRIES:
            asked = anyio.current_time()
            exchange = await ask(self._connection, self._ask)
            try:
                raw = self._calibration.rate()
            except ValueError:  # the counter was set back
                break
            if exchange is None:
                jumps += 1
                continue
            if exchange.round_trip_ticks * raw.ns_per_tick > SLOW_S * 10**9:
                self._slow += 1
                if self._slow >= SLOW_IN_A_ROW:
                    raise SourceUnavailableError(
                        "chrony",
                        f"chronyd takes {anyio.current_time() - asked:.3f} s to answer, more than {SLOW_S} s, "
                        f"{self._slow} times in a row; is the machine overloaded?",
                    )
                return None
            self._slow = 0
            if not exchange.is_stepped(raw):
                self._unmeasured = 0
                return exchange, raw
            jumps += 1
        # A clock is not stepped so often. The counter must have jumped since the calibration began; if the publisher
        # has not seen that, nobody else reports it.
        self._unmeasured += 1
        if self._unmeasured >= UNMEASURED_IN_A_ROW:
            raise SourceUnavailableError(
                "chrony",
                f"the system clock was stepped, or adjtimex and CLOCK_REALTIME contradict each other, at each of the "
                f"last {TRIES * self._unmeasured} requests to chronyd; does something stand in for the system call?",
            )
        await self._begin_anew()
        return None

    def _ask(self) -> Exchange | None:
        """Runs in a worker thread; None if the clock was stepped or changed its timescale meanwhile."""
        timex = _timex()
        clock_id = timescale(timex).clock_id
        before = pair(clock_id)
        status = self._connection.tracking()
        after = pair(clock_id)
        tracking = Tracking.of(status)
        if self._reference is not None:
            self._reference.read(tracking.ref_time_ns)
        exchange = Exchange(timex, before, tracking, after)
        return exchange if exchange.is_consistent(_timex()) else None

    async def _tell_status(self, trust: _Trust) -> None:
        """Emit once that there is no measurement."""
        status = ClockStatus.FREERUNNING if trust.was_synchronized else ClockStatus.INITIALIZING
        if status != self._told:
            _log.info("chronyd is not synchronized, or has not measured for long: %s", status.name)
            await self._emit(BodyUpdate(clock_status=status), epoch=trust.epoch)
            self._told = status

    def _smeared(self, update: BodyUpdate, exchange: Exchange) -> BodyUpdate:
        """*update*, marked as neither UTC nor TAI while the servers may be smearing."""
        if not self._settings.smeared:
            return update
        utc_s = exchange.before.clock_ns // 10**9 + (exchange.timescale.tai_offset_s or 0)
        if leap_of(exchange.tracking) or is_near_leap(utc_s):
            return update.model_copy(update={"time_type": TimeType.INVALID_MAYBE_SMEARED})
        return update
