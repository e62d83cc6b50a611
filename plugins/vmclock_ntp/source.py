"""The ntp source: asks NTP servers itself, and each second says what they have told so far.

    servers agree                one measurement a second, SYNCHRONIZED
    no longer, or none answers   FREERUNNING, once, and no measurement: the last one stays, and its bound grows
    never agreed                 INITIALIZING
    none ever answered           SourceUnavailableError: the publisher runs this again, after a growing pause

A measurement here is what the answers of this epoch say about the present moment: each server's interval, carried
forward by the counter with its drift, and then what a majority of them has in common. So it is made each second, though
a server is asked every 16 to 64 s: a publisher takes a time that nobody renews for 5 s for one that runs free. It
promises nothing that the answers do not: without a new answer it is as wide as the interval of a second ago has become
by then. When no server has answered eight requests in a row, or those that do contradict each other, it is not renewed,
and the publisher's rules of ageing apply.

The system clock is never read: the counter's rate comes from CLOCK_MONOTONIC_RAW, which nobody steers, and then from
the answers themselves (``measure``).
"""

import logging
from collections.abc import Callable
from typing import Annotated, ClassVar, Final, final

import anyio
import anyio.to_thread
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from vmclock_async import BodyUpdate, ClockStatus, CounterId, Emit, SourceUnavailableError, TimeType, VMClockError
from vmclock_async.sources import Explanation
from vmclock_async.timebase import counter_ticks, counter_unfit_because, is_near_leap
from vmclock_ntp.address import LINK_LOCAL, ServerName
from vmclock_ntp.asking import Asking
from vmclock_ntp.exchange import ask_blocking
from vmclock_ntp.knowledge import Knowledge, Lack, Measured

__all__ = ("NtpSettings", "NtpSource")

_CALIBRATE_S: Final = 0.1
_FIRST_ROUND_S: Final = 5.0
"""Longest time, in seconds, to wait at first until every server has answered or has not, so that all of them vote."""
_SAY_EVERY_S: Final = 1.0
_PROBE_S: Final = 1.0
_MOST_SERVERS: Final = 8
_NOBODY: Final = (
    "no servers are set, and none answers at the addresses that clouds have for them "
    f"({', '.join(map(str, LINK_LOCAL))}); say with ntp.servers which ones to ask"
)

_log: Final = logging.getLogger("vmclock_async.ntp")


def _listed(value: object) -> object:
    """Items of a string that commas divide, as ``--set`` and variables have it."""
    return [item for item in value.split(",") if item.strip()] if isinstance(value, str) else value


@final
class NtpSettings(BaseModel):
    """Options of the ntp source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    servers: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        (),
        max_length=_MOST_SERVERS,
        description="NTP servers to ask, up to 8: host, host:port or [IPv6 address]:port; on the command line divided "
        "by commas; unset: those that the cloud has at link-local addresses",
    )
    smeared: bool | None = Field(
        None,
        description="the servers smear leap seconds: publish neither UTC nor TAI within a day of one; by default "
        "true for Amazon's, Google's and Meta's",
    )

    @field_validator("servers")
    @classmethod
    def _are_servers(cls, servers: tuple[str, ...]) -> tuple[str, ...]:
        names = [str(ServerName.parse(server)) for server in servers]
        lower = [name.lower() for name in names]  # DNS knows no other: RFC 4343
        if twice := {name for name in names if lower.count(name.lower()) > 1}:
            raise ValueError(f"{', '.join(sorted(twice))} is named more than once: each server has one vote")
        return tuple(names)

    @property
    def names(self) -> tuple[ServerName, ...]:
        """The servers to ask."""
        return tuple(map(ServerName.parse, self.servers)) or LINK_LOCAL

    @property
    def may_smear(self) -> bool:
        """Whether the time may be smeared."""
        return any(name.smears for name in self.names) if self.smeared is None else self.smeared


@final
class NtpSource:
    """Gives the time of NTP servers.

    Raises from ``run``:
        SourceUnavailableError: no server answers, or all refuse; or the CPU's counter is unfit.
    """

    settings_type: ClassVar[type[BaseModel]] = NtpSettings
    rests_on_system_clock: ClassVar[bool] = False

    def __init__(
        self, settings: NtpSettings, *, counter_unfit_because: Callable[[], str | None] = counter_unfit_because
    ) -> None:
        self._settings = settings
        self._counter_unfit_because = counter_unfit_because
        # Both outlast a run: the servers' wishes hold, and so do their answers while the epoch does.
        self._knowledge = Knowledge(settings.names, are_set=bool(settings.servers))
        self._explanation: Explanation | None = None

    def explanation(self) -> Explanation | None:
        """The terms of the last measurement's bound."""
        return self._explanation

    def probe(self) -> str:
        """Which servers are asked; without any set, blocks for at most a second to ask those of clouds.

        Raises:
            SourceUnavailableError: none is set and none answers, or the counter is unfit.
        """
        if reason := self._counter_unfit_because():
            raise SourceUnavailableError("ntp", reason)
        if self._settings.servers:
            return f"asks {', '.join(self._settings.servers)}"
        addresses = {name.numeric: str(name) for name in LINK_LOCAL}
        found = [addresses[address] for address in ask_blocking(addresses, _PROBE_S)]
        if not found:
            raise SourceUnavailableError("ntp", _NOBODY)
        return f"{', '.join(found)} of this cloud gives the time"

    async def run(self, emit: Emit) -> None:
        """Ask and emit, until it is cancelled."""
        failure: VMClockError | None = None
        async with anyio.create_task_group() as tasks:
            # An error that left the group would come out in a group of errors.
            try:
                await self._begin(emit)
                await anyio.sleep(_CALIBRATE_S)
                asking = Asking(self._knowledge, emit, are_set=bool(self._settings.servers))
                for server in self._knowledge.servers:
                    tasks.start_soon(asking.keep_asking, server)
                await self._say(emit, asking)
            except VMClockError as exc:
                failure = exc
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _begin(self, emit: Emit) -> None:
        """Begin in the present epoch, unless all that is known is from it."""
        if reason := self._counter_unfit_because():
            await emit(BodyUpdate(counter_id=CounterId.INVALID))
            raise SourceUnavailableError("ntp", reason)
        if self._settings.may_smear:
            await anyio.to_thread.run_sync(is_near_leap, 0)  # which reads the table, and keeps it
        self._knowledge.begin(emit.epoch)

    async def _say(self, emit: Emit, asking: Asking) -> None:
        """Emit each second what is known, or that nothing is."""
        knowledge = self._knowledge
        if not knowledge.has_answers:
            with anyio.move_on_after(_FIRST_ROUND_S):
                await asking.first_round.wait()
        if not knowledge.has_answers and emit.epoch == knowledge.epoch:
            raise SourceUnavailableError("ntp", self._nothing_because())
        told: ClockStatus | None = None
        while True:
            epoch = emit.epoch  # read before the counter
            if epoch != knowledge.epoch:
                await self._begin(emit)
                await anyio.sleep(_CALIBRATE_S)
                asking.ask_again()
                told = None
                continue
            if knowledge.all_forbid:
                raise SourceUnavailableError("ntp", self._nothing_because())
            match knowledge.measure(counter_ticks()):
                case Measured(update, explanation, utc_ns):
                    self._explanation = explanation
                    await emit(self._smeared(update, utc_ns), epoch=epoch)
                    told = ClockStatus.SYNCHRONIZED
                    await anyio.sleep(_SAY_EVERY_S)
                    continue
                case Lack.FORGOTTEN:
                    asking.ask_again()
                case Lack.NO_TIME:
                    status = ClockStatus.FREERUNNING if knowledge.was_synchronized else ClockStatus.INITIALIZING
                    if status != told:
                        _log.info("no server's time can be used now: %s", status.name)
                        await emit(BodyUpdate(clock_status=status), epoch=epoch)
                        told = status
            await asking.news_within(_SAY_EVERY_S)  # the first time is for those who wait for one

    def _nothing_because(self) -> str:
        if not self._settings.servers:
            return _NOBODY
        failures = "; ".join(f"{one.name}: {one.failure or 'no answer yet'}" for one in self._knowledge.servers)
        remedy = "check ntp.servers, the resolver, and that UDP port 123 is open that way"
        return f"no server gives a time ({failures}); {remedy}"

    def _smeared(self, update: BodyUpdate, utc_ns: int) -> BodyUpdate:
        """*update*, marked as neither UTC nor TAI while the servers may be smearing."""
        if self._settings.may_smear and (update.leap_indicator or is_near_leap(utc_ns // 10**9)):
            return update.model_copy(update={"time_type": TimeType.INVALID_MAYBE_SMEARED})
        return update
