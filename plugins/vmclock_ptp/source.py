"""The ptp source and its settings: one poll a second, from a PTP clock's reading to an update.

A disruption makes nothing stale here but the counter: a reading asks the clock, which is the host's, and the host knew
the time all along. So the first reading of the new epoch counts, except where the clock's driver is known to go on for
a while from what the host said before (``Kind.settles_s``).

It sees the clock's time. It does not see:

* whether the host's clock is right: that is what the device claims, or ``assumed_error``;
* a leap second that the kernel does not announce: a clock in UTC then steps, and the time is a second off for up to a
  poll;
* a disruption that neither a device nor the counter shows.
"""

import logging
import math
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import ClassVar, Final, Literal, final

import anyio
import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field

from vmclock_async.abi import TELLS_TIME, CounterId, TimeType, name_of
from vmclock_async.errors import SegmentError, SourceUnavailableError
from vmclock_async.models import BodyUpdate
from vmclock_async.sources import Emit, Explanation
from vmclock_ptp.choice import AUTO, OpenClock, chosen
from vmclock_ptp.kinds import kind_of
from vmclock_ptp.machine import Machine
from vmclock_ptp.measure import EARLIEST_NS, LATEST_NS, Measurement, Steadiness, explanation, tai_offset_s
from vmclock_ptp.reading import read
from vmclock_ptp.remedies import failed

__all__ = ("PtpSettings", "PtpSource")

_CALIBRATION_S: Final = 0.1

_log: Final = logging.getLogger("vmclock_async.ptp")


@final
class PtpSettings(BaseModel):
    """Options of the ptp source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(
        AUTO,
        pattern=r"^[^\x00]+$",
        description="path of the clock's device, or its clock_name; auto: the best that is known",
    )
    poll_interval: float = Field(1.0, gt=0, allow_inf_nan=False, description="seconds between two measurements")
    timescale: Literal["utc", "tai"] | None = Field(
        None, description="what the clock counts; by default what is known of its kind"
    )
    assumed_error: Decimal | None = Field(
        None,
        ge=0,
        le=10**6,
        allow_inf_nan=False,
        description="seconds that the clock may be off beyond what its device claims; without either there is no bound",
    )
    tai_offset: int | None = Field(
        None,
        ge=-1000,
        le=-10,
        description="seconds to add to TAI for UTC, -37 since 2017; for a clock in TAI where the kernel knows none",
    )

    @property
    def assumed_error_ns(self) -> int | None:
        """`assumed_error` in nanoseconds, rounded up."""
        return None if self.assumed_error is None else math.ceil(Fraction(self.assumed_error) * 10**9)

    @property
    def time_type(self) -> TimeType | None:
        """`timescale` as the ABI has it."""
        return None if self.timescale is None else TimeType[self.timescale.upper()]


@final
class _Epoch:
    """Knowledge of one epoch, which is void in the next."""

    def __init__(self, number: int, machine: Machine, *, reliable_at: float) -> None:
        self.number = number
        self.calibration = machine.calibration()
        self.steadiness = Steadiness()
        self.reliable_at = reliable_at
        """When the clock surely gives a time from after the disruption, by the event loop's clock."""
        self.reports_steps = True


@final
class PtpSource:
    """Gives the time of a PTP clock.

    Raises from ``run``:
        SourceUnavailableError: the counter is unfit, there is no such clock, it cannot be read, or what it says
            cannot be understood.
    """

    settings_type: ClassVar[type[BaseModel]] = PtpSettings

    def __init__(self, settings: PtpSettings, *, machine: Machine | None = None) -> None:
        self._settings = settings
        self._machine = machine or Machine()
        self._clock: OpenClock | None = None
        self._explain: Callable[[], Explanation | None] = lambda: None
        """Makes the terms of the last measurement, which few ask for."""
        self._unbounded = False
        """Whether the log reports a missing bound."""
        self._claiming: set[str] = set()
        """Paths of clocks whose device has claimed a bound: assumed_error says what they may be off beyond that."""
        self._epoch_number = 0
        """The last epoch that was seen. A publisher's first one is 0; any other begins with a disruption."""
        self._reliable_at = -math.inf

    @property
    def rests_on_system_clock(self) -> bool | None:
        """False for a clock of the host's; a network card's may be set from this machine's clock, by phc2sys."""
        clock = self._clock
        if clock is None:
            return False if self._settings.device == AUTO else None
        return None if kind_of(clock.clock.name, self._machine.kernel_release()).time_type is None else False

    def probe(self) -> str:
        """The clock that is read, and how, in words; blocks for some milliseconds.

        Raises:
            SourceUnavailableError: as for ``run``; and if nothing bounds the clock's error, because ``publish auto``
                then does better with another source. ``run`` gives the time all the same.
        """
        if reason := self._machine.counter_unfit_because():
            raise SourceUnavailableError("ptp", reason)
        clock = self._open()
        try:
            measurement, way = self._measure(clock)
        finally:
            self._machine.close(clock.descriptor)
        error_ns = measurement.clock_error_ns
        if error_ns is None:
            raise SourceUnavailableError(
                "ptp",
                f"nothing bounds the error of {clock}; set ptp.assumed_error to the seconds that it may be off",
            )
        return f"{clock}, {clock.kind.words}, by {way}, which may be off by {error_ns / 1e6:g} ms"

    def explanation(self) -> Explanation | None:
        """The terms of the last measurement's bound."""
        return self._explain()

    async def run(self, emit: Emit) -> None:
        """Measure once a ``poll_interval``, for ever."""
        await self._require_fit_counter(emit)
        clock = await anyio.to_thread.run_sync(self._open)
        try:
            self._clock = clock
            _log.info("the time comes from %s, %s", clock, clock.kind.words)
            await self._follow(clock, emit)
        finally:
            self._clock = None
            self._machine.close(clock.descriptor)

    async def _follow(self, clock: OpenClock, emit: Emit) -> None:
        epoch: _Epoch | None = None
        while True:
            number = emit.epoch
            if epoch is None or epoch.number != number:
                epoch = await self._begin(number, clock, emit)
                continue  # the epoch may have ended meanwhile
            measurement, _ = await anyio.to_thread.run_sync(self._measure, clock)
            if measurement.is_at_leap or self._lacks_claim(clock, measurement):
                await anyio.sleep(self._settings.poll_interval)
                continue  # its offset or its bound is uncertain, and the measurement before still holds
            try:
                raw = epoch.calibration.rate()
            except ValueError:
                epoch = None  # the counter went back: the publisher then ends the epoch
                await anyio.sleep(_CALIBRATION_S)
                continue
            rate = epoch.steadiness.rate(measurement, raw)
            if epoch.steadiness.stepped_ns and epoch.reports_steps:
                epoch.reports_steps = False
                _log.warning(
                    "%s was stepped by %.6f s against the counter; its host may have set it. Further steps are not "
                    "reported",
                    clock,
                    epoch.steadiness.stepped_ns / 10**9,
                )
            if anyio.current_time() >= epoch.reliable_at:
                self._warn_without_bound(clock, measurement)
                self._explain = partial(explanation, measurement, rate)
                await emit(measurement.update(rate), epoch=number)
            await anyio.sleep(self._settings.poll_interval)

    async def _begin(self, number: int, clock: OpenClock, emit: Emit) -> _Epoch:
        await self._require_fit_counter(emit)
        if number != self._epoch_number:
            self._epoch_number = number
            self._reliable_at = anyio.current_time() + clock.kind.settles_s
        epoch = _Epoch(number, self._machine, reliable_at=self._reliable_at)
        await anyio.sleep(_CALIBRATION_S)
        return epoch

    async def _require_fit_counter(self, emit: Emit) -> None:
        """Emit that there is no time, and raise, if the counter is not or no longer reliable."""
        if reason := self._machine.counter_unfit_because():
            await emit(BodyUpdate(counter_id=CounterId.INVALID))
            raise SourceUnavailableError("ptp", reason)

    def _open(self) -> OpenClock:
        return chosen(self._machine, self._settings.device, self._settings.time_type)

    def _measure(self, clock: OpenClock) -> tuple[Measurement, str]:
        """A measurement, and the way it was made; runs in a worker thread."""
        self._require_time_on_page(clock)
        claimed_before_ns = self._claimed_ns(clock)
        try:
            reading = read(self._machine, clock.descriptor)
        except OSError as exc:
            raise SourceUnavailableError("ptp", failed(clock.clock, exc)) from exc
        # The ENA driver's claim belongs to the device's last answer to anybody, so it is read after ours. The reading
        # that counts may be an earlier one.
        claimed_ns = self._claimed_ns(clock)
        if claimed_ns is not None:
            claimed_ns = max(claimed_ns, claimed_before_ns or 0)
        self._require_time_on_page(clock)
        timex = self._machine.timex()
        offset_s = tai_offset_s(timex, clock.time_type, self._settings.tai_offset)
        if clock.time_type == TimeType.TAI and offset_s is None:
            raise SourceUnavailableError(
                "ptp",
                f"{clock} counts in TAI, and the kernel does not know how far UTC is from that: set ptp.tai_offset "
                "(-37 since 2017), or let a daemon tell the kernel (chrony.conf: leapsectz right/UTC)",
            )
        measurement = Measurement(
            reading.pairing, clock.time_type, offset_s, timex, claimed_ns, self._settings.assumed_error_ns
        )
        if not EARLIEST_NS <= measurement.utc_ns < LATEST_NS:
            raise SourceUnavailableError(
                "ptp",
                f"{clock} says that it is {measurement.utc_ns / 10**9:.3f} s since 1970, which is before 2020 or after "
                "2262: nobody has set it; use another clock, or run the daemon that sets it",
            )
        return measurement, reading.way

    def _require_time_on_page(self, clock: OpenClock) -> None:
        """Raise an error if *clock* shows the time of a page that takes it back.

        The kernel's driver goes on with what the page had, unless its status is UNRELIABLE. But after a migration it
        is UNKNOWN, for example, until the new host has measured.
        """
        if not clock.kind.page:
            return
        try:
            status = self._machine.page_status(clock.kind.page)
        except (SegmentError, OSError) as exc:
            raise SourceUnavailableError(
                "ptp", f"nobody knows whether the time of {clock} counts, because its page cannot be read: {exc}"
            ) from exc
        if status not in TELLS_TIME:
            raise SourceUnavailableError(
                "ptp", f"the page that {clock} shows says {name_of(status)}: it has no time that counts"
            )

    def _claimed_ns(self, clock: OpenClock) -> int | None:
        claim = clock.kind.claim
        return self._machine.claimed_error_ns(clock.clock, claim) if claim else None

    def _lacks_claim(self, clock: OpenClock, measurement: Measurement) -> bool:
        """Whether the device of *clock*, which has claimed a bound before, claims none for *measurement*."""
        path = clock.clock.path
        if measurement.claimed_ns is not None:
            self._claiming.add(path)
            self._unbounded = False
            return False
        if path in self._claiming and not self._unbounded:
            self._unbounded = True
            _log.warning(
                "%s: no bound any more, because %s cannot be read, or is none; nothing is measured until it is back, "
                "and the last time holds",
                clock,
                clock.kind.claim,
            )
        return path in self._claiming

    def _warn_without_bound(self, clock: OpenClock, measurement: Measurement) -> None:
        has_bound = measurement.clock_error_ns is not None
        if not has_bound and not self._unbounded:
            _log.warning(
                "%s: no bound; the time is published without one, because a PTP clock does not say how far its host's "
                "own clock is off%s. Say with ptp.assumed_error how many seconds that may be: what the provider "
                "promises, or what chronyd on the host shows as root dispersion and half the root delay",
                clock,
                f", and {clock.kind.claim} cannot be read, or is none" if clock.kind.claim else "",
            )
        self._unbounded = not has_bound
